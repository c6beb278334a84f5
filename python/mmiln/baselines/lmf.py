"""Low-rank Multimodal Fusion.

Zhun Liu, Ying Shen, Varun Bharadhwaj Lakshminarasimhan, Paul Pu Liang, Amir Zadeh, Louis-Philippe Morency:
Efficient Low-rank Multimodal Fusion with Modality-Specific Factors. ACL 2018, pages 2247-2256.

TFN's outer product times a weight tensor W, where W is a sum of r rank-1 tensors, is

    y = sum_i c_i (w_l^i . [z_l; 1]) (w_v^i . [z_v; 1]) (w_a^i . [z_a; 1]) + b

with z_l, z_v and z_a as in TFN; the outer product is never computed. The fused vector is the score itself
(width 1), and is not bounded. The paper's c_i are 1; its code learns them, as we do.

Errors in the paper's code and in MMSA, which took it over: the optimiser gets the parameters by position,
``[:3]`` and ``[5:]``, so that c and b, the fourth and fifth, keep their initial values; and Xavier's standard
deviation of the factors is that of one map from a modality to r numbers, smaller the higher the rank, though
each factor is a map of its own. Here each parameter is in a group of the optimiser, and each factor is drawn
as a map to one number. The code's dropout after the fusion is never used, and left out here. Padding,
dropout of text and batches of one have the same errors as in TFN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from .inputs import Inputs
from .network import Outputs, Settings, Widths
from .tfn import Subnets


class LMFSettings(Settings):
    """Hyper-parameters of LMF.

    Attributes:
        rank: Number r of rank-1 tensors that the weight is the sum of.
        text_hidden: Width of the LSTM.
        text_out, audio_hidden, vision_hidden: Widths of z_l, z_a and z_v.
        text_dropout, audio_dropout, vision_dropout: Dropout of the LSTM's last state and of the mean frames.
        lr_factors: Learning rate of the factors w.
        batch_size, decay: Utterances a step; L2 penalty of all parameters.
    """

    rank: int = Field(3, ge=1)
    text_hidden: int = Field(128, ge=1)
    text_out: int = Field(64, ge=1)
    audio_hidden: int = Field(16, ge=1)
    vision_hidden: int = Field(128, ge=1)
    text_dropout: float = Field(0.3, ge=0, lt=1)
    audio_dropout: float = Field(0.3, ge=0, lt=1)
    vision_dropout: float = Field(0.3, ge=0, lt=1)
    lr_factors: float = Field(1e-3, ge=0, allow_inf_nan=False)
    batch_size: int = Field(64, ge=1)
    decay: float = Field(0.005, ge=0, allow_inf_nan=False)


class LMF(Subnets):
    """Low-rank Multimodal Fusion (Liu et al., 2018).

    With two modalities, y is the sum over i of c_i times the two factors that are there.
    """

    Settings = LMFSettings
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The defaults are MMSA's for MOSI: the paper's code searches over sizes and rates, and the file with
        # its result was not at hand.
        "mosi": {},
        # MMSA's for MOSEI.
        "mosei": {
            "rank": 4,
            "text_dropout": 0.2,
            "audio_dropout": 0.2,
            "vision_dropout": 0.2,
            "batch_size": 32,
            "decay": 0.001,
        },
    }

    def __init__(self, settings: LMFSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        self.factors = nn.ParameterDict(
            # Xavier's initialisation of a map from w features to one.
            {m: nn.Parameter(torch.randn(s.rank, w) * (2 / (w + 1)) ** 0.5) for m, w in self.sizes.items()}
        )
        self.weights = nn.Parameter(nn.init.xavier_normal_(torch.empty(1, s.rank))[0])
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,)."""
        z = self.vectors(x)
        maps = [z[m] @ factor.T for m, factor in self.factors.items()]  # (B, rank) each
        return {"M": torch.stack(maps).prod(0) @ self.weights + self.bias}

    def learning_rates(self) -> dict[str, tuple[float, float]]:
        """The rates and decays of the text encoder, of the factors, and of all others (c and b included)."""
        s = self.settings
        return super().learning_rates() | {"factors": (s.lr_factors, s.decay)}
