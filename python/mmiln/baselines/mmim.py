"""MMIM: MultiModal InfoMax.

Han, Chen, Poria: Improving Multimodal Fusion with Hierarchical Mutual Information Maximization for Multimodal
Sentiment Analysis, EMNLP 2021.

    h_t = sentence vector; h_a, h_v = last states of LSTMs                 (encoders)
    q(h_m | h_t) = N(mu(h_t), sigma^2(h_t)),  m in {a, v}                  (estimators)
    L_lld = - sum_m mean log q(h_m | h_t)                                  (stage 1, trains q alone)
    H(h_m) = 1/4 (log det Sigma+ + log det Sigma-)                         (entropy, of two Gaussians)
    L_BA  = - sum_m (mean log q(h_m | h_t) + H(h_m))                       (Barber-Agakov bound of MI)
    Z = tanh W2 tanh W1 [h_t; h_a; h_v],  y = w Z                          (fusion)
    L_CPC = - sum_m mean_i log softmax_j (cos(h_m^j, G_m Z^i)) at j = i    (three modalities)
    L = mean |yhat - y| + alpha L_CPC + beta L_BA                          (stage 2, trains all else)

Sigma+ and Sigma- are the covariances of h_m over the utterances with labels above and below zero, of this
batch and of the remembered last ones.

Differences from the public code, which MMSA has taken over:
- Its log q lacks log sigma^2, and its log det is of the plain covariance: see `mutual_information.py`.
- Its entropy is of a projection that no loss trains; here, as in the paper, it is of h_m.
- Its softmax runs over the batch's Z for a fixed h_m; in the paper, and here, over the h_m^j for a fixed Z.
- It has another linear layer after the last states, and MMSA's LSTMs have two directions.
- It runs the two stages over the data one after the other (the first over half of MOSEI); here each step has
  both, on one forward pass.
Left open: the sentence vector is a BERT's [CLS]; over given text features it is the last state of an LSTM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .blocks import LSTM
from .inputs import Inputs
from .mutual_information import Gaussian, entropy, info_nce
from .network import Network, Outputs, Settings, Widths


class MMIMSettings(Settings):
    """Hyper-parameters of MMIM.

    Attributes:
        lr_estimators: Learning rate of q.
        text_hidden: Width of the LSTM over given text features.
        audio_hidden, vision_hidden: Widths of the LSTMs.
        fusion: Width of Z.
        dropout: Dropout before the fusion.
        alpha, beta: Weights of L_CPC and of L_BA.
        memory: Number of utterances that are remembered for the entropy.
        eps: Constant added to variances.
    """

    lr_estimators: float = 1e-3
    text_hidden: int = 64
    audio_hidden: int = 16
    vision_hidden: int = 16
    fusion: int = 128
    dropout: float = 0.1
    alpha: float = 0.1
    beta: float = 0.1
    memory: int = 32
    eps: float = 1e-3
    decay: float = 1e-4
    decay_text: float = 1e-4
    clip: float = 1.0
    patience: int = 10


class MMIM(Network):
    """MMIM (Han et al., 2021).

    With text and one other modality, all sums over m are over those that are there.
    """

    Settings = MMIMSettings
    NEEDS = ("text",)
    FEWEST = 2
    LOSSES = ("task", "cpc", "ba", "estimators", "total")
    STAGES: ClassVar[tuple[str, ...]] = ("estimators", "total")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # The defaults of its public code, for both data sets; the width of the LSTM over text is our choice.
        "mosi": {},
        "mosei": {},
    }
    memory_labels: Tensor

    def __init__(self, settings: MMIMSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        self.text = LSTM(widths["text"], s.text_hidden) if bert is None else None
        if widths["audio"]:
            self.audio = LSTM(widths["audio"], s.audio_hidden)
        if widths["vision"]:
            self.vision = LSTM(widths["vision"], s.vision_hidden)
        wide = {"text": widths["text"] if bert is not None else s.text_hidden,
                "audio": s.audio_hidden, "vision": s.vision_hidden}  # fmt: skip
        wide = {m: wide[m] for m in self.modalities}
        self.q = nn.ModuleDict({m: Gaussian(wide["text"], wide[m], s.eps) for m in self.modalities[1:]})
        self.cpc = nn.ModuleDict({m: nn.Linear(s.fusion, w) for m, w in wide.items()})
        self.dropout = nn.Dropout(s.dropout)
        self.fuse1 = nn.Linear(sum(wide.values()), s.fusion)
        self.fuse2 = nn.Linear(s.fusion, s.fusion)
        self.score = nn.Linear(s.fusion, 1)
        for m in self.q:
            self.register_buffer(f"memory_{m}", torch.zeros(s.memory, wide[m]), persistent=False)
        self.register_buffer("memory_labels", torch.zeros(s.memory), persistent=False)

    def learning_rates(self) -> dict[str, tuple[float, float]]:
        """The rates and decays of the text encoder, of the estimators, and of all others."""
        s = self.settings
        return super().learning_rates() | {"q": (s.lr_estimators, s.decay)}

    def stage_of(self, parameter: str) -> str:
        """The likelihood trains q, the total loss trains all else."""
        return "estimators" if parameter.startswith("q.") else "total"

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,), ``Z`` (B, fusion), and ``h_text`` and so on of each modality that is there."""
        h = {
            f"h_{m}": frames.first if (lstm := getattr(self, m)) is None else lstm(frames)[1]
            for m, frames in self.read_all(x).items()
        }
        z = torch.tanh(self.fuse2(torch.tanh(self.fuse1(self.dropout(torch.cat(list(h.values()), 1))))))
        return {"M": self.score(z)[:, 0], "Z": z} | h

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """``task``: L1; ``cpc``; ``ba``; ``estimators``: L_lld; ``total``: L."""
        assert x.labels is not None
        s, zero = self.settings, outputs["M"].new_zeros(())
        task = x.mean((outputs["M"] - x.labels).abs())
        contrast = sum((info_nce(outputs[f"h_{m}"], g(outputs["Z"])) for m, g in self.cpc.items()), zero)
        likely = sum((q(outputs["h_text"], outputs[f"h_{m}"]) for m, q in self.q.items()), zero)
        labels = torch.cat([self.memory_labels, x.labels])  # zeros, of no class, where nothing is remembered
        spread = zero
        for m in self.q:
            seen = torch.cat([getattr(self, f"memory_{m}"), outputs[f"h_{m}"]])
            spread = spread + entropy(seen, labels, s.eps)
        ba = -(likely + spread)
        total = task + s.alpha * contrast + s.beta * ba
        return {"task": task, "cpc": contrast, "ba": ba, "estimators": -likely, "total": total}

    def begin_training(self, samples: int | None) -> None:
        """Empties the memory."""
        for memory in self.buffers(recurse=False):
            memory.zero_()

    @torch.no_grad()
    def after_step(self, outputs: Outputs, x: Inputs) -> None:
        """Remembers this batch, and as many of the earlier utterances as there is room for."""
        assert x.labels is not None
        for name, new in {"labels": x.labels, **{m: outputs[f"h_{m}"] for m in self.q}}.items():
            memory = getattr(self, f"memory_{name}")
            memory.copy_(torch.cat([memory, new])[-len(memory) :])
