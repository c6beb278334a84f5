"""The losses: task (35), similarity (24)(25), difference (26), total (36)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def task(
    predictions: Mapping[str, Tensor],
    labels: Tensor,
    pseudo: Mapping[str, Tensor],
    weights: Tensor | None = None,
) -> Tensor:
    """(35): `predictions` holds "multimodal" and the modalities present; `pseudo` the latter's.

    `weights` (B,) are those of a weighted mean over the utterances.
    """
    loss = (predictions["multimodal"] - labels) ** 2
    for n, y_n in pseudo.items():
        weight = torch.tanh((y_n - labels).abs())
        loss = loss + weight * (predictions[n] - y_n).abs()
    return loss.mean() if weights is None else torch.dot(weights, loss) / weights.sum()


def norm(x: Tensor) -> Tensor:
    """L2 norm whose gradient at zero is zero."""
    squared = (x * x).sum()
    return squared.sqrt() if squared > 0 else squared


def sim(p: Tensor, q: Tensor, moments: int = 5, low: float = -1.0, high: float = 1.0) -> Tensor:
    """(24)(25): central moment discrepancy of two samples (B, d) on [low, high]."""
    p_mean, q_mean = p.mean(dim=0), q.mean(dim=0)
    loss = norm(p_mean - q_mean) / (high - low)
    for k in range(2, moments + 1):
        p_moment = ((p - p_mean) ** k).mean(dim=0)
        q_moment = ((q - q_mean) ** k).mean(dim=0)
        loss = loss + norm(p_moment - q_moment) / (high - low) ** k
    return loss


def diff(p: Tensor, q: Tensor, normalize: bool) -> Tensor:
    """(26) for one pair of (B, d): ||P^T Q||_F^2, or its mean after centring and row scaling."""
    if not normalize:
        return ((p.T @ q) ** 2).sum()
    p, q = p - p.mean(dim=0), q - q.mean(dim=0)
    p = p / (p.detach().pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-6)
    q = q / (q.detach().pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-6)
    return ((p.T @ q) ** 2).mean()


def total(task_loss: Tensor, sim_loss: Tensor, diff_loss: Tensor, config: Mapping[str, Any]) -> Tensor:
    """(36); every variant but the full model has alpha = beta = 0."""
    if config["variant"] != "full":
        return task_loss
    return task_loss + config["alpha"] * sim_loss + config["beta"] * diff_loss


def losses(
    outputs: Mapping[str, Any],
    labels: Tensor,
    pseudo: Mapping[str, Tensor],
    config: Mapping[str, Any],
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """`pseudo` holds the current pseudo-labels (B,) of "audio" and "vision", where present."""
    predictions = {u: outputs[f"y_{u}"] for u in ("multimodal", *pseudo)}
    task_loss = task(predictions, labels, pseudo, weights)
    sim_loss = diff_loss = torch.zeros_like(task_loss)
    c = {u: outputs.get(f"control.{u}") for u in ("audio", "vision", "text_audio", "text_vision")}
    if c["text_audio"] is not None and c["text_vision"] is not None:
        sim_loss = sim(c["text_audio"], c["text_vision"])
    for n in ("audio", "vision"):
        if c[f"text_{n}"] is not None:
            diff_loss = diff_loss + diff(c[f"text_{n}"], c[n], config["diff_normalize"])
    return {
        "task": task_loss,
        "sim": sim_loss,
        "diff": diff_loss,
        "total": total(task_loss, sim_loss, diff_loss, config),
    }
