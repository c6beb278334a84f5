"""The full model a second time, composed from torch's own modules, to check the oracle with."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def load(module: nn.Module, tensors: dict[str, Tensor], prefix: str) -> nn.Module:
    """A double-precision torch module in evaluation mode, holding the parameters under a prefix."""
    start = f"{prefix}."
    own = {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
    module = module.double().eval()
    module.load_state_dict({k: own[k] for k in module.state_dict()})
    return module


def peer_forward(
    p: dict[str, Tensor], config: Mapping[str, Any], batch: Mapping[str, Any], b: int
) -> dict[str, Tensor]:
    """The full model on one utterance, composed a second time, from torch's modules."""
    d, h = config["d_model"], config["num_heads"]
    out = {}

    def affine(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def attend(name: str, q: Tensor, kv: Tensor) -> Tensor:
        return load(nn.MultiheadAttention(d, h), p, name)(q, kv, kv, need_weights=False)[0]

    def gate_and_feed(name: str, x: Tensor, mixed: Tensor) -> Tensor:
        states = load(nn.GRU(d, d, bidirectional=True), p, f"{name}.gru")(x)[0].mean(dim=0)
        c = 0.5 * (states[:d] + states[d:])
        out[f"control.{name.split('.')[-1]}"] = c  # of the last layer in the end
        mixed = mixed * affine(f"{name}.compound", c).sigmoid()
        x = x * affine(f"{name}.retain", c).sigmoid()
        y = load(nn.LayerNorm(d), p, f"{name}.norm1")(mixed + x)
        fed = affine(f"{name}.ffn.linear2", affine(f"{name}.ffn.linear1", y).relu())
        return load(nn.LayerNorm(d), p, f"{name}.norm2")(y + fed)

    def conv(n: str, x: Tensor) -> Tensor:
        padding = config[f"{n}_kernel"] // 2
        weight, bias = p[f"{n}.conv.weight"], p[f"{n}.conv.bias"]
        return functional.conv1d(x.T, weight, bias, padding=padding).T

    ta = tv = conv("text", batch["text"][b])
    lstm = {n: nn.LSTM(config[f"{n}_dim"], config[f"{n}_hidden"]) for n in ("audio", "vision")}
    audio, vision = (conv(n, load(m, p, f"{n}.lstm")(batch[n][b])[0]) for n, m in lstm.items())
    for i in range(config["num_layers"]):
        layer = f"fusion.{i}"
        a = attend(f"{layer}.audio.attention", audio, audio)
        v = attend(f"{layer}.vision.attention", vision, vision)
        audio = gate_and_feed(f"{layer}.audio", audio, a)
        vision = gate_and_feed(f"{layer}.vision", vision, v)
        s_a = a * affine(f"{layer}.text_audio.source", a).sigmoid()
        s_v = v * affine(f"{layer}.text_vision.source", v).sigmoid()
        h_ta = attend(f"{layer}.text_audio.self_attention", ta, ta)
        h_tv = attend(f"{layer}.text_vision.self_attention", tv, tv)
        r_ta = attend(f"{layer}.text_audio.attention", h_ta, s_a)
        r_tv = attend(f"{layer}.text_vision.attention", h_tv, s_v)
        ta = gate_and_feed(f"{layer}.text_audio", ta, r_ta)
        tv = gate_and_feed(f"{layer}.text_vision", tv, r_tv)
    pooled = {
        "multimodal": torch.cat([ta.mean(dim=0), tv.mean(dim=0)]),
        "audio": audio.mean(dim=0),
        "vision": vision.mean(dim=0),
    }
    for u, z in pooled.items():
        out[f"F_{u}"] = affine(f"heads.{u}.linear1", z).relu()
        hidden = affine(f"heads.{u}.linear2", out[f"F_{u}"]).relu()
        out[f"y_{u}"] = affine(f"heads.{u}.linear3", hidden)[0]
    return out
