"""EMT: Efficient Multimodal Transformer, with dual-level feature restoration (EMT-DLFR).

Sun, Lian, Liu, Tao: Efficient Multimodal Transformer with Dual-Level Feature Restoration for Robust
Multimodal Sentiment Analysis, IEEE Transactions on Affective Computing, 2023.

    h_m, X_m = utterance vector and local features: BERT's [CLS] and tokens, LSTMs' last and all states
    G   = [P_t h_t; P_a h_a; P_v h_v] (3, d): global context, X_m <- P_m X_m + positions
    MPU: F(X, Y) = FFN(SA(CA(X, Y))), each a residual after layer norm     (mutual promotion unit)
    each layer, for each m:  G_m = F(G, X_m),  X_m <- F(X_m, G)
    G  <- sum_m a_m G_m,  a = softmax_m(w tanh W G_m)                      (attention over modalities)
    yhat = MLP [h_t; h_a; h_v; G]
    L = mean |yhat - y|                                                    (complete modalities)

and with `missing` > 0, of a copy of each training utterance that lacks frames at random:

    L_recon   = sum_m smooth L1 of the frames that it lacks, from its X_m            (low level)
    L_attract = - sum over h_t, h_a, h_v, G of (cos(p', z) + cos(p, z')) / 2         (high level, SimSiam)
    L = mean |yhat' - y| + w_a (L_attract + mean |yhat - y|) + w_r L_recon

where ' is the copy, z a projection without gradient and p its prediction. Utterances are scored as they are:
whoever wants frames missing there takes them out of the data.

One unit and one attention over modalities serve both directions, all modalities and all layers, as in the
published setting. As in the public code FFN is gated (GEGLU), and an LSTM's states are mapped to what is
fused; its Q, K and V have no bias, here they have. There, audio and vision lose a dimension with a batch of
one, for which its batch norm raises; here batch norm then takes running statistics. A text without a word
has no local features there; here [SEP] takes their place. A frame is missing as zeros, a word piece as
[UNK]. Left open: given text features are read by an LSTM as audio and vision are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import LSTM, MLP, Attention, positions
from .inputs import Inputs, Sequence
from .network import Network, Outputs, Settings

MODALITIES = ("text", "audio", "vision")
VECTORS = (*MODALITIES, "context")


class EMTSettings(Settings):
    """Hyper-parameters of EMT.

    Attributes:
        lr_audio, lr_vision, decay_audio, decay_vision: Of the audio and vision LSTMs.
        text_hidden: Width of the LSTM over given text features, and of what it gives.
        audio_hidden, vision_hidden, audio_out, vision_out: Widths of the LSTMs, and of what they give.
        width, heads, layers, expansion: Of the transformer; the last of its FFN.
        post: Width of the head.
        attention_dropout, ff_dropout, post_dropout: Within attention, after an FFN, before the head.
        missing: Share of frames that a second copy lacks in training; 0 has none.
        attract, recon: Weights of the losses.
        unknown: Word piece that stands for one that is missing: [UNK] of BERT's own vocabulary.
    """

    accumulate: int = 4
    lr_audio: float = 1e-3
    lr_vision: float = 1e-4
    decay: float = 1e-3
    decay_text: float = 1e-3
    decay_audio: float = 1e-2
    decay_vision: float = 1e-3
    text_hidden: int = 64
    audio_hidden: int = 32
    vision_hidden: int = 64
    audio_out: int = 16
    vision_out: int = 32
    width: int = 128
    heads: int = 4
    layers: int = 3
    expansion: int = 4
    post: int = 256
    attention_dropout: float = 0.3
    ff_dropout: float = 0.1
    post_dropout: float = 0.3
    missing: float = Field(0.0, ge=0, lt=1)
    attract: float = 1.0
    recon: float = 1.0
    unknown: int = 100


class Recurrent(nn.Module):
    """An LSTM and a linear map: of all states, and of the last (B, out)."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__()
        self.lstm, self.map = LSTM(width, hidden), nn.Linear(hidden, out)

    def forward(self, x: Sequence) -> tuple[Sequence, Tensor]:
        states, last = self.lstm(x)
        return states.map(self.map(states.frames)), self.map(last)


class Unit(nn.Module):
    """Half of a mutual promotion unit: x (B, T, d) attends to y, to itself, and is transformed."""

    def __init__(self, d: int, s: EMTSettings) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({name: nn.LayerNorm(d) for name in ("query", "source", "own", "ff")})
        self.cross = Attention(d, s.heads, s.attention_dropout)
        self.own = Attention(d, s.heads, s.attention_dropout)
        self.gate = nn.Linear(d, 2 * s.expansion * d)
        self.out = nn.Linear(s.expansion * d, d)
        self.dropout = nn.Dropout(s.ff_dropout)

    def forward(self, x: Sequence, y: Sequence) -> Sequence:
        h = x.frames
        h = h + self.cross(self.norms["query"](h), y.map(self.norms["source"](y.frames)))
        normed = self.norms["own"](h)
        h = h + self.own(normed, x.map(normed))
        value, gate = self.gate(self.norms["ff"](h)).chunk(2, -1)
        return x.map(h + self.dropout(self.out(value * F.gelu(gate))))


class BatchNorm(nn.BatchNorm1d):
    """Of one utterance, by running statistics."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 1:
            return super().forward(x)
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def _predictor(w: int, hidden: int) -> nn.Module:
    """A bottleneck, (B, w) to (B, w)."""
    return nn.Sequential(nn.Linear(w, hidden, bias=False), BatchNorm(hidden), nn.ReLU(), nn.Linear(hidden, w))


class EMT(Network):
    """EMT (Sun et al., 2023)."""

    Settings = EMTSettings
    LOSSES = ("task", "recon", "attract", "total")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Its public repository's settings, as are the defaults; the LSTM's width over text is our choice.
        "mosi": {},
        "mosei": {
            "batch_size": 16, "lr_text": 2e-5, "lr_audio": 1e-4, "lr": 1e-4, "decay_audio": 1e-3,
            "audio_hidden": 16, "vision_hidden": 32, "layers": 2, "post": 128, "attention_dropout": 0.0,
            "ff_dropout": 0.0, "post_dropout": 0.0,
        },
    }  # fmt: skip

    def __init__(
        self, settings: EMTSettings, widths: Mapping[str, int], bert: nn.Module | None = None
    ) -> None:
        super().__init__(settings, widths, bert)
        s, d = settings, settings.width
        self.text = Recurrent(widths["text"], s.text_hidden, s.text_hidden) if bert is None else None
        self.audio = Recurrent(widths["audio"], s.audio_hidden, s.audio_out)
        self.vision = Recurrent(widths["vision"], s.vision_hidden, s.vision_out)
        wide = {"text": s.text_hidden if bert is None else widths["text"],
                "audio": s.audio_out, "vision": s.vision_out}  # fmt: skip
        self.project = nn.ModuleDict({m: nn.Linear(w, d, bias=False) for m, w in wide.items()})
        self.unit = Unit(d, s)
        self.pool = nn.Sequential(nn.Linear(3 * d, 3 * d), nn.Tanh(), nn.Linear(3 * d, 1, bias=False))
        self.dropout = nn.Dropout(s.post_dropout)
        self.head = MLP(sum(wide.values()) + 3 * d, s.post, s.post, 1)
        wide["context"] = 3 * d
        if s.missing:
            self.restore = nn.ModuleDict({m: nn.Linear(d, widths[m]) for m in MODALITIES})
            self.projector = nn.ModuleDict(
                {m: nn.Sequential(nn.Linear(w, w), BatchNorm(w, affine=False)) for m, w in wide.items()}
            )
            narrow = {m: max(1, w // (2 if m in ("audio", "vision") else 3)) for m, w in wide.items()}
            self.predictor = nn.ModuleDict({m: _predictor(w, narrow[m]) for m, w in wide.items()})

    def groups(self) -> list[dict[str, Any]]:
        """Text encoder, audio LSTM, vision LSTM, all others."""
        s, (bert, other) = self.settings, super().groups()
        audio, vision = list(self.audio.parameters()), list(self.vision.parameters())
        mine = {id(parameter) for parameter in (*audio, *vision)}
        return [
            bert,
            {"params": audio, "lr": s.lr_audio, "weight_decay": s.decay_audio},
            {"params": vision, "lr": s.lr_vision, "weight_decay": s.decay_vision},
            {**other, "params": [p for p in other["params"] if id(p) not in mine]},
        ]

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,), ``context`` (B, 3 d); where frames go missing in training, what the losses need."""
        outputs = self._view(x)
        if not (self.training and self.settings.missing):
            return {name: outputs[name] for name in ("M", "context")}
        lacking, lost = self._lose(x)
        copy = {f"{name}'": value for name, value in self._view(lacking).items()}
        return outputs | copy | {f"lost_{m}": mask for m, mask in lost.items()}

    def _view(self, x: Inputs) -> Outputs:
        """The score, each vector, and of each modality ``frames`` (B, T, w) and ``local`` (B, T, d)."""
        assert x.audio is not None
        assert x.vision is not None
        s, text = self.settings, self.read_text(x)
        read = {"text": (text, text.first) if self.text is None else self.text(text)}
        if self.text is None:  # local features are what is between [CLS] and [SEP]
            words = Sequence(F.pad(text.frames, (0, 0, -1, 1)), torch.clamp(text.lengths - 2, min=1))
            text = words.map(words.frames)
            read["text"] = text, read["text"][1]
        read |= {"audio": self.audio(x.audio), "vision": self.vision(x.vision)}
        local: dict[str, Sequence] = {}
        for m, (states, _) in read.items():
            frames = self.project[m](states.frames)  # (B, T, d)
            local[m] = states.map(frames + positions(states.lengths, frames.shape[1], s.width, frames))
        vectors = {m: vector for m, (_, vector) in read.items()}
        tokens = torch.stack([self.project[m](h) for m, h in vectors.items()], 1)  # (B, 3, d)
        three = torch.full((len(tokens),), 3, device=tokens.device)
        for layer in range(s.layers):
            context = Sequence(tokens, three)
            promoted = torch.stack([self.unit(context, local[m]).frames.flatten(1) for m in MODALITIES], 1)
            weights = self.pool(promoted).softmax(1)  # (B, 3, 1) of (B, 3, 3 d)
            tokens = (weights * promoted).sum(1).unflatten(1, (3, -1))
            if s.missing or layer + 1 < s.layers:  # nothing but restoration reads the last
                local = {m: self.unit(sequence, context) for m, sequence in local.items()}
        vectors["context"] = tokens.flatten(1)
        outputs = vectors | {"M": self.head(self.dropout(torch.cat(list(vectors.values()), 1)))[:, 0]}
        for m, sequence in {"text": text, "audio": x.audio, "vision": x.vision}.items():
            outputs |= {f"local_{m}": local[m].frames, f"frames_{m}": sequence.frames.detach()}
        return outputs

    def _lose(self, x: Inputs) -> tuple[Inputs, dict[str, Tensor]]:
        """A copy that lacks frames, and which of the local features (B, T) those are."""
        lost: dict[str, Tensor] = {}
        for m in MODALITIES:
            tokens = m == "text" and self.text is None
            sequence: Sequence = getattr(x, "tokens" if tokens else m)
            frames = sequence.frames
            gone = (
                torch.rand(frames.shape[:2], device=frames.device) < self.settings.missing
            ) & sequence.mask
            if tokens:  # [CLS] and [SEP] stay
                steps = torch.arange(frames.shape[1], device=frames.device)
                gone = gone & (steps > 0) & (steps < sequence.lengths[:, None] - 1)
                unknown = frames.new_tensor([self.settings.unknown, 0])
                frames = torch.where(gone[:, :, None], unknown, frames)
                x, lost[m] = replace(x, tokens=Sequence(frames, sequence.lengths)), F.pad(gone, (-1, 1))
            else:
                copy: Any = {m: Sequence(frames * ~gone[:, :, None], sequence.lengths)}
                x, lost[m] = replace(x, **copy), gone
        return x, lost

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """``task``: L1, of the copy if there is one; ``recon``, ``attract``, ``total``."""
        assert x.labels is not None
        s, zero = self.settings, outputs["M"].new_zeros(())
        whole = (outputs["M"] - x.labels).abs().mean()
        if "M'" not in outputs:
            return {"task": whole, "recon": zero, "attract": zero, "total": whole}
        task, recon, attract = (outputs["M'"] - x.labels).abs().mean(), zero, zero
        for m in MODALITIES:
            lost, target = outputs[f"lost_{m}"][:, :, None], outputs[f"frames_{m}"]
            error = F.smooth_l1_loss(self.restore[m](outputs[f"local_{m}'"]), target, reduction="none")
            recon = recon + (error * lost).sum() / (lost.sum() * target.shape[2]).clamp(min=1)
        for name in VECTORS:
            z, z_ = self.projector[name](outputs[name]), self.projector[name](outputs[f"{name}'"])
            p, p_ = self.predictor[name](z), self.predictor[name](z_)
            alike = F.cosine_similarity(p_, z.detach()) + F.cosine_similarity(p, z_.detach())
            attract = attract - alike.mean() / 2
        total = task + s.attract * (attract + whole) + s.recon * recon
        return {"task": task, "recon": recon, "attract": attract, "total": total}
