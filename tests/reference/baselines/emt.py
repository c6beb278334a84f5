"""EMT, one utterance at a time, in elementary tensor operations."""

import math
from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, attention, layer_norm, linear, lstm

MODALITIES = ("text", "audio", "vision")


def unit(p: Params, heads: int, x: Tensor, y: Tensor) -> Tensor:
    """x attends to y, to itself, and goes through a gated layer."""
    source = layer_norm(p, "unit.norms.source", y)
    x = x + attention(p, "unit.cross.inner", layer_norm(p, "unit.norms.query", x), source, heads)
    own = layer_norm(p, "unit.norms.own", x)
    x = x + attention(p, "unit.own.inner", own, own, heads)
    value, gate = linear(p, "unit.gate", layer_norm(p, "unit.norms.ff", x)).chunk(2, dim=-1)
    gelu = gate * (1 + torch.erf(gate / math.sqrt(2))) / 2
    return x + linear(p, "unit.out", value * gelu)


def position(step: int, width: int) -> Tensor:
    half = width // 2
    rates = [10000 ** (-i / max(half - 1, 1)) for i in range(half)]
    entries = [math.sin((step + 1) * r) for r in rates] + [math.cos((step + 1) * r) for r in rates]
    return torch.tensor(entries + [0.0] * (width - 2 * half), dtype=torch.float64)


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    local, vectors, tokens = {}, [], []
    for m in MODALITIES:
        states = linear(p, f"{m}.map", lstm(p, f"{m}.lstm.rnn", u[m]))  # X_m
        vectors.append(states[-1])  # h_m
        project = p[f"project.{m}.weight"].T
        tokens.append(states[-1] @ project)
        local[m] = torch.stack([x @ project + position(t, settings.width) for t, x in enumerate(states)])
    context = torch.stack(tokens)  # G (3, d)
    for _ in range(settings.layers):
        promoted = {m: unit(p, settings.heads, context, local[m]) for m in MODALITIES}
        local = {m: unit(p, settings.heads, local[m], context) for m in MODALITIES}
        scores = [
            p["pool.2.weight"] @ torch.tanh(linear(p, "pool.0", g.flatten())) for g in promoted.values()
        ]
        weights = torch.softmax(torch.cat(scores), 0)
        context = sum(a * g for a, g in zip(weights, promoted.values(), strict=True))
    x = torch.cat([*vectors, context.flatten()])
    x = torch.relu(linear(p, "head.0", x))
    x = torch.relu(linear(p, "head.3", x))
    return {"M": linear(p, "head.6", x)[0], "context": context.flatten()}


def restoration(network: Any, outputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """L_recon and L_attract of a batch, by entries; projections and predictions are the network's."""
    recon = outputs["M"].new_zeros(())
    for m in MODALITIES:
        entries = []
        for b, step in outputs[f"lost_{m}"].nonzero().tolist():
            guess = network.restore[m](outputs[f"local_{m}'"])[b, step]
            for off in (guess - outputs[f"frames_{m}"][b, step]).abs():
                entries.append(off**2 / 2 if off < 1 else off - 0.5)
        recon = recon + (sum(entries) / len(entries) if entries else 0)
    attract = outputs["M"].new_zeros(())
    for name in (*MODALITIES, "context"):
        z = [network.projector[name](outputs[key]) for key in (name, f"{name}'")]
        p = [network.predictor[name](each) for each in z]
        for one, other in ((p[1], z[0]), (p[0], z[1])):
            cosines = [a @ b / (a.norm() * b.norm()) for a, b in zip(one, other, strict=True)]
            attract = attract - sum(cosines) / len(cosines) / 2
    return recon, attract
