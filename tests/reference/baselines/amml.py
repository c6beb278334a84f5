"""AMML, one utterance at a time, and its loss of two utterances by hand."""

from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear, lstm

NAMES = {"T": "text", "A": "audio", "V": "vision"}


def unimodal(p: Params, name: str, frames: Tensor) -> tuple[Tensor, Tensor]:
    h = lstm(p, f"unimodal.{name}.lstm.rnn", frames)[-1]
    z = linear(p, f"unimodal.{name}.map", h)
    off = z - z.mean()
    z = off / torch.sqrt((off * off).mean() + 1e-5)  # mean 0, variance 1
    return z, linear(p, f"unimodal.{name}.head", z)[0]


def fusion(p: Params, parts: list[Tensor]) -> Tensor:
    x = torch.cat(parts)
    for layer in ("fusion.0", "fusion.3"):
        x = torch.relu(linear(p, layer, x))
    return linear(p, "fusion.6", x)[0]


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    both = {name: unimodal(p, name, u[m]) for name, m in NAMES.items()}
    scores = {name: y for name, (_, y) in both.items()}
    return scores | {"M": fusion(p, [z for z, _ in both.values()])}


def losses(p: dict[str, Tensor], settings: Any, support: list[Any], query: list[Any]) -> dict[str, Tensor]:
    """Each part a list of (utterance, label); gradients by ``settings.second_order``."""
    second, total, adapted = settings.second_order, torch.zeros((), dtype=torch.float64), dict(p)
    for i, (name, m) in enumerate(NAMES.items()):
        own = [n for n in p if n.startswith(f"unimodal.{name}.")]
        for step in range(settings.steps):
            loss = sum(abs(unimodal(adapted, name, u[m])[1] - y) for u, y in support) / len(support)
            total = total + loss if step == 0 else total
            slopes = torch.autograd.grad(loss, [adapted[n] for n in own], create_graph=True)
            for n, slope in zip(own, slopes, strict=True):
                slope = slope if second else slope.detach()
                adapted[n] = adapted[n] - torch.exp(p["rates"][i]) * slope
    task = torch.zeros((), dtype=torch.float64)
    for u, y in query:
        z = [unimodal(adapted, name, u[m])[0] for name, m in NAMES.items()]
        task = task + abs(fusion(p, z) - y) / len(query)
    return {"task": task, "unimodal": total, "total": task + settings.unimodal * total}
