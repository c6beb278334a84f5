"""The mutual promotion unit (MPU) of EMT: two sequences of tokens promote each other.

    F(X, Y) = FFN(SA(CA(X, Y)))       CA: X attends to Y;  SA: to itself;  FFN(x) = W_o (W_1 x * gelu(W_2 x))

each with a layer norm before and a residual. Q, K and V have a bias here and none in the public code, whose
FFN is gated too (GEGLU).
"""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from .blocks import Attention, by_length
from .inputs import Sequence


class PromotionUnit(nn.Module):
    """One direction of the unit: Y promotes X (B, T, width)."""

    def __init__(
        self, width: int, heads: int, expansion: int, attention_dropout: float, ff_dropout: float
    ) -> None:
        super().__init__()
        norms = ("query", "source", "own", "ff")
        self.norms = nn.ModuleDict({name: nn.LayerNorm(width) for name in norms})
        self.cross = Attention(width, heads, attention_dropout)
        self.own = Attention(width, heads, attention_dropout)
        self.gate = nn.Linear(width, 2 * expansion * width)
        self.out = nn.Linear(expansion * width, width)
        self.dropout = nn.Dropout(ff_dropout)

    def forward(self, x: Sequence, y: Sequence) -> Sequence:
        return by_length(self._promote, x, y)

    def _promote(self, x: Sequence, y: Sequence) -> Sequence:
        h = x.frames
        h = h + self.cross(self.norms["query"](h), y.map(self.norms["source"](y.frames)))
        normed = self.norms["own"](h)
        h = h + self.own(normed, x.map(normed))
        value, gate = self.gate(self.norms["ff"](h)).chunk(2, -1)
        return x.map(h + self.dropout(self.out(value * F.gelu(gate))))
