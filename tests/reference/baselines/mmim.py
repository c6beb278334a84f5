"""MMIM, one utterance at a time, and its bounds in loops over a batch."""

import math
from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear, lstm

Outputs = dict[str, Tensor]


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> Outputs:
    h = {m: lstm(p, f"{m}.rnn", u[m])[-1] for m in ("text", "audio", "vision") if m in u}
    z = torch.tanh(linear(p, "fuse1", torch.cat(list(h.values()))))
    z = torch.tanh(linear(p, "fuse2", z))
    return {"M": linear(p, "score", z)[0], "Z": z} | {f"h_{m}": v for m, v in h.items()}


def likelihood(p: Params, name: str, eps: float, text: Tensor, h: Tensor) -> Tensor:
    """Mean over utterances of log N(h; mu, sigma^2), without -d/2 log 2 pi."""
    total = h.new_zeros(())
    for x, y in zip(text, h, strict=True):
        mean = linear(p, f"{name}.mean.3", torch.relu(linear(p, f"{name}.mean.0", x)))
        log = linear(p, f"{name}.log_variance.3", torch.relu(linear(p, f"{name}.log_variance.0", x)))
        normal = torch.distributions.Normal(mean, (log.exp() + eps).sqrt())
        total = total + normal.log_prob(y).sum() + len(y) / 2 * math.log(2 * math.pi)
    return total / len(h)


def entropy(h: Tensor, labels: Tensor, eps: float) -> Tensor:
    total = h.new_zeros(())
    for sign in (1, -1):
        members = [y for y, label in zip(h, labels, strict=True) if sign * label > 0]
        covariance = eps * torch.eye(h.shape[1], dtype=h.dtype)
        for y in members:
            off = y - sum(members) / len(members)
            covariance = covariance + torch.outer(off, off) / len(members)
        total = total + torch.linalg.eigvalsh(covariance).log().sum()  # log det
    return total / 4


def cpc(h: Tensor, predicted: Tensor) -> Tensor:
    """Z guesses which of the batch's h is its own."""
    total = h.new_zeros(())
    for i, guess in enumerate(predicted):
        scores = torch.stack([torch.exp(guess @ y / (guess.norm() * y.norm())) for y in h])
        total = total - torch.log(scores[i] / scores.sum())
    return total / len(h)


def losses(p: Params, settings: Any, outputs: Outputs, labels: Tensor) -> Outputs:
    """Of the first batch of a run: nothing is remembered."""
    s, h = settings, {name[2:]: v for name, v in outputs.items() if name.startswith("h_")}
    likely = sum(likelihood(p, f"q.{m}", s.eps, h["text"], h[m]) for m in h if m != "text")
    spread = sum(entropy(h[m], labels, s.eps) for m in h if m != "text")
    task = sum(abs(m - y) for m, y in zip(outputs["M"], labels, strict=True)) / len(labels)
    contrast = sum(cpc(h[m], linear(p, f"cpc.{m}", outputs["Z"])) for m in h)
    total = task + s.alpha * contrast + s.beta * -(likely + spread)
    return {"task": task, "cpc": contrast, "ba": -(likely + spread), "estimators": -likely, "total": total}
