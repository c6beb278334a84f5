"""Distances between two samples, which baselines minimise."""

from __future__ import annotations

import torch
from torch import Tensor


def cmd(x: Tensor, y: Tensor, moments: int = 5) -> Tensor:
    """Central moment discrepancy of two samples (B, w) (Zellinger et al., 2017), as MISA uses it."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    total = norm(mean_x - mean_y)
    for k in range(2, moments + 1):
        total = total + norm(((x - mean_x) ** k).mean(0) - ((y - mean_y) ** k).mean(0))
    return total


def norm(x: Tensor) -> Tensor:
    """Euclidean norm whose gradient at zero is zero."""
    square = (x**2).sum()
    return torch.where(square > 0, square, 1.0).sqrt() * (square > 0)


def orthogonality(x: Tensor, y: Tensor) -> Tensor:
    """Mean square of the products of two centred samples (B, w) with rows of norm 1 (MISA, eq. 9)."""

    def unit(z: Tensor) -> Tensor:
        z = z - z.mean(0)
        return z / (z.norm(dim=1, keepdim=True).detach() + 1e-6)

    return ((unit(x).T @ unit(y)) ** 2).mean()


def mmd(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples (B, w) (Gretton et al., 2012).

    The kernel is exp(-|a - b|^2 / w^2), as in MFM's code; an utterance is its own pair too.
    """

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-(a[:, None] - b[None]).square().sum(2) / x.shape[1] ** 2).mean()

    return kernel(y, y) + kernel(x, x) - 2 * kernel(y, x)
