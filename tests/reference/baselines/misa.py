"""MISA, one utterance at a time, in elementary tensor operations, and its losses over a batch."""

from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, attention, layer_norm, linear, lstm

MODALITIES = ("text", "audio", "vision")
PAIRS = (("text", "audio"), ("text", "vision"), ("audio", "vision"))


def _both_ways(p: Params, name: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of a bidirectional LSTM (T, 2 hidden) and its last states (2 hidden,)."""
    back = {n.removesuffix("_reverse"): t for n, t in p.items() if n.endswith("_reverse")}
    ahead, behind = lstm(p, name, x), lstm(back, name, x.flip(0))
    return torch.cat([ahead, behind.flip(0)], 1), torch.cat([ahead[-1], behind[-1]])


def forward(state: Params, settings: Any, utterance: dict[str, Tensor]) -> dict[str, Tensor]:
    p, out = state, {}
    there = [m for m in MODALITIES if m in utterance]
    for m in there:
        frames, last1 = _both_ways(p, f"rnn.{m}.lstm1.rnn", utterance[m])
        normed = layer_norm(p, f"rnn.{m}.norm", frames)
        _, last2 = _both_ways(p, f"rnn.{m}.lstm2.rnn", normed)
        v = torch.cat([last1, last2])
        u = layer_norm(p, f"project.{m}.2", torch.relu(linear(p, f"project.{m}.0", v)))
        out[f"u_{m}"] = u
        out[f"private_{m}"] = torch.sigmoid(linear(p, f"private.{m}.0", u))
        out[f"shared_{m}"] = torch.sigmoid(linear(p, "shared.0", u))
        out[f"decoded_{m}"] = linear(p, f"decode.{m}", out[f"private_{m}"] + out[f"shared_{m}"])
    z = torch.stack([out[f"{kind}_{m}"] for kind in ("private", "shared") for m in there])  # (6, d)
    z = layer_norm(p, "fusion.norm1", z + attention(p, "fusion.self_attn", z, z, 2))
    inner = torch.relu(linear(p, "fusion.linear1", z))
    z = layer_norm(p, "fusion.norm2", z + linear(p, "fusion.linear2", inner))
    out["M"] = linear(p, "out.3", torch.relu(linear(p, "out.0", z.flatten())))[0]
    return out


def cmd(x: Tensor, y: Tensor) -> Tensor:
    """Distance of the means, and of the central moments of order 2 to 5, of the rows."""
    size, other = len(x), len(y)
    mean_x, mean_y = sum(x) / size, sum(y) / other
    total = torch.sqrt(((mean_x - mean_y) ** 2).sum())
    for k in range(2, 6):
        moment_x = sum((row - mean_x) ** k for row in x) / size
        moment_y = sum((row - mean_y) ** k for row in y) / other
        total = total + torch.sqrt(((moment_x - moment_y) ** 2).sum())
    return total


def orthogonality(x: Tensor, y: Tensor) -> Tensor:
    """Mean square of the entries of X^T Y; columns centred, then rows of norm 1."""
    rows = []
    for z in (x, y):
        centred = [row - sum(z) / len(z) for row in z]
        rows.append([row / (torch.sqrt((row**2).sum()) + 1e-6) for row in centred])
    product = sum(torch.outer(a, b) for a, b in zip(*rows, strict=True))
    return (product**2).sum() / product.numel()


def losses(outputs: dict[str, Tensor], labels: Tensor, settings: Any) -> dict[str, Tensor]:
    get = outputs.__getitem__
    there = [m for m in MODALITIES if f"u_{m}" in outputs]
    pairs = [(m, n) for m, n in PAIRS if m in there and n in there]
    task = sum((y - label) ** 2 for y, label in zip(get("M"), labels, strict=True)) / len(labels)
    sim = sum(cmd(get(f"shared_{m}"), get(f"shared_{n}")) for m, n in pairs) / len(pairs)
    diff = sum(orthogonality(get(f"private_{m}"), get(f"shared_{m}")) for m in there)
    diff = diff + sum(orthogonality(get(f"private_{m}"), get(f"private_{n}")) for m, n in pairs)
    recon = sum(((get(f"u_{m}") - get(f"decoded_{m}")) ** 2).sum() / get(f"u_{m}").numel() for m in there)
    recon = recon / len(there)
    total = task + settings.sim * sim + settings.diff * diff + settings.recon * recon
    return {"task": task, "diff": diff, "sim": sim, "recon": recon, "total": total}
