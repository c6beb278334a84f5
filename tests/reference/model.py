"""The forward pass in evaluation mode; numbers in parentheses are the paper's equations."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .bert import bert
from .layers import (
    Params,
    attention,
    control,
    conv1d,
    in_projections,
    layer_norm,
    linear,
    lstm,
    probabilities,
)

Config = Mapping[str, Any]


def sources(config: Config) -> list[str]:
    """The modalities present beside text."""
    return [n for n in ("audio", "vision") if config[f"{n}_dim"] > 0]


def text_streams(config: Config) -> list[str]:
    """The text-led streams: one per source, none without the SAG stack."""
    if config["variant"] == "no_gate_fusion":
        return []
    return [f"text_{n}" for n in sources(config)]


def gated(config: Config) -> bool:
    return config["variant"] != "no_mfm"


def gates(params: Params, name: str, x: Tensor, config: Config) -> dict[str, Tensor]:
    """(7)-(9), (16), (19), (20): control vector, retain gate and compound gate of one utterance."""
    if not gated(config):
        return {"retain": torch.ones_like(x[0]), "compound": torch.ones_like(x[0])}
    c = control(params, f"{name}.gru", x)
    return {
        "control": c,
        "retain": torch.sigmoid(linear(params, f"{name}.retain", c)),
        "compound": torch.sigmoid(linear(params, f"{name}.compound", c)),
    }


def feed_forward(params: Params, name: str, y: Tensor) -> Tensor:
    hidden = torch.relu(linear(params, f"{name}.ffn.linear1", y))
    return layer_norm(params, f"{name}.norm2", y + linear(params, f"{name}.ffn.linear2", hidden))


def gate_transformer(params: Params, name: str, x: Tensor, config: Config) -> dict[str, Tensor]:
    g = gates(params, name, x, config)  # (7) (8) (9)
    a = attention(params, f"{name}.attention", x, x, config["num_heads"])  # (10)
    y = layer_norm(params, f"{name}.norm1", g["compound"] * a + g["retain"] * x)  # (11)
    return {**g, "attention": a, "output": feed_forward(params, name, y)}  # (12)


def sag_transformer(params: Params, name: str, x: Tensor, a: Tensor, config: Config) -> dict[str, Tensor]:
    heads = config["num_heads"]
    h = attention(params, f"{name}.self_attention", x, x, heads)  # (15)
    g = gates(params, name, x, config)  # (16) (19) (20)
    if gated(config):
        g_s = torch.sigmoid(linear(params, f"{name}.source", a))  # (17)
    else:
        g_s = torch.ones_like(a)
    r = attention(params, f"{name}.attention", h, g_s * a, heads)  # (18) (21)
    q, k, _ = in_projections(params, f"{name}.attention", h, g_s * a)
    y = layer_norm(params, f"{name}.norm1", g["compound"] * r + g["retain"] * x)  # (22)
    return {
        **g,
        "source": g_s,
        "attention": r,
        "map": probabilities(q, k, heads),
        "output": feed_forward(params, name, y),  # (23)
    }


def head(params: Params, name: str, z: Tensor) -> tuple[Tensor, Tensor]:
    """(27) (28): the representation F_u and the score y_u."""
    f = torch.relu(linear(params, f"{name}.linear1", z))
    y = linear(params, f"{name}.linear3", torch.relu(linear(params, f"{name}.linear2", f)))
    return f, y.squeeze(-1)


def utterance(
    params: Params, config: Config, frames: Mapping[str, Tensor], bert_config: Config | None
) -> dict[str, Tensor]:
    """All results of one utterance, whose true frames are given per modality."""
    if "text_bert" in frames:
        text = bert(params, bert_config, frames["text_bert"])  # (3)
    else:
        text = frames["text"]
    x_text = conv1d(params, "text.conv", text)  # (4)
    x = {f"text_{n}": x_text for n in sources(config)}
    for n in sources(config):
        x[n] = conv1d(params, f"{n}.conv", lstm(params, f"{n}.lstm", frames[n]))  # (1) (2) (4)

    out = {}
    for i in range(config["num_layers"]):
        layer = {}
        for n in sources(config):
            layer[n] = gate_transformer(params, f"fusion.{i}.{n}", x[n], config)
        for f in text_streams(config):
            a = layer[f.removeprefix("text_")]["attention"]
            layer[f] = sag_transformer(params, f"fusion.{i}.{f}", x[f], a, config)
        for stream, results in layer.items():
            x[stream] = results["output"]
            if not gated(config):
                results = {key: results[key] for key in ("output", "attention", "map") if key in results}
            for key, value in results.items():
                if key != "control":
                    out[f"fusion.{i}.{stream}.{key}"] = value
                elif i == config["num_layers"] - 1:
                    out[f"control.{stream}"] = value

    def pool_text(frames: Tensor) -> Tensor:
        return frames[0] if config["pooling"] == "first" else frames.mean(dim=0)

    pooled = {n: x[n].mean(dim=0) for n in sources(config)}
    if text_streams(config):
        z = [pool_text(x[f]) for f in text_streams(config)]
    else:  # no SAG stack, or text alone
        z = [pool_text(x_text)] + [pooled[n] for n in sources(config)]
    out["F_multimodal"], out["y_multimodal"] = head(params, "heads.multimodal", torch.cat(z))
    for n in sources(config):
        out[f"F_{n}"], out[f"y_{n}"] = head(params, f"heads.{n}", pooled[n])
    return out


def forward(
    params: Params,
    config: Config,
    batch: Mapping[str, Any],
    bert_config: Config | None = None,
) -> dict[str, Any]:
    """Results of a ragged batch: (B, ...) tensors, and lists of (T, d) for what is per frame.

    Without gates (`no_mfm`) there are no `control`, `retain`, `compound` and `source` entries.
    """
    out: dict[str, Any] = {}
    for key, values in each_utterance(params, config, batch, bert_config).items():
        ragged = key.endswith((".output", ".attention", ".source"))
        if not key.endswith(".map"):
            out[key] = values if ragged else torch.stack(values)
    return out


def attention_maps(
    params: Params, config: Config, batch: Mapping[str, Any], bert_config: Config | None = None
) -> dict[str, list[Tensor]]:
    """Probabilities of the cross attention (21) by layer and text-led stream: lists of (heads, T_t, T_n)."""
    found = each_utterance(params, config, batch, bert_config)
    return {key.removesuffix(".map"): values for key, values in found.items() if key.endswith(".map")}


def each_utterance(
    params: Params, config: Config, batch: Mapping[str, Any], bert_config: Config | None
) -> dict[str, list[Tensor]]:
    """Each result of all utterances."""
    text = "text_bert" if "text_bert" in batch else "text"
    results = []
    for b in range(len(batch[text])):
        frames = {m: batch[m][b] for m in [text, *sources(config)]}
        results.append(utterance(params, config, frames, bert_config))
    return {key: [result[key] for result in results] for key in results[0]}
