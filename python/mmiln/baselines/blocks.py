"""Layers that several baselines share."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from .inputs import Sequence

if TYPE_CHECKING:
    from collections.abc import Callable


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


class Encoder(LSTM):
    """An LSTM, and a linear layer after its last state if ``out`` is not 0: (B, width)."""

    def __init__(self, width: int, hidden: int, out: int = 0) -> None:
        super().__init__(width, hidden)
        self.linear = nn.Linear(hidden, out) if out else None
        self.width = out or hidden

    def last(self, x: Sequence) -> Tensor:
        state = self(x)[1]  # (B, hidden), whatever B is
        return state if self.linear is None else self.linear(state)


class Recurrent(nn.Module):
    """An LSTM and a linear map; returns the map of all states, and of the last one (B, out)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.lstm, self.map = LSTM(width, hidden), nn.Linear(hidden, out)

    def forward(self, x: Sequence) -> tuple[Sequence, Tensor]:
        states, last = self.lstm(x)
        return states.map(self.map(states.frames)), self.map(last)


class MLP(nn.Sequential):
    """Linear layers with ReLU and dropout between them."""

    def __init__(self, *widths: int, dropout: float = 0.0) -> None:
        layers: list[nn.Module] = []
        for i, (before, after) in enumerate(itertools.pairwise(widths)):
            layers += [nn.ReLU(), nn.Dropout(dropout)] if i else []
            layers.append(nn.Linear(before, after))
        super().__init__(*layers)


class Head(nn.Module):
    """Dropout and linear layers; returns the feature F* (B, post) and the score (B,)."""

    def __init__(self, width: int, post: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear1 = nn.Linear(width, post)
        self.linear2 = nn.Linear(post, post)
        self.linear3 = nn.Linear(post, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = torch.relu(self.linear1(self.dropout(x)))
        return feature, self.linear3(torch.relu(self.linear2(feature)))[:, 0]


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (B, width), by running statistics where the batch is one utterance."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1 or not self.training:
            return super().forward(x)
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def positions(lengths: Tensor, steps: int, width: int, like: Tensor) -> Tensor:
    """Sinusoidal positions from 1 on, (B, steps, width), zeros after each end (Vaswani et al., 2017).

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


def by_length(read: Callable[..., Sequence], x: Sequence, *others: Sequence) -> Sequence:
    """``read(x, *others)`` for a function that keeps x's shape and treats each utterance by itself.

    On a CPU it reads utterances of similar length together: beside a few long ones most of the others' frames
    would be padding, and the cost of attention is quadratic. On a GPU it reads all at once to fill it.
    """
    if x.frames.device.type != "cpu":
        return read(x, *others)
    cost = torch.stack([sequence.lengths for sequence in (x, *others)]).prod(0)
    out = torch.zeros_like(x.frames)
    for some in torch.argsort(cost, stable=True).tensor_split(min(8, len(cost))):
        frames = read(x.take(some), *(other.take(some) for other in others)).frames
        out[some, : frames.shape[1]] = frames
    return Sequence(out, x.lengths)


class Attention(nn.Module):
    """Multi-head attention of queries (B, Tq, width) over true frames alone; projections with bias."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, query: Tensor, x: Sequence) -> Tensor:
        out, _ = self.inner(query, x.frames, x.frames, key_padding_mask=~x.mask, need_weights=False)
        return out
