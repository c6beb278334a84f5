"""MulT, one utterance at a time."""

from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, attention, layer_norm, linear


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    pairs = {"text": ("audio", "vision"), "audio": ("text", "vision"), "vision": ("text", "audio")}

    def placed(x: Tensor) -> Tensor:
        width = x.shape[1]
        half = width // 2
        table = torch.zeros_like(x)
        for t in range(len(x)):
            for i in range(half):
                angle = torch.tensor((t + 1) / 10000 ** (i / max(half - 1, 1)), dtype=torch.float64)
                table[t, i], table[t, half + i] = torch.sin(angle), torch.cos(angle)
        return width**0.5 * x + table

    def transformer(name: str, target: Tensor, source: Tensor | None = None) -> Tensor:
        z, seen = placed(target), None if source is None else placed(source)
        for i in range(settings.layers):
            at = f"{name}.layers.{i}"
            query = layer_norm(p, f"{at}.norm", z)
            key = query if seen is None else layer_norm(p, f"{at}.norm", seen)
            z = z + attention(p, f"{at}.attention.inner", query, key, settings.heads)
            inner = torch.relu(linear(p, f"{at}.linear1", layer_norm(p, f"{at}.norm2", z)))
            z = z + linear(p, f"{at}.linear2", inner)
        return layer_norm(p, f"{name}.norm", z)

    low = {}
    for m, x in u.items():
        weight = p[f"convs.{m}.weight"]
        kernel = weight.shape[2]
        zeros = x.new_zeros(kernel // 2, x.shape[1])
        wide = torch.cat([zeros, x, zeros])
        low[m] = sum(wide[j : j + len(x)] @ weight[:, :, j].T for j in range(kernel))
    last = []
    for a, pair in pairs.items():
        if a not in u:
            continue
        streams = [transformer(f"cross.{b}_{a}", low[a], low[b]) for b in pair if b in u]
        last.append(transformer(f"memory.{a}", torch.cat(streams, 1))[-1])
    h = torch.cat(last)
    h = h + linear(p, "linear2", torch.relu(linear(p, "linear1", h)))
    return {"M": linear(p, "head", h)[0]}
