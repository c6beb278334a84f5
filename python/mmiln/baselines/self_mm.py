"""Self-MM: self-supervised multi-task learning.

Yu, Xu, Yuan, Wu: Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for
Multimodal Sentiment Analysis, AAAI 2021.

    F_t = sentence vector, BERT's [CLS];  F_a, F_v = last states of one-directional LSTMs
    F*_m = ReLU(W_1 [F_t; F_a; F_v] + b_1),  F*_s = ReLU(W_1 F_s + b_1) for s of t, a, v
    y    = W_3 ReLU(W_2 F* + b_2) + b_3, for each of m, t, a, v
    L    = mean |yhat_m - y_m| + sum over s of mean tanh|y_s - y_m| |yhat_s - y_s|

Each step computes the pseudo-labels y_s of t, a, v anew: `ulgm.py`, the paper's Algorithm 1. What the paper
leaves open, and where its code differs:

- On given text features the sentence vector is the last state of an LSTM.
- Its code has a linear layer after the audio and the vision LSTM, the equations above have none: it is set by
  `audio_out` and `vision_out`, which the presets give and the defaults do not.
- Its code drops a dimension of a batch of one and fails; here such a batch works. MMSA also packs aligned
  audio and vision with the lengths of text.
- It sums gradients over four batches before a step, and moves labels after each batch; so do we.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import pydantic
import torch
from torch import Tensor, nn

from .blocks import Encoder, Head
from .encoder_rates import EncoderRates, RatedEncoders
from .inputs import Inputs
from .network import Outputs, Widths
from .ulgm import ULGM, UNIMODAL


class SelfMMSettings(EncoderRates):
    """Hyper-parameters of Self-MM, beside rates and widths of its encoders.

    Attributes:
        audio_out, vision_out: Widths of a linear layer after each LSTM; 0 for none.
        post, post_text, post_audio, post_vision: Widths of the features F*.
        dropout, dropout_text, dropout_audio, dropout_vision: Dropout before each of those features.
        label_bound: Pseudo-labels are clipped to [-label_bound, label_bound], as the network is trained on
            labels; ``None`` for the bound of the data's.
        exclude_zero: Whether utterances with a label of 0 belong to neither class, else to the positive one.
    """

    audio_out: int = 0
    vision_out: int = 0
    post: int = 128
    post_text: int = 64
    post_audio: int = 16
    post_vision: int = 32
    dropout: float = 0.1
    dropout_text: float = 0.0
    dropout_audio: float = 0.1
    dropout_vision: float = 0.1
    label_bound: float | None = pydantic.Field(None, gt=0, allow_inf_nan=False)
    exclude_zero: bool = True


class SelfMM(RatedEncoders):
    """Self-MM (Yu et al., 2021).

    With two modalities, F*_m reads the two, and s is each of the two.
    """

    Settings = SelfMMSettings
    NEEDS = ()
    FEWEST = 2
    LOSSES = ("task", "total")
    KEEPS_LABELS = True
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Presets and defaults are from config/config_regression.py of its repository, thuiar/Self-MM, except
        # text_hidden, which is our choice.
        "mosi": {"audio_out": 16, "vision_out": 32},
        "mosei": {
            "lr_audio": 5e-3, "decay_audio": 0.0, "decay_vision": 0.0, "decay": 0.01,
            "vision_hidden": 32, "audio_out": 16, "vision_out": 32, "post_text": 32, "post_vision": 16,
            "dropout": 0.0, "dropout_text": 0.1, "dropout_audio": 0.0,
        },
    }  # fmt: skip

    def __init__(self, settings: SelfMMSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        wide: dict[str, int] = {}
        if widths["text"]:
            self.text = Encoder(widths["text"], s.text_hidden) if bert is None else None
            wide["T"] = widths["text"] if self.text is None else self.text.width
        if widths["audio"]:
            self.audio = Encoder(widths["audio"], s.audio_hidden, s.audio_out)
            wide["A"] = self.audio.width
        if widths["vision"]:
            self.vision = Encoder(widths["vision"], s.vision_hidden, s.vision_out)
            wide["V"] = self.vision.width
        wide["M"] = sum(wide.values())
        dropout = {"M": s.dropout, "T": s.dropout_text, "A": s.dropout_audio, "V": s.dropout_vision}
        post = {"M": s.post, "T": s.post_text, "A": s.post_audio, "V": s.post_vision}
        post = {name: p for name, p in post.items() if name in wide}
        self.heads = nn.ModuleDict({name: Head(wide[name], p, dropout[name]) for name, p in post.items()})
        self.ulgm = ULGM(post, s.label_bound, s.exclude_zero)

    def learning_rates(self) -> dict[str, tuple[float, float]]:
        """Those of the encoders, and one for the parameters of the text encoder without decay."""
        return super().learning_rates() | {"bert, no decay": (self.settings.lr_text, 0.0)}

    def group_of(self, parameter: str) -> str:
        """As for any network, but a text encoder's biases and layer norms have no decay."""
        group = super().group_of(parameter)
        undecayed = group == "bert" and ("bias" in parameter or "LayerNorm" in parameter)
        return "bert, no decay" if undecayed else group

    def forward(self, x: Inputs) -> Outputs:
        """``M``, ``T``, ``A``, ``V`` (B,) and the features ``F_m``, ``F_t``, ``F_a``, ``F_v`` (B, post).

        T, A and V only where the modality is there.
        """
        read = {
            UNIMODAL[m]: frames.first if (encoder := getattr(self, m)) is None else encoder.last(frames)
            for m, frames in self.read_all(x).items()
        }
        read["M"] = torch.cat(list(read.values()), 1)
        outputs = {}
        for name, head in self.heads.items():
            outputs[f"F_{name.lower()}"], outputs[name] = head(read[name])
        return outputs

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """``task``: L1 of the score; ``total``: with the unimodal tasks."""
        assert x.labels is not None
        task = x.mean((outputs["M"] - x.labels).abs())
        total = task
        for name, labels in self.ulgm.of(x).items():
            weight = (labels - x.labels).abs().tanh()  # weight 0 where it equals the true label
            total = total + x.mean(weight * (outputs[name] - labels).abs())
        return {"task": task, "total": total}

    # Pseudo-labels

    def begin_training(self, samples: int | None) -> None:
        """Allocates a label for each training utterance."""
        self.ulgm.begin(samples or 0, next(self.parameters()))

    def begin_epoch(self, epoch: int) -> None:
        """Labels are made from the second epoch on."""
        self.ulgm.epoch = epoch

    def kept_labels(self) -> Mapping[str, Tensor]:
        """The pseudo-labels of each modality."""
        return self.ulgm.kept()

    def after_step(self, outputs: Outputs, x: Inputs) -> None:
        """Updates the labels of the batch."""
        assert x.labels is not None
        assert x.index is not None
        features = {name: outputs[f"F_{name.lower()}"] for name in self.heads}
        self.ulgm.update(features, x.labels, x.index)
