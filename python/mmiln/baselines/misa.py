"""MISA: modality-invariant and -specific representations.

Hazarika, Zimmermann, Poria: MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment
Analysis, ACM Multimedia 2020 (arXiv 2005.03545).

    v_m = mean of a BERT's tokens for text; otherwise the last states of both directions of two stacked
          bidirectional LSTMs, with a layer norm between them
    u_m = LayerNorm(ReLU(W_m v_m + b_m))
    h^c_m = sigmoid(W_c u_m + b_c), shared by all m;  h^p_m = sigmoid(W_p,m u_m + b_p,m), private
    y = MLP of the six vectors, side by side, after a transformer layer over h^p_t, h^p_a, h^p_v, h^c_t, ...
    L = L_task + alpha L_sim + beta L_diff + gamma L_recon
    L_task  = mean (y - label)^2
    L_sim   = mean over the three pairs m, n of CMD_5(h^c_m, h^c_n)
    L_diff  = sum over m of D(h^p_m, h^c_m), and over the pairs of D(h^p_m, h^p_n); D: orthogonality
    L_recon = mean over m of mean (u_m - (W_r,m (h^c_m + h^p_m) + b_r,m))^2

Left open by the paper, and what is done here:

- Lengths. Its code has one frame a word, and so one length. The field's toolkit (MMSA) keeps that for
  unaligned data: it packs audio and vision with the lengths of text, so cuts them off or reads padding. Here
  each modality has its own length.
- The mean over a BERT's tokens is taken over padding too in its code; here over true tokens alone.
- LSTMs read given text features like audio and vision, as in its code without a BERT. There recurrent states
  are as wide as the input; here they are at most `rnn_max` wide, which no width in the paper exceeds.
- Its code has a second discriminator whose loss has no weight, and an adversarial alternative to CMD; both
  are left out. It also returns to the best epoch once and halves the rate, which is not done here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .blocks import LSTM
from .distances import cmd, orthogonality
from .inputs import Inputs, Sequence
from .network import Network, Outputs, Settings, Widths


class MISASettings(Settings):
    """Hyper-parameters of MISA.

    Attributes:
        width: Width of u and of all representations.
        rnn_max: Largest width of a recurrent state; 300 is that of the paper's word vectors.
        dropout, fusion_dropout: Dropout within the head, and within the transformer.
        sim, diff, recon: Weights of the losses, alpha, beta and gamma.
    """

    width: int = 128
    rnn_max: int = 300
    dropout: float = 0.5
    fusion_dropout: float = 0.1
    sim: float = 1.0
    diff: float = 0.3
    recon: float = 1.0
    lr: float = 1e-4
    lr_text: float = 1e-4
    batch_size: int = 64
    clip_value: float = 1.0


class StackedLSTM(nn.Module):
    """Two stacked bidirectional LSTMs; returns both directions' last states of both, (B, 4 hidden)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm1 = LSTM(width, hidden, bidirectional=True)
        self.norm = nn.LayerNorm(2 * hidden)
        self.lstm2 = LSTM(2 * hidden, hidden, bidirectional=True)
        for name, weight in self.named_parameters():
            if "weight_hh" in name:
                nn.init.orthogonal_(weight)  # as its code does

    def forward(self, x: Sequence) -> Tensor:
        out, first = self.lstm1(x)  # (B, T, 2 hidden), (B, 2 hidden)
        _, second = self.lstm2(out.map(self.norm(out.frames)))
        return torch.cat([first, second], 1)


class MISA(Network):
    """MISA (Hazarika et al., 2020).

    With two modalities, sums and means over modalities and pairs are over the two and their one pair.
    """

    Settings = MISASettings
    NEEDS = ()
    FEWEST = 2
    LOSSES = ("task", "diff", "sim", "recon", "total")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Its own code, config.py as its authors keep it in declare-lab/MSA-Robustness: 128 wide, dropout 0.5,
        # Adam at 1e-4 for all, no decay, clip 1.0, weights 1.0, 0.3, 1.0, batch 64. Heads, width and dropout
        # of the transformer are from its models.py. The table in the paper's appendix was not checked. The
        # patience is our choice (its code waits 6 epochs, twice).
        "mosi": {},
        # From the same code: a batch of 16, and nine frozen layers of BERT, here with the embeddings.
        "mosei": {"batch_size": 16, "freeze_text": 9},
    }

    def __init__(self, settings: MISASettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        d, there = settings.width, self.modalities
        hidden = {m: min(widths[m], settings.rnn_max) for m in there if m != "text" or bert is None}
        self.rnn = nn.ModuleDict({m: StackedLSTM(widths[m], h) for m, h in hidden.items()})
        read = {m: 4 * hidden[m] if m in hidden else widths[m] for m in there}
        self.project = nn.ModuleDict(
            {m: nn.Sequential(nn.Linear(w, d), nn.ReLU(), nn.LayerNorm(d)) for m, w in read.items()}
        )
        self.private = nn.ModuleDict({m: nn.Sequential(nn.Linear(d, d), nn.Sigmoid()) for m in there})
        self.shared = nn.Sequential(nn.Linear(d, d), nn.Sigmoid())
        self.decode = nn.ModuleDict({m: nn.Linear(d, d) for m in there})
        self.fusion = nn.TransformerEncoderLayer(d, 2, 2048, settings.fusion_dropout, batch_first=True)
        wide = len(there) * d
        self.out = nn.Sequential(
            nn.Linear(2 * wide, wide), nn.Dropout(settings.dropout), nn.ReLU(), nn.Linear(wide, 1)
        )

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,), and ``u``, ``private``, ``shared``, ``decoded`` of each modality (B, d)."""
        outputs = {}
        for m, sequence in self.read_all(x).items():
            vector = self.rnn[m](sequence) if m in self.rnn else sequence.mean  # (B, 4 hidden) or (B, w)
            outputs[f"u_{m}"] = u = self.project[m](vector)  # (B, d)
            outputs[f"private_{m}"], outputs[f"shared_{m}"] = self.private[m](u), self.shared(u)
            outputs[f"decoded_{m}"] = self.decode[m](outputs[f"private_{m}"] + outputs[f"shared_{m}"])
        six = [outputs[f"{kind}_{m}"] for kind in ("private", "shared") for m in self.modalities]
        fused = self.fusion(torch.stack(six, 1))  # (B, 6, d), or (B, 4, d) with two modalities
        return outputs | {"M": self.out(fused.flatten(1))[:, 0]}

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """The four losses, and their weighted sum."""
        assert x.labels is not None
        s = self.settings
        u, private, shared, decoded = (
            [outputs[f"{kind}_{m}"] for m in self.modalities]
            for kind in ("u", "private", "shared", "decoded")
        )
        alike = [cmd(a, b) for a, b in itertools.combinations(shared, 2)]
        apart = [*zip(private, shared, strict=True), *itertools.combinations(private, 2)]
        errors = [((a - b) ** 2).mean() for a, b in zip(decoded, u, strict=True)]
        sim = torch.stack(alike).mean()
        diff = torch.stack([orthogonality(a, b) for a, b in apart]).sum()
        recon = torch.stack(errors).mean()
        task = x.mean((outputs["M"] - x.labels) ** 2)
        total = task + s.sim * sim + s.diff * diff + s.recon * recon
        return {"task": task, "diff": diff, "sim": sim, "recon": recon, "total": total}
