"""RAVEN of one utterance, a line an equation."""

from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear, lstm


def frames_of_words(frames: Tensor, words: int) -> list[Tensor]:
    """T frames divided evenly in order: word i has those of floor(t n / T) = i."""
    steps = len(frames)
    return [frames[[t for t in range(steps) if t * words // steps == i]] for i in range(words)]


def nonverbal(p: Params, name: str, frames: Tensor) -> Tensor:
    if len(frames) == 0:
        return torch.zeros(p[f"{name}.lstm.rnn.weight_hh_l0"].shape[1], dtype=torch.float64)
    return lstm(p, f"{name}.lstm.rnn", frames)[-1]


def shift(p: Params, settings: Any, u: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Shifted words, (T, width), and the alpha of each."""
    audio, vision = (frames_of_words(u[m], len(u["text"])) for m in ("audio", "vision"))
    one = torch.tensor(1.0, dtype=torch.float64)
    shifted, alphas = [], []
    for e, a, v in zip(u["text"], audio, vision, strict=True):
        h_a, h_v = nonverbal(p, "audio", a), nonverbal(p, "vision", v)
        w_a = torch.sigmoid(linear(p, "audio_gate", torch.cat([h_a, e])))
        w_v = torch.sigmoid(linear(p, "vision_gate", torch.cat([h_v, e])))
        mix_a, mix_v = p["mix.weight"].chunk(2, dim=1)
        h_m = w_v * (mix_v @ h_v) + w_a * (mix_a @ h_a) + p["mix.bias"]
        alpha = min(settings.beta * torch.sqrt((e**2).sum()) / torch.sqrt((h_m**2).sum()), one)
        shifted.append(e + alpha * h_m)
        alphas.append(alpha)
    return torch.stack(shifted), torch.stack(alphas)


def forward(state: dict[str, Tensor], settings: Any, utterance: dict[str, Tensor]) -> dict[str, Tensor]:
    shifted, _ = shift(state, settings, utterance)
    last = lstm(state, "lstm.rnn", shifted)[-1]
    return {"M": linear(state, "out", last)[0]}
