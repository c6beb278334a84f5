"""Dual-level feature restoration (DLFR), which trains EMT to tolerate missing frames.

Sun, Lian, Liu, Tao: Efficient Multimodal Transformer with Dual-Level Feature Restoration for Robust
Multimodal Sentiment Analysis, IEEE Transactions on Affective Computing, 2023.

Each training utterance has a copy with frames removed at random. Quantities of the copy are marked by ', such
as its local features X'_m:

    L_recon   = sum_m smooth L1 of the removed frames, predicted from X'_m           (low level)
    L_attract = - sum over h_t, h_a, h_v, G of (cos(p', z) + cos(p, z')) / 2         (high level, SimSiam)

where z is a projection without gradient and p a prediction of the other version's z. Zeros replace a removed
frame, [UNK] a removed word piece; [CLS] and [SEP] stay. The code's batch norm raises with a
batch of one; here it then uses its running statistics.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..data.names import MODALITIES
from .blocks import BatchNorm
from .inputs import Inputs, Sequence


def lose(x: Inputs, share: float, unknown: int) -> tuple[Inputs, dict[str, Tensor]]:
    """A copy with a share of its frames removed, and a mask (B, T) of the removed ones by modality."""
    parts: dict[str, Any] = {}
    lost: dict[str, Tensor] = {}
    for m in MODALITIES:
        name = "tokens" if m == "text" and x.tokens is not None else m
        sequence: Sequence = getattr(x, name)
        frames = sequence.frames
        gone = (torch.rand(frames.shape[:2], device=frames.device) < share) & sequence.mask
        if name == "tokens":
            steps = torch.arange(frames.shape[1], device=frames.device)
            gone = gone & (steps > 0) & (steps < sequence.lengths[:, None] - 1)
            frames = torch.where(gone[:, :, None], frames.new_tensor([unknown, 0]), frames)
            lost[m] = F.pad(gone, (-1, 1))  # local features begin after [CLS]
        else:
            frames, lost[m] = frames * ~gone[:, :, None], gone
        parts[name] = Sequence(frames, sequence.lengths)
    return replace(x, **parts), lost


class Reconstruction(nn.ModuleDict):
    """The low level: for each modality, a linear map from local features (B, T, d) to frames."""

    def __init__(self, d: int, widths: Mapping[str, int]) -> None:
        super().__init__({m: nn.Linear(d, widths[m]) for m in MODALITIES})

    def forward(self, outputs: Mapping[str, Tensor]) -> Tensor:
        """L_recon, from ``local_<m>'``, ``frames_<m>`` and ``lost_<m>`` of each modality."""
        total = outputs["M"].new_zeros(())
        for m, layer in self.items():
            lost, target = outputs[f"lost_{m}"][:, :, None], outputs[f"frames_{m}"]
            error = F.smooth_l1_loss(layer(outputs[f"local_{m}'"]), target, reduction="none")
            total = total + (error * lost).sum() / (lost.sum() * target.shape[2]).clamp(min=1)
        return total


def projectors(widths: Mapping[str, int]) -> nn.ModuleDict:
    """For each vector (B, w), the network of its projection z (B, w)."""
    return nn.ModuleDict(
        {name: nn.Sequential(nn.Linear(w, w), BatchNorm(w, affine=False)) for name, w in widths.items()}
    )


def predictors(widths: Mapping[str, int]) -> nn.ModuleDict:
    """For each projection (B, w), the network that predicts the other one, with a bottleneck."""

    def predictor(w: int, hidden: int) -> nn.Module:
        first = nn.Linear(w, hidden, bias=False)
        return nn.Sequential(first, BatchNorm(hidden), nn.ReLU(), nn.Linear(hidden, w))

    narrow = {name: max(1, w // (2 if name in ("audio", "vision") else 3)) for name, w in widths.items()}
    return nn.ModuleDict({name: predictor(w, narrow[name]) for name, w in widths.items()})


def attraction(outputs: Mapping[str, Tensor], projector: nn.ModuleDict, predictor: nn.ModuleDict) -> Tensor:
    """L_attract, the high level, over the vectors that have a projector, and the copy's."""
    total = outputs["M"].new_zeros(())
    for name, project in projector.items():
        z, z_ = project(outputs[name]), project(outputs[f"{name}'"])
        p, p_ = predictor[name](z), predictor[name](z_)
        alike = F.cosine_similarity(p_, z.detach()) + F.cosine_similarity(p, z_.detach())
        total = total - alike.mean() / 2
    return total
