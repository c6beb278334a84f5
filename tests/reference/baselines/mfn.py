"""MFN of one utterance, a line an equation."""

from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear

VIEWS = ("text", "audio", "vision")


def cell(p: Params, name: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of an LSTM: gates i, f, g, o."""
    gates = p[f"{name}.weight_ih"] @ x + p[f"{name}.bias_ih"]
    gates = gates + p[f"{name}.weight_hh"] @ h + p[f"{name}.bias_hh"]
    i, f, g, o = gates.chunk(4)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def two_layers(p: Params, name: str, x: Tensor) -> Tensor:
    return linear(p, f"{name}.3", torch.relu(linear(p, f"{name}.0", x)))


def fusion(p: Params, name: str, settings: Any, u: dict[str, Tensor]) -> Tensor:
    h = {m: torch.zeros(getattr(settings, f"{m}_hidden"), dtype=torch.float64) for m in VIEWS}
    c = dict(h)
    memory = torch.zeros(settings.memory, dtype=torch.float64)
    for t in range(len(u["text"])):
        c_before = torch.cat([c[m] for m in VIEWS])
        for m in VIEWS:
            h[m], c[m] = cell(p, f"{name}.cells.{m}", u[m][t], h[m], c[m])
        c_star = torch.cat([c_before, *(c[m] for m in VIEWS)])
        attention = torch.softmax(two_layers(p, f"{name}.attention", c_star), dim=0)
        c_hat = c_star * attention
        u_hat = torch.tanh(two_layers(p, f"{name}.update", c_hat))
        gamma_1 = torch.sigmoid(two_layers(p, f"{name}.retain", torch.cat([c_hat, memory])))
        gamma_2 = torch.sigmoid(two_layers(p, f"{name}.take", torch.cat([c_hat, memory])))
        memory = gamma_1 * memory + gamma_2 * u_hat
    return torch.cat([*(h[m] for m in VIEWS), memory])


def forward(state: dict[str, Tensor], settings: Any, utterance: dict[str, Tensor]) -> dict[str, Tensor]:
    fused = fusion(state, "fusion", settings, utterance)
    return {"M": two_layers(state, "out", fused)[0], "fused": fused}
