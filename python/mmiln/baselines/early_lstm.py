"""A control: early fusion, one LSTM over words.

    x_t = [l_t; a_t; v_t]
    y   = w . ReLU(W h_T + b) + c,  h_T the last state of an LSTM over x_1 ... x_T

The "EF-LSTM" of many tables; Jennifer Williams, Ramona Comanescu, Oana Radu, Leimin Tian: DNN Multimodal
Fusion Techniques for Predicting Video Sentiment (ACL 2018 workshop Challenge-HML) is the nearest to a source.

Data without one frame of each modality a word are refused. MMSA normalises each of 50 positions over the
batch and over features, so that a score changes with padding and, in training, with the other utterances;
and it reads the state after the padding. Here there is no normalisation, and the state is that of the true
end. With a text encoder, word pieces take the place of words, and audio and vision need a frame for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from .blocks import LSTM, MLP
from .inputs import Inputs
from .network import Network, Outputs, Settings, Widths


class EarlyFusionSettings(Settings):
    """Hyper-parameters of the control.

    Attributes:
        hidden: Width of the LSTM and of the layer after it.
        dropout: Dropout of the last state and of that layer.
    """

    hidden: int = Field(128, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)


class EarlyFusionLSTM(Network):
    """Early fusion: one LSTM over word-aligned frames, and an MLP. A control."""

    Settings = EarlyFusionSettings
    NEEDS = ("text",)
    ALIGNED = True
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Width 128, a batch of 32 and 1e-3 are MMSA's for MOSI. One layer (not four), dropout and no decay
        # are our choice.
        "mosi": {},
        # Width 256, dropout 0.4, a batch of 128 and the decay are MMSA's for MOSEI. One layer (not two)
        # and 1e-3 (not 5e-3) are our choice.
        "mosei": {"hidden": 256, "dropout": 0.4, "batch_size": 128, "decay": 1e-4},
    }

    def __init__(self, settings: EarlyFusionSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        self.lstm = LSTM(sum(widths.values()), s.hidden)
        self.dropout = nn.Dropout(s.dropout)
        self.head = MLP(s.hidden, s.hidden, 1, dropout=s.dropout)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,)."""
        text = self.read_text(x)
        others = [m.frames for m in (x.audio, x.vision) if m is not None]
        words = text.map(torch.cat([text.frames, *others], 2))  # (B, T, sum of widths)
        return {"M": self.head(self.dropout(self.lstm(words)[1]))[:, 0]}
