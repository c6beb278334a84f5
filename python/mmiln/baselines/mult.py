"""Multimodal Transformer for unaligned sequences.

Tsai, Bai, Liang, Kolter, Morency, Salakhutdinov: Multimodal Transformer for Unaligned Multimodal Language
Sequences, ACL 2019.

    X_m       = Conv1d(x_m) + positions                                         (eq. 2, 3)
    Z[i]      = LN(Z[i-1]) attends to LN(Z_b[0]), residual; feed-forward, residual  (eq. 4, b to a)
    Z_a       = self-attention transformer of [Z_(b->a); Z_(c->a)]              (the paper's section 3.3)
    y         = W2 ReLU(W1 h) + h, then a linear map, h = [last step of Z_l; Z_a; Z_v]

Left open, and what was chosen here:

- The paper reads "the last elements"; its code and MMSA read the last padded step, and all their attention
  sees padding. Here padding is masked, convolutions see zeros after the ends, and the last true step is read.
- The code treats a step whose first channel is zero as padding without a position; here positions are step
  numbers.
- MMSA's convolutions have no padding, so that a kernel of 5 takes 4 steps off: here T steps stay T.
- The code hides later steps from attention (a causal mask, shifted where lengths differ), which the paper
  does not mention: here attention sees every true step.
- Text is dropped out before its convolution, as in the code (the paper's "textual embedding dropout").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import pydantic
import torch
from torch import Tensor, nn

from .blocks import Attention, by_length, positions
from .inputs import Inputs, Sequence
from .network import Network, Outputs, Settings, Widths


class MulTSettings(Settings):
    """Hyper-parameters of MulT.

    Attributes:
        width: Width d of every stream.
        heads, layers: Number of heads and of layers of each transformer.
        text_kernel, audio_kernel, vision_kernel: Kernel widths of the convolutions, odd.
        text_dropout: Dropout of the text features.
        embed_dropout, attn_dropout, relu_dropout, residual_dropout, out_dropout: Dropout of the streams, of
            attention weights, within the feed-forward network, after each part, and of the head.
    """

    # Table 5 of the paper, MOSI; embed, relu and residual dropout, which it omits, from its code's main.py.
    batch_size: int = pydantic.Field(128, ge=1)
    width: int = pydantic.Field(40, ge=1)
    heads: int = pydantic.Field(10, ge=1)
    layers: int = pydantic.Field(4, ge=1)
    text_kernel: int = pydantic.Field(1, ge=1)  # "1 or 3"
    audio_kernel: int = pydantic.Field(3, ge=1)
    vision_kernel: int = pydantic.Field(3, ge=1)
    text_dropout: float = pydantic.Field(0.2, ge=0, lt=1)
    embed_dropout: float = pydantic.Field(0.2, ge=0, lt=1)
    attn_dropout: float = pydantic.Field(0.2, ge=0, lt=1)
    relu_dropout: float = pydantic.Field(0.1, ge=0, lt=1)
    residual_dropout: float = pydantic.Field(0.1, ge=0, lt=1)
    out_dropout: float = pydantic.Field(0.1, ge=0, lt=1)
    clip: float = pydantic.Field(0.8, ge=0, allow_inf_nan=False)

    @pydantic.model_validator(mode="after")
    def _fits(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width must be a multiple of heads, got {self.width} and {self.heads}")
        for name in ("text_kernel", "audio_kernel", "vision_kernel"):
            if getattr(self, name) % 2 == 0:
                raise ValueError(f"{name} must be odd, got {getattr(self, name)}")
        return self


class Layer(nn.Module):
    """One layer of a (crossmodal) transformer, with a layer norm before each part."""

    def __init__(self, width: int, s: MulTSettings) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, s.heads, s.attn_dropout)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)
        self.relu_dropout = nn.Dropout(s.relu_dropout)
        self.dropout = nn.Dropout(s.residual_dropout)

    def forward(self, z: Tensor, source: Sequence | None, mask: Sequence) -> Tensor:
        query = self.norm(z)
        own = Sequence(query, mask.lengths)
        seen = own if source is None else Sequence(self.norm(source.frames), source.lengths)
        z = z + self.dropout(self.attention(query, seen))
        inner = self.relu_dropout(torch.relu(self.linear1(self.norm2(z))))
        return z + self.dropout(self.linear2(inner))


class Transformer(nn.Module):
    """Transformer layers over a target (B, T, width) that attend to a source or to the target itself."""

    def __init__(self, width: int, s: MulTSettings) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(width, s) for _ in range(s.layers)])
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(s.embed_dropout)

    def _placed(self, x: Sequence) -> Sequence:
        width = x.frames.shape[2]
        places = positions(x.lengths, x.frames.shape[1], width, x.frames)
        return x.map(self.dropout(width**0.5 * x.frames + places))

    def forward(self, target: Sequence, *source: Sequence) -> Sequence:
        return by_length(self._attend, target, *source)

    def _attend(self, target: Sequence, source: Sequence | None = None) -> Sequence:
        placed = self._placed(target)
        seen = None if source is None else self._placed(source)
        z = placed.frames
        for layer in self.layers:
            z = layer(z, seen, target)
        return target.map(self.norm(z))


class MulT(Network):
    """Multimodal Transformer (Tsai et al., 2019).

    With two modalities a and b, Z_a is the self-attention transformer of Z_(b->a) alone, d wide.
    """

    Settings = MulTSettings
    NEEDS = ()
    FEWEST = 2
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},  # the defaults
        # Table 5 of the paper.
        "mosei": {"batch_size": 16, "heads": 8, "text_dropout": 0.3, "attn_dropout": 0.1, "clip": 1.0},
    }

    def __init__(self, settings: MulTSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s, d = settings, settings.width
        kernels = {"text": s.text_kernel, "audio": s.audio_kernel, "vision": s.vision_kernel}
        self.convs = nn.ModuleDict(
            {
                m: nn.Conv1d(widths[m], d, k, padding=k // 2, bias=False)
                for m, k in kernels.items()
                if widths[m]
            }
        )
        self.others = {a: [b for b in self.modalities if b != a] for a in self.modalities}
        pairs = [f"{b}_{a}" for a, others in self.others.items() for b in others]
        self.cross = nn.ModuleDict({pair: Transformer(d, s) for pair in pairs})
        self.memory = nn.ModuleDict({a: Transformer(len(o) * d, s) for a, o in self.others.items()})
        wide = len(pairs) * d
        self.linear1 = nn.Linear(wide, wide)
        self.linear2 = nn.Linear(wide, wide)
        self.head = nn.Linear(wide, 1)
        self.dropout = nn.Dropout(s.out_dropout)
        self.text_dropout = nn.Dropout(s.text_dropout)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,)."""
        read = self.read_all(x)
        if "text" in read:
            read["text"] = Sequence(self.text_dropout(read["text"].frames), read["text"].lengths)
        low = {m: s.map(self.convs[m](s.frames.mT).mT) for m, s in read.items()}  # (B, T, d)
        last = []
        for a, others in self.others.items():
            streams = [self.cross[f"{b}_{a}"](low[a], low[b]).frames for b in others]
            last.append(self.memory[a](Sequence(torch.cat(streams, 2), low[a].lengths)).last)
        h = torch.cat(last, 1)  # (B, 6 d), or (B, 2 d) with two modalities
        h = h + self.linear2(self.dropout(torch.relu(self.linear1(h))))
        return {"M": self.head(h)[:, 0]}
