"""MFM of one utterance, a line an equation."""

import runpy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear, lstm

_mfn = runpy.run_path(str(Path(__file__).with_name("mfn.py")))
VIEWS, cell, fusion, two_layers = _mfn["VIEWS"], _mfn["cell"], _mfn["fusion"], _mfn["two_layers"]


def decode(p: Params, name: str, factors: Tensor, steps: int) -> Tensor:
    h = c = torch.zeros(len(factors), dtype=torch.float64)
    seen, frames = factors, []
    for _ in range(steps):
        h, c = cell(p, f"{name}.cell", seen, h, c)
        seen = h
        frames.append(linear(p, f"{name}.out", h))
    return torch.stack(frames)


def mmd(z: Tensor, prior: Tensor) -> float:
    """Of samples (B, d), pair by pair."""
    size, width = z.shape

    def kernel(a: Tensor, b: Tensor) -> float:
        total = 0.0
        for i in range(size):
            for j in range(size):
                distance = sum(float(a[i, k] - b[j, k]) ** 2 for k in range(width)) / width
                total += float(torch.exp(torch.tensor(-distance / width, dtype=torch.float64)))
        return total / size**2

    return kernel(prior, prior) + kernel(z, z) - 2 * kernel(prior, z)


def forward(state: dict[str, Tensor], settings: Any, utterance: dict[str, Tensor]) -> dict[str, Tensor]:
    p, u = state, utterance
    z = {"label": linear(p, "fused", fusion(p, "fusion", settings, u))}
    for m in VIEWS:
        z[m] = linear(p, f"encoded.{m}", lstm(p, f"encoders.{m}.rnn", u[m])[-1])
    f = {name: torch.relu(two_layers(p, f"factors.{name}", z[name])) for name in z}
    out = {"M": two_layers(p, "out", f["label"])[0], **{f"z_{name}": each for name, each in z.items()}}
    for m in VIEWS:
        x_hat = decode(p, f"decoders.{m}", torch.cat([f["label"], f[m]]), len(u[m]))
        out[f"error_{m}"] = ((u[m] - x_hat) ** 2).sum() / u[m].shape[1]
    return out
