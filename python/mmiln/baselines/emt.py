"""EMT: Efficient Multimodal Transformer, with dual-level feature restoration (EMT-DLFR).

Sun, Lian, Liu, Tao: Efficient Multimodal Transformer with Dual-Level Feature Restoration for Robust
Multimodal Sentiment Analysis, IEEE Transactions on Affective Computing, 2023.

    h_m, X_m = utterance vector and local features: BERT's [CLS] and tokens, LSTMs' last and all states
    G   = [P_t h_t; P_a h_a; P_v h_v] (3, d): global context, X_m <- P_m X_m + positions
    each layer, for each m:  G_m = F(G, X_m),  X_m <- F(X_m, G)            (F: mutual_promotion.py)
    G  <- sum_m a_m G_m,  a = softmax_m(w tanh W G_m)                      (attention over modalities)
    yhat = MLP [h_t; h_a; h_v; G]
    L = mean |yhat - y|                                                    (complete modalities)
    L = mean |yhat' - y| + w_a (L_attract + mean |yhat - y|) + w_r L_recon (`missing` > 0: restoration.py)

where ' marks a copy of each training utterance with frames removed at random. Scoring removes no frames: to
score with missing frames, remove them from the data.

One unit and one attention over modalities serve both directions, all modalities and all layers, as in the
published setting. As in the public code, a linear map follows each LSTM. That code drops a dimension of audio
and vision with a batch of one, and a text without a word has no local features in it; here [SEP] takes their
place. Left open: an LSTM reads given text features like audio and vision.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from ..data.names import MODALITIES
from ..errors import ConfigError
from .blocks import MLP, Recurrent, positions
from .encoder_rates import EncoderRates, RatedEncoders
from .inputs import Inputs, Sequence
from .mutual_promotion import PromotionUnit
from .network import Outputs, Widths
from .restoration import Reconstruction, attraction, lose, predictors, projectors


class EMTSettings(EncoderRates):
    """Hyper-parameters of EMT, beside rates and widths of its encoders.

    Attributes:
        audio_out, vision_out: Widths of the linear maps after the LSTMs; text has no such map.
        width, heads, layers, expansion: Sizes of the transformer; the last is of its FFN.
        post: Width of the head.
        attention_dropout, ff_dropout, post_dropout: Dropout within attention, after an FFN, before the head.
        missing: Share of frames removed from the copy in training; 0 makes no copy.
        attract, recon: Weights of the losses.
        unknown: Id of the word piece that replaces a removed one; ``None`` for the unknown piece ([UNK] or
            ``<unk>``) of the encoder's tokenizer, or of BERT's own vocabulary without one.
    """

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
    unknown: int | None = Field(None, ge=0)


class EMT(RatedEncoders):
    """EMT (Sun et al., 2023)."""

    Settings = EMTSettings
    LOSSES = ("task", "recon", "attract", "total")
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Presets and defaults are its public repository's; the width of the LSTM over text is our choice.
        "mosi": {},
        "mosei": {
            "batch_size": 16, "lr_text": 2e-5, "lr_audio": 1e-4, "lr": 1e-4, "decay_audio": 1e-3,
            "audio_hidden": 16, "vision_hidden": 32, "layers": 2, "post": 128, "attention_dropout": 0.0,
            "ff_dropout": 0.0, "post_dropout": 0.0,
        },
    }  # fmt: skip

    def __init__(self, settings: EMTSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s, d = settings, settings.width
        pieces: Any = float("inf") if bert is None else bert.config.vocab_size  # type: ignore[union-attr]
        self.unknown = 100 if s.unknown is None else s.unknown
        if s.missing and self.unknown >= pieces:
            raise ConfigError(
                f"unknown must be one of the encoder's {pieces} word pieces, got {self.unknown}"
            )
        self.text = Recurrent(widths["text"], s.text_hidden, s.text_hidden) if bert is None else None
        self.audio = Recurrent(widths["audio"], s.audio_hidden, s.audio_out)
        self.vision = Recurrent(widths["vision"], s.vision_hidden, s.vision_out)
        wide = {"text": s.text_hidden if bert is None else widths["text"],
                "audio": s.audio_out, "vision": s.vision_out}  # fmt: skip
        self.project = nn.ModuleDict({m: nn.Linear(w, d, bias=False) for m, w in wide.items()})
        self.unit = PromotionUnit(d, s.heads, s.expansion, s.attention_dropout, s.ff_dropout)
        self.pool = nn.Sequential(nn.Linear(3 * d, 3 * d), nn.Tanh(), nn.Linear(3 * d, 1, bias=False))
        self.dropout = nn.Dropout(s.post_dropout)
        self.head = MLP(sum(wide.values()) + 3 * d, s.post, s.post, 1)
        if s.missing:
            wide["context"] = 3 * d
            self.restore = Reconstruction(d, widths)
            self.projector, self.predictor = projectors(wide), predictors(wide)

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,), ``context`` (B, 3 d); in training with ``missing``, also what the losses need."""
        outputs = self._view(x)
        if not (self.training and self.settings.missing):
            return {name: outputs[name] for name in ("M", "context")}
        lacking, lost = lose(x, self.settings.missing, self.unknown)
        copy = {f"{name}'": value for name, value in self._view(lacking).items()}
        return outputs | copy | {f"lost_{m}": mask for m, mask in lost.items()}

    def _view(self, x: Inputs) -> Outputs:
        """The score, each vector, and for each modality ``frames`` (B, T, w) and ``local`` (B, T, d)."""
        s, given = self.settings, self.read_all(x)
        if self.text is None:
            cls, given["text"] = given["text"].first, given["text"].inner
            read = {"text": (given["text"], cls)}
        else:
            read = {"text": self.text(given["text"])}
        read |= {"audio": self.audio(given["audio"]), "vision": self.vision(given["vision"])}
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
            if s.missing or layer + 1 < s.layers:  # only restoration reads the last layer's
                local = {m: self.unit(sequence, context) for m, sequence in local.items()}
        vectors["context"] = tokens.flatten(1)
        outputs = vectors | {"M": self.head(self.dropout(torch.cat(list(vectors.values()), 1)))[:, 0]}
        for m, sequence in given.items():
            outputs |= {f"local_{m}": local[m].frames, f"frames_{m}": sequence.frames.detach()}
        return outputs

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """``task``: L1, on the copy if there is one; ``recon``, ``attract``, ``total``."""
        assert x.labels is not None
        s, zero = self.settings, outputs["M"].new_zeros(())
        whole = x.mean((outputs["M"] - x.labels).abs())
        if "M'" not in outputs:
            return {"task": whole, "recon": zero, "attract": zero, "total": whole}
        task, recon = x.mean((outputs["M'"] - x.labels).abs()), self.restore(outputs)
        attract = attraction(outputs, self.projector, self.predictor)
        total = task + s.attract * (attract + whole) + s.recon * recon
        return {"task": task, "recon": recon, "attract": attract, "total": total}
