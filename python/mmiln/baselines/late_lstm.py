"""A control: late fusion, with one LSTM for each modality.

    h_m = last state of an LSTM over the true frames of modality m
    y   = w . ReLU(W [h_l; h_a; h_v] + b) + c

The "LF-LSTM" of many tables, such as those of Yao-Hung Hubert Tsai, Shaojie Bai, Paul Pu Liang, J. Zico
Kolter, Louis-Philippe Morency, Ruslan Salakhutdinov: Multimodal Transformer for Unaligned Multimodal Language
Sequences, ACL 2019. We know of no publication of its own. Frames need not be aligned. A modality that is
absent from the data is left out.

MMSA's nearest model, LF-DNN, reads audio and vision as their mean over frames and padding; here each is a
sequence that ends at its own true end. With a text encoder, the LSTM of text reads the encoder's last layer.
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


class LateFusionSettings(Settings):
    """Hyper-parameters of the control.

    Attributes:
        text_hidden, audio_hidden, vision_hidden: Widths of the LSTMs.
        post: Width of the layer after the LSTMs.
        dropout: Dropout of the concatenated states and of that layer.
    """

    text_hidden: int = Field(128, ge=1)
    audio_hidden: int = Field(32, ge=1)
    vision_hidden: int = Field(32, ge=1)
    post: int = Field(64, ge=1)
    dropout: float = Field(0.2, ge=0, lt=1)


class LateFusionLSTM(Network):
    """Late fusion: last states of one LSTM a modality, and an MLP. A control."""

    Settings = LateFusionSettings
    NEEDS = ()
    FEWEST = 1
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # No publication gives sizes or rates: all are our choice.
        "mosi": {},
        "mosei": {"batch_size": 64},
    }

    def __init__(self, settings: LateFusionSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        hidden = {m: getattr(s, f"{m}_hidden") for m in self.modalities}
        self.lstms = nn.ModuleDict({m: LSTM(widths[m], h) for m, h in hidden.items()})
        self.dropout = nn.Dropout(s.dropout)
        self.head = MLP(sum(hidden.values()), s.post, 1, dropout=s.dropout)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,)."""
        frames = self.read_all(x)
        states = [lstm(frames[m])[1] for m, lstm in self.lstms.items()]  # (B, hidden) each
        return {"M": self.head(self.dropout(torch.cat(states, 1)))[:, 0]}
