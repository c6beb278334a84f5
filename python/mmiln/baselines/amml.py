"""AMML: Adaptive Multimodal Meta-Learning.

Sun, Mai, Hu: Learning to Learn Better Unimodal Representations via Adaptive Multimodal Meta-Learning, IEEE
Transactions on Affective Computing, 2023 (early access 2022).

WRITTEN FROM THE PAPER'S ABSTRACT ALONE: no code of its authors was at hand, nor the text with its equations.
The abstract says: unimodal networks are meta-trained on unimodal tasks with a learning rate that adapts to
each modality, and adapted to fusion by meta-testing on the multimodal task; a distribution transformation
layer regularises unimodal representations. All further detail is our choice:

    z_m = D(W_m h_m + b_m),  y_m = c_m z_m           (network theta_m, its task; D: mean 0 and variance 1)
    theta'_m = theta_m - a_m grad L1(y_m; support),  a_m = exp(r_m) learned   (meta-training, `steps` times)
    L_meta = mean |F(z_t, z_a, z_v) - y|  of the query by theta'              (meta-testing)
    L = L_meta + w sum_m L1(y_m; support) by theta                            (as in MLDG, Li et al., 2018)

Support and query are the halves of a batch; a batch of one utterance is both. The second term trains the
heads c_m, which L_meta reaches by second order alone; first order (the default) takes the inner gradient as a
constant. Scores use theta without adaptation, as utterances to be scored have no labels. h_m is the last
state of an LSTM, part of theta_m; or a BERT's [CLS], and L trains the BERT but no inner step does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from .blocks import LSTM, MLP
from .inputs import Inputs, Sequence
from .network import Network, Outputs, Settings, Widths

UNIMODAL = {"T": "text", "A": "audio", "V": "vision"}


class AMMLSettings(Settings):
    """Hyper-parameters of AMML.

    Attributes:
        text_hidden, audio_hidden, vision_hidden: Widths of the LSTMs.
        width: Width of unimodal representations.
        post: Width of the fusion network.
        dropout: Dropout within the fusion network.
        inner_lr: Initial value of each a_m.
        steps: Number of inner steps.
        second_order: Whether the inner gradient is differentiated.
        unimodal: Weight of the unimodal losses.
    """

    text_hidden: int = 64
    audio_hidden: int = 32
    vision_hidden: int = 32
    width: int = 64
    post: int = 128
    dropout: float = 0.1
    inner_lr: float = Field(0.01, gt=0, allow_inf_nan=False)
    steps: int = Field(1, ge=1)
    second_order: bool = False
    unimodal: float = 0.3


class Unimodal(nn.Module):
    """The representation (B, width) and score (B,) of frames, or without an LSTM of a vector (B, w)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.lstm = LSTM(width, hidden) if hidden else None
        self.map = nn.Linear(hidden or width, out)
        self.distribution = nn.LayerNorm(out, elementwise_affine=False)
        self.head = nn.Linear(out, 1)

    def forward(self, x: Sequence | Tensor) -> tuple[Tensor, Tensor]:
        vector = x if self.lstm is None else self.lstm(x)[1]
        z = self.distribution(self.map(vector))
        return z, self.head(z)[:, 0]


class AMML(Network):
    """AMML (Sun et al., 2023), from its abstract."""

    Settings = AMMLSettings
    LOSSES = ("task", "unimodal", "total")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # No published number was at hand: all are our choice, for both data sets.
        "mosi": {},
        "mosei": {},
    }

    def __init__(self, settings: AMMLSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        hidden = {"T": s.text_hidden if bert is None else 0, "A": s.audio_hidden, "V": s.vision_hidden}
        self.unimodal = nn.ModuleDict(
            {n: Unimodal(widths[m], hidden[n], s.width) for n, m in UNIMODAL.items()}
        )
        self.fusion = MLP(3 * s.width, s.post, s.post, 1, dropout=s.dropout)
        self.rates = nn.Parameter(torch.full((3,), math.log(s.inner_lr)))

    def forward(self, x: Inputs) -> Outputs:
        """``M``, ``T``, ``A``, ``V`` (B,), without adaptation; with a BERT its ``cls`` (B, w)."""
        outputs = {} if self.bert is None else {"cls": self.read_text(x).first}
        z = []
        for name, read in self._read(x, outputs.get("cls")).items():
            vector, outputs[name] = self.unimodal[name](read)
            z.append(vector)
        return outputs | {"M": self.fusion(torch.cat(z, 1))[:, 0]}

    def _read(self, x: Inputs, cls: Tensor | None) -> dict[str, Any]:
        """The input of each unimodal network."""
        return {"T": x.text if cls is None else cls, "A": x.audio, "V": x.vision}

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """``task``: L_meta; ``unimodal``: the sum over modalities of L1 on the support; ``total``."""
        assert x.labels is not None
        half, rows = max(1, len(x) // 2), torch.arange(len(x), device=x.labels.device)
        support, query = rows[:half], rows[half:] if len(x) > 1 else rows
        cls = outputs.get("cls")
        near, far = x.select(support), x.select(query)
        given, asked = (
            self._read(part, None if cls is None else cls[at]) for part, at in ((near, support), (far, query))
        )
        z, unimodal = [], outputs["M"].new_zeros(())
        for name, rate in zip(UNIMODAL, self.rates.exp(), strict=True):
            adapted, loss = self._adapt(self.unimodal[name], rate, given[name], near)
            z.append(functional_call(self.unimodal[name], adapted, (asked[name],))[0])
            unimodal = unimodal + loss
        task = far.mean((self.fusion(torch.cat(z, 1))[:, 0] - x.labels[query]).abs())
        return {"task": task, "unimodal": unimodal, "total": task + self.settings.unimodal * unimodal}

    def _adapt(
        self, network: nn.Module, rate: Tensor, given: Any, support: Inputs
    ) -> tuple[dict[str, Tensor], Tensor]:
        """The weights theta' after the inner steps, and the unimodal loss before them."""
        assert support.labels is not None
        second = self.settings.second_order
        weights: dict[str, Tensor] = dict(network.named_parameters())
        losses = []
        # cuDNN's LSTM has no second derivative.
        without = torch.backends.cudnn.flags(enabled=False) if second else nullcontext()
        with torch.enable_grad(), without:
            for _ in range(self.settings.steps):
                score = functional_call(network, weights, (given,))[1]
                losses.append(support.mean((score - support.labels).abs()))
                gradients = torch.autograd.grad(
                    losses[-1], list(weights.values()), create_graph=second, retain_graph=True
                )
                weights = {n: w - rate * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
        return weights, losses[0]
