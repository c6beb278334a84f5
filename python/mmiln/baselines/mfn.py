"""Memory Fusion Network.

Zadeh, Liang, Mazumder, Poria, Cambria, Morency: Memory Fusion Network for Multi-view Sequential Learning,
AAAI 2018. At each step t, for views n = text, audio, vision:

    h_n, c_n = LSTM_n(x_n^t; h_n, c_n)                        the system of LSTMs: each view alone
    c*       = [c^(t-1) of all views; c^t of all views]       delta-memory attention: what just changed
    chat     = c* * softmax(D_a(c*))
    uhat     = tanh(D_u(chat))                                multi-view gated memory: a proposal,
    g1, g2   = sigmoid(D_g1([chat; u])), sigmoid(D_g2([chat; u]))     what to retain and what to take
    u        = g1 * u + g2 * uhat

and at the end y = D_y([h of all views; u]). Every D is two linear maps with ReLU between.

Left open, and what was chosen here:

- Sizes are those with the best MAE on MOSI in a comment of the authors' test_mosi.py (widths: text 300, audio
  5, vision 20), where a random search found them.
- Words are aligned: each view has one frame a word, and other data are refused. MMSA averages audio and
  vision over time, padding included, and repeats the mean for every word.
- The authors' code and MMSA continue through padding. Here LSTMs and memory stop at an utterance's true end.
- The code halves the rate after 100 epochs without progress, but trains for only 100. Our rate is constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pydantic
import torch
from torch import Tensor, nn

from .blocks import MLP
from .inputs import Inputs, Sequence
from .network import Network, Outputs, Rate, Settings, Width, Widths


class MemorySettings(Settings):
    """Hyper-parameters of the memory fusion, which MFM shares.

    Attributes:
        text_hidden, audio_hidden, vision_hidden: Widths of the LSTMs.
        memory: Width of u.
        attention_hidden, update_hidden, retain_hidden, take_hidden: Hidden widths of D_a, D_u, D_g1 and D_g2.
        attention_dropout, update_dropout, retain_dropout, take_dropout: Dropout of those hidden layers.
    """

    text_hidden: Width = 88
    audio_hidden: Width = 48
    vision_hidden: Width = 16
    memory: Width = 128
    attention_hidden: Width = 128
    update_hidden: Width = 64
    retain_hidden: Width = 256
    take_hidden: Width = 64
    attention_dropout: Rate = 0.0
    update_dropout: Rate = 0.2
    retain_dropout: Rate = 0.0
    take_dropout: Rate = 0.2


class MFNSettings(MemorySettings):
    """Hyper-parameters of MFN: those of the memory fusion and those of the head.

    Attributes:
        out_hidden, out_dropout: Width and dropout of D_y's hidden layer.
    """

    batch_size: int = pydantic.Field(128, ge=1)
    lr: float = pydantic.Field(0.01, ge=0, allow_inf_nan=False)
    out_hidden: Width = 64
    out_dropout: Rate = 0.5


class MemoryFusion(nn.Module):
    """The system of LSTMs, the attention and the memory: views to (B, sum of hidden + memory)."""

    def __init__(self, settings: Any, widths: Mapping[str, int]) -> None:
        super().__init__()
        s = settings
        self.hidden = {m: getattr(s, f"{m}_hidden") for m in widths}
        self.memory = s.memory
        self.width = sum(self.hidden.values()) + s.memory
        seen = 2 * sum(self.hidden.values())  # c* holds two steps
        self.cells = nn.ModuleDict({m: nn.LSTMCell(widths[m], h) for m, h in self.hidden.items()})
        self.attention = MLP(seen, s.attention_hidden, seen, dropout=s.attention_dropout)
        self.update = MLP(seen, s.update_hidden, s.memory, dropout=s.update_dropout)
        self.retain = MLP(seen + s.memory, s.retain_hidden, s.memory, dropout=s.retain_dropout)
        self.take = MLP(seen + s.memory, s.take_hidden, s.memory, dropout=s.take_dropout)

    def forward(self, views: Mapping[str, Sequence]) -> Tensor:
        mask = views["text"].mask  # (B, T), the same for every view, as they are aligned
        zeros = views["text"].frames.new_zeros
        h = {m: zeros(len(mask), width) for m, width in self.hidden.items()}
        c = dict(h)
        u = zeros(len(mask), self.memory)
        for t in range(mask.shape[1]):
            going = mask[:, t, None]  # (B, 1): after its end an utterance's state no longer changes
            step = {m: cell(views[m].frames[:, t], (h[m], c[m])) for m, cell in self.cells.items()}
            h = {m: torch.where(going, new, h[m]) for m, (new, _) in step.items()}  # (B, hidden) each
            before, c = c, {m: torch.where(going, new, c[m]) for m, (_, new) in step.items()}
            star = torch.cat([*before.values(), *c.values()], 1)  # (B, 2 * sum of hidden)
            hat = star * torch.softmax(self.attention(star), 1)
            proposal = torch.tanh(self.update(hat))  # (B, memory)
            both = torch.cat([hat, u], 1)
            mixed = torch.sigmoid(self.retain(both)) * u + torch.sigmoid(self.take(both)) * proposal
            u = torch.where(going, mixed, u)
        return torch.cat([*h.values(), u], 1)


class MFN(Network):
    """Memory Fusion Network (Zadeh et al., 2018)."""

    Settings = MFNSettings
    ALIGNED = True
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "mosi": {},
        # The publication has no MOSEI: these are MMSA's settings (config_regression.json).
        "mosei": {
            "text_hidden": 128, "audio_hidden": 32, "vision_hidden": 128, "memory": 128,
            "attention_hidden": 128, "update_hidden": 128, "retain_hidden": 256, "take_hidden": 256,
            "attention_dropout": 0.2, "update_dropout": 0.5, "retain_dropout": 0.7, "take_dropout": 0.0,
            "out_hidden": 128, "out_dropout": 0.5, "batch_size": 64, "lr": 5e-4, "decay": 1e-4,
        },
    }  # fmt: skip

    def __init__(self, settings: MFNSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        self.fusion = MemoryFusion(settings, {m: widths[m] for m in self.NEEDS})
        self.out = MLP(self.fusion.width, settings.out_hidden, 1, dropout=settings.out_dropout)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,), and the head's input ``fused`` (B, sum of hidden + memory)."""
        fused = self.fusion(self.read_all(x))
        return {"M": self.out(fused)[:, 0], "fused": fused}
