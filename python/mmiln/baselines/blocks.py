"""Parts that several baselines share."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .inputs import Sequence


class LSTM(nn.Module):
    """An LSTM over true frames.

    ``forward`` gives the outputs of all frames and the last state of each direction,
    (B, directions * hidden).
    """

    def __init__(self, width: int, hidden: int, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.rnn = nn.LSTM(width, hidden, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Sequence) -> tuple[Sequence, Tensor]:
        packed = pack_padded_sequence(x.frames, x.lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, (state, _) = self.rnn(packed)
        frames, _ = pad_packed_sequence(out, batch_first=True, total_length=x.frames.shape[1])
        last = state[-2:] if self.rnn.bidirectional else state[-1:]
        return Sequence(frames, x.lengths), last.transpose(0, 1).flatten(1)


class MLP(nn.Sequential):
    """Linear layers with ReLU and dropout between them."""

    def __init__(self, *widths: int, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            layers += [nn.ReLU(), nn.Dropout(dropout)] if i else []
            layers.append(nn.Linear(before, after))
        super().__init__(*layers)


def positions(lengths: Tensor, steps: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions from 1 on, (B, steps, width), zeros behind each end (Vaswani et al., 2017).

    Sines fill the first half and cosines the second, as in MulT's code; an odd width ends in a zero.
    """
    half = width // 2
    rates = torch.exp(
        torch.arange(half, device=like.device, dtype=like.dtype) * -(math.log(10000) / max(half - 1, 1))
    )
    steps_ = torch.arange(1, steps + 1, device=like.device)
    angles = steps_[:, None].to(like.dtype) * rates
    table = torch.cat([angles.sin(), angles.cos(), angles.new_zeros(steps, width - 2 * half)], 1)
    return table * (steps_ <= lengths[:, None])[:, :, None]


class Attention(nn.Module):
    """Multi-head attention of queries (B, Tq, width) over true frames alone; projections with bias."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, query: Tensor, x: Sequence) -> Tensor:
        out, _ = self.inner(query, x.frames, x.frames, key_padding_mask=~x.mask, need_weights=False)
        return out


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
