"""Tensor Fusion Network.

Amir Zadeh, Minghai Chen, Soujanya Poria, Erik Cambria, Louis-Philippe Morency: Tensor Fusion Network for
Multimodal Sentiment Analysis. EMNLP 2017, pages 1103-1114.

    z_l = W h_T + b,  h_T the last state of an LSTM over the words
    z_v = three ReLU layers of the mean vision frame;  z_a likewise of the mean audio frame
    z   = [z_l; 1] x [z_v; 1] x [z_a; 1], the outer product: every uni-, bi- and trimodal product of features
    y   = 6 sigmoid(w . h + b) - 3,  h two ReLU layers of z

The paper's sizes are 128 for z_l, 32 for z_v and z_a, so 129 x 33 x 33 products, and 128 after them.

Left open, and the choice made here: the public code (Zhun Liu's, which MMSA took over) has a batch
normalisation before the three layers that the paper does not mention. Audio features differ in scale by
orders of magnitude, so we keep it; running statistics normalise a batch of one, which has no variance. The
paper's loss is the squared error; the public code and MMSA train on L1, as we do.

Errors in MMSA: means include padding; the LSTM reads past the end of an utterance; dropout of text is set to
0 because the LSTM has one layer; a batch of one is squeezed away.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from .blocks import LSTM, BatchNorm
from .inputs import Inputs, Sequence
from .network import Network, Outputs, Settings, Widths


class SubNet(nn.Module):
    """The network of audio and of vision: three ReLU layers of the mean of an utterance's frames."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = BatchNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(nn.Linear(width if i == 0 else hidden, hidden) for i in range(3))

    def forward(self, x: Sequence) -> Tensor:
        z = self.dropout(self.norm(x.mean))  # (B, width)
        for layer in self.layers:
            z = torch.relu(layer(z))
        return z  # (B, hidden)


class TextNet(nn.Module):
    """The network of text: a linear map of the last state of an LSTM."""

    def __init__(self, width: int, hidden: int, out: int, dropout: float) -> None:
        super().__init__()
        self.lstm = LSTM(width, hidden)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, out)

    def forward(self, x: Sequence) -> Tensor:
        return self.linear(self.dropout(self.lstm(x)[1]))  # (B, out)


def with_one(z: Tensor) -> Tensor:
    """[z; 1], (B, w + 1)."""
    return nn.functional.pad(z, (0, 1), value=1.0)


def outer(x: Tensor, y: Tensor) -> Tensor:
    """The outer products of x (B, w) and y (B, v), (B, w v)."""
    return (x[:, :, None] * y[:, None]).flatten(1)


class TFNSettings(Settings):
    """Hyper-parameters of TFN.

    Attributes:
        text_hidden: Width of the LSTM.
        text_out, audio_hidden, vision_hidden: Widths of z_l, z_a and z_v.
        post: Width of the two layers after the fusion.
        text_dropout, audio_dropout, vision_dropout: Dropout of the LSTM's last state and of the mean frames.
        post_dropout: Dropout of the fused tensor.
        lr, decay: Learning rate and L2 penalty.
    """

    text_hidden: int = Field(128, ge=1)
    text_out: int = Field(128, ge=1)
    audio_hidden: int = Field(32, ge=1)
    vision_hidden: int = Field(32, ge=1)
    post: int = Field(128, ge=1)
    text_dropout: float = Field(0.15, ge=0, lt=1)
    audio_dropout: float = Field(0.15, ge=0, lt=1)
    vision_dropout: float = Field(0.15, ge=0, lt=1)
    post_dropout: float = Field(0.15, ge=0, lt=1)
    lr: float = Field(5e-4, ge=0, allow_inf_nan=False)
    decay: float = Field(0.01, ge=0, allow_inf_nan=False)


class Subnets(Network):
    """A network that reads a vector z_m of each modality that is there, as TFN and LMF do."""

    NEEDS = ()
    FEWEST = 2

    def __init__(self, settings: Any, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        if widths["text"]:
            self.text = TextNet(widths["text"], s.text_hidden, s.text_out, s.text_dropout)
        if widths["audio"]:
            self.audio = SubNet(widths["audio"], s.audio_hidden, s.audio_dropout)
        if widths["vision"]:
            self.vision = SubNet(widths["vision"], s.vision_hidden, s.vision_dropout)
        sizes = {"text": s.text_out, "vision": s.vision_hidden, "audio": s.audio_hidden}
        #: The widths of [z_l; 1], [z_v; 1] and [z_a; 1], as far as they are there.
        self.sizes = {m: w + 1 for m, w in sizes.items() if widths[m]}

    def vectors(self, x: Inputs) -> dict[str, Tensor]:
        """[z_l; 1], [z_v; 1] and [z_a; 1], as far as they are there, each (B, w + 1)."""
        read = self.read_all(x)
        return {m: with_one(self.get_submodule(m)(read[m])) for m in self.sizes}


class TFN(Subnets):
    """Tensor Fusion Network (Zadeh et al., 2017).

    With two modalities, z is the outer product of the two that are there.
    """

    Settings = TFNSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The defaults: sizes, dropout 0.15, L2 0.01 and Adam at 5e-4 are the paper's; it gives no batch
        # size, which is 32 in its public code.
        "mosi": {},
        # The paper has no MOSEI, which has twelve times as many utterances: a larger batch is our choice.
        "mosei": {"batch_size": 64},
    }

    def __init__(self, settings: TFNSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        self.dropout = nn.Dropout(s.post_dropout)
        self.post1 = nn.Linear(math.prod(self.sizes.values()), s.post)
        self.post2 = nn.Linear(s.post, s.post)
        self.out = nn.Linear(s.post, 1)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,) between -3 and 3."""
        z = functools.reduce(outer, self.vectors(x).values())  # (B, (l + 1) (v + 1) (a + 1))
        h = torch.relu(self.post1(self.dropout(z)))  # (B, post)
        h = torch.relu(self.post2(h))
        return {"M": 6 * torch.sigmoid(self.out(h)[:, 0]) - 3}
