"""Self-MM, one utterance at a time, in elementary tensor operations; its labels are `reference.ulgm`'s."""

from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear, lstm


def _encode(p: Params, name: str, frames: Tensor, out: int) -> Tensor:
    last = lstm(p, f"{name}.rnn", frames)[-1]
    return linear(p, f"{name}.linear", last) if out else last


def forward(state: Params, settings: Any, utterance: dict[str, Tensor]) -> dict[str, Tensor]:
    p, out = state, {}
    outs = {"text": 0, "audio": settings.audio_out, "vision": settings.vision_out}
    F = {m[0].upper(): _encode(p, m, utterance[m], width) for m, width in outs.items() if m in utterance}
    for name, x in {"M": torch.cat(list(F.values())), **F}.items():
        feature = torch.relu(linear(p, f"heads.{name}.linear1", x))
        hidden = torch.relu(linear(p, f"heads.{name}.linear2", feature))
        out[f"F_{name.lower()}"] = feature
        out[name] = linear(p, f"heads.{name}.linear3", hidden)[0]
    return out


def total(outputs: dict[str, Tensor], y_m: Tensor, pseudo: dict[str, Tensor]) -> Tensor:
    """The whole loss, with the labels of T, A and V."""
    size, sum_ = len(y_m), 0.0
    for i in range(size):
        sum_ = sum_ + abs(outputs["M"][i] - y_m[i])
        for name, y in pseudo.items():
            sum_ = sum_ + torch.tanh(abs(y[i] - y_m[i])) * abs(outputs[name][i] - y[i])
    return sum_ / size
