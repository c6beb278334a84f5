"""The bounds of mutual information that MMIM maximises.

Han, Chen, Poria: Improving Multimodal Fusion with Hierarchical Mutual Information Maximization for Multimodal
Sentiment Analysis, EMNLP 2021. Additive constants of log q and of H are left out.

    I(x; y) >= mean log q(y | x) + H(y),  q(y | x) = N(mu(x), sigma^2(x))      (Barber and Agakov, 2003)
    H(y)     = 1/4 (log det Sigma+ + log det Sigma-)                           (a Gaussian each sign of label)
    I(h; z) >= log B + mean_i log softmax_j (cos(h^j, G z^i)) at j = i         (van den Oord et al., 2018)

Differences from MMIM's public code, which MMSA has taken over:

- Its log q lacks log sigma^2, so that nothing bounds sigma; here the density is complete.
- Its log det is of the plain covariance: minus infinity where a class has fewer members than y has entries,
  NaN where it has none. Here it is of Sigma + eps I, and sigma^2 of q is at least eps too: the bound is then
  that of y with noise of variance eps, and vectors that collapse to a point gain nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import MLP


class Gaussian(nn.Module):
    """q(y | x); the call returns the mean of its log density over the batch, without the constant."""

    def __init__(self, x: int, y: int, eps: float) -> None:
        super().__init__()
        self.mean, self.log_variance = MLP(x, y, y), MLP(x, y, y)
        self.eps = eps

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        variance = self.log_variance(x).exp() + self.eps  # (B, y)
        return -0.5 * ((y - self.mean(x)) ** 2 / variance + variance.log()).sum(1).mean()


def entropy(h: Tensor, labels: Tensor, eps: float) -> Tensor:
    """H of h (B, d), half from each class; the covariance of a class with under two members is eps I."""
    total = h.new_zeros(())
    for chosen in (labels > 0, labels < 0):
        weight = chosen.to(h.dtype)[:, None] / chosen.sum().clamp(min=1)  # (B, 1)
        centred = h - (weight * h).sum(0)
        covariance = (weight * centred).T @ centred  # (d, d)
        total = total + torch.logdet(covariance + eps * torch.eye(h.shape[1], device=h.device, dtype=h.dtype))
    return total / 4


def info_nce(h: Tensor, predicted: Tensor) -> Tensor:
    """The InfoNCE loss: how badly the prediction from z (B, d) tells its own h from the batch's others."""
    cosine = F.normalize(predicted, dim=1) @ F.normalize(h, dim=1).T  # (z, h)
    return -cosine.log_softmax(1).diagonal().mean()
