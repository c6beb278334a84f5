"""A control: a model of text alone.

    y = w . s + b,  s the sentence vector

With a text encoder, s is the last layer's state of [CLS], and all is fine-tuned (Jacob Devlin, Ming-Wei
Chang, Kenton Lee, Kristina Toutanova: BERT, NAACL 2019, with one number in place of classes and without its
pooling layer). Over given features, of which the first need not be [CLS], s is the last state of an LSTM.

Nobody published this as a model, and MMSA has none such; a multimodal model that is not better than this has
learnt nothing from audio and vision, so the tables should have the row. Audio and vision are never read:
they may be absent or hold anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn

from .blocks import LSTM
from .inputs import Inputs
from .network import Network, Outputs, Settings, Widths


class TextOnlySettings(Settings):
    """Hyper-parameters of the control.

    Attributes:
        hidden: Width of the LSTM over given features; unused with a text encoder.
        dropout: Dropout of the sentence vector.
        optimizer, decay_text: AdamW, and its weight decay for the text encoder.
    """

    hidden: int = Field(128, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    optimizer: Literal["adam", "adamw"] = "adamw"
    decay_text: float = Field(0.01, ge=0, allow_inf_nan=False)


class TextOnly(Network):
    """Text alone: a sentence vector and a linear head. A control."""

    Settings = TextOnlySettings
    NEEDS = ("text",)
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The defaults: dropout 0.1, decay 0.01, a batch of 32 and 5e-5 are among those that Devlin et al.
        # recommend for fine-tuning (appendix A.3); the head's rate and the LSTM's width are our choice.
        "mosi": {},
        # 2e-5 is among them too; we choose it for the larger data set.
        "mosei": {"lr_text": 2e-5},
    }

    def __init__(self, settings: TextOnlySettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        self.lstm = LSTM(widths["text"], settings.hidden) if bert is None else None
        self.dropout = nn.Dropout(settings.dropout)
        self.head = nn.Linear(settings.hidden if bert is None else widths["text"], 1)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,)."""
        text = self.read_text(x)
        s = text.first if self.lstm is None else self.lstm(text)[1]  # (B, width) or (B, hidden)
        return {"M": self.head(self.dropout(s))[:, 0]}
