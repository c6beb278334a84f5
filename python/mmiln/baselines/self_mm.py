"""Self-MM: self-supervised multi-task learning.

Yu, Xu, Yuan, Wu: Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for
Multimodal Sentiment Analysis, AAAI 2021.

    F_t = sentence vector, BERT's [CLS];  F_a, F_v = last states of one-directional LSTMs
    F*_m = ReLU(W_1 [F_t; F_a; F_v] + b_1),  F*_s = ReLU(W_1 F_s + b_1) for s of t, a, v
    y    = W_3 ReLU(W_2 F* + b_2) + b_3, for each of m, t, a, v
    L    = mean |yhat_m - y_m| + sum over s of mean tanh|y_s - y_m| |yhat_s - y_s|

Pseudo-labels y_s (unimodal label generation, its Algorithm 1), with C^p and C^n the mean F* of utterances
whose label is above and below zero, as last seen, and i the epoch. At first y_s = y_m; then, in each step of
i >= 2:

    D     = ||F* - C|| / sqrt(d),  alpha = (D^n - D^p) / (D^p + eps)
    new_s = y_m alpha_s / (2 (alpha_m + eps)) + (y_m + alpha_s - alpha_m) / 2, held within [-3, 3]
    y_s  <- (i - 1) / (i + 1) y_s + 2 / (i + 1) new_s

before F* and centres are replaced by those of the step. They are MMILN's (`src/ulgm.rs`), which has them from
here. What the paper leaves open, and where its code differs:

- On given text features the sentence vector is the last state of an LSTM.
- Its code has a linear layer after the audio and the vision LSTM, the equations above have none: `audio_out`
  and `vision_out`, in the presets and not in the defaults.
- Its code counts labels of zero as positive, and utterances not seen yet as features of zero; here neither
  counts, and while a class is empty labels stay.
- Its code loses a dimension with one utterance and fails; here a batch of one is as good as any. The toolkit
  (MMSA) also packs aligned audio and vision with the lengths of text.
- It sums gradients over four batches before a step; labels move after each. So it is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .blocks import LSTM
from .inputs import Inputs, Sequence
from .network import Network, Outputs, Settings

UNIMODAL = ("T", "A", "V")
EPS = 1e-8
BOUND = 3.0


class SelfMMSettings(Settings):
    """Hyper-parameters of Self-MM.

    Attributes:
        lr_audio, lr_vision, decay_audio, decay_vision: Of the audio and vision encoders.
        text_hidden: Width of the LSTM over given text features.
        audio_hidden, vision_hidden: Widths of the LSTMs.
        audio_out, vision_out: Widths of a linear layer after each; 0: there is none.
        post, post_text, post_audio, post_vision: Widths of the features F*.
        dropout, dropout_text, dropout_audio, dropout_vision: Before each of them.
    """

    accumulate: int = 4
    lr_audio: float = 1e-3
    lr_vision: float = 1e-4
    decay_text: float = 1e-3
    decay_audio: float = 1e-2
    decay_vision: float = 1e-3
    decay: float = 1e-3
    text_hidden: int = 64
    audio_hidden: int = 32
    vision_hidden: int = 64
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


class Encoder(LSTM):
    """The last state of an LSTM, and a linear layer if ``out`` is not 0: (B, width)."""

    def __init__(self, width: int, hidden: int, out: int = 0) -> None:
        super().__init__(width, hidden)
        self.linear = nn.Linear(hidden, out) if out else None
        self.width = out or hidden

    def last(self, x: Sequence) -> Tensor:
        state = self(x)[1]  # (B, hidden), whatever B is
        return state if self.linear is None else self.linear(state)


class Head(nn.Module):
    """Dropout, the feature F* (B, post) and the score (B,)."""

    def __init__(self, width: int, post: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear1 = nn.Linear(width, post)
        self.linear2 = nn.Linear(post, post)
        self.linear3 = nn.Linear(post, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = torch.relu(self.linear1(self.dropout(x)))
        return feature, self.linear3(torch.relu(self.linear2(feature)))[:, 0]


class SelfMM(Network):
    """Self-MM (Yu et al., 2021)."""

    Settings = SelfMMSettings
    LOSSES = ("task", "total")
    KEEPS_LABELS = True
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # Both from config/config_regression.py of its repository, thuiar/Self-MM, as are the defaults but for
        # text_hidden, which is our choice.
        "mosi": {"audio_out": 16, "vision_out": 32},
        "mosei": {
            "lr_audio": 5e-3, "decay_audio": 0.0, "decay_vision": 0.0, "decay": 0.01,
            "vision_hidden": 32, "audio_out": 16, "vision_out": 32, "post_text": 32, "post_vision": 16,
            "dropout": 0.0, "dropout_text": 0.1, "dropout_audio": 0.0,
        },
    }  # fmt: skip

    def __init__(
        self, settings: SelfMMSettings, widths: Mapping[str, int], bert: nn.Module | None = None
    ) -> None:
        super().__init__(settings, widths, bert)
        s = settings
        self.text = Encoder(widths["text"], s.text_hidden) if bert is None else None
        self.audio = Encoder(widths["audio"], s.audio_hidden, s.audio_out)
        self.vision = Encoder(widths["vision"], s.vision_hidden, s.vision_out)
        wide = {
            "T": widths["text"] if self.text is None else self.text.width,
            "A": self.audio.width,
            "V": self.vision.width,
        }
        wide["M"] = sum(wide.values())
        dropout = {"M": s.dropout, "T": s.dropout_text, "A": s.dropout_audio, "V": s.dropout_vision}
        self.post = {"M": s.post, "T": s.post_text, "A": s.post_audio, "V": s.post_vision}
        self.heads = nn.ModuleDict({n: Head(wide[n], post, dropout[n]) for n, post in self.post.items()})
        self.epoch = 0

    def groups(self) -> list[dict[str, Any]]:
        """Four rates: text encoder (no decay of biases and layer norms), audio, vision, all others."""
        s = self.settings
        rates = {
            "bert": (s.lr_text, s.decay_text), "bert, no decay": (s.lr_text, 0.0),
            "audio": (s.lr_audio, s.decay_audio), "vision": (s.lr_vision, s.decay_vision),
            "other": (s.lr, s.decay),
        }  # fmt: skip
        found: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
        for name, parameter in self.named_parameters():
            first = name.partition(".")[0]
            if first == "bert" and ("bias" in name or "LayerNorm" in name):
                first = "bert, no decay"
            found[first if first in rates else "other"].append(parameter)
        return [{"params": found[n], "lr": lr, "weight_decay": decay} for n, (lr, decay) in rates.items()]

    def forward(self, x: Inputs) -> Outputs:
        """``M``, ``T``, ``A``, ``V`` (B,) and the features ``F_m``, ``F_t``, ``F_a``, ``F_v`` (B, post)."""
        assert x.audio is not None
        assert x.vision is not None
        text = self.read_text(x)
        read = {
            "T": text.first if self.text is None else self.text.last(text),
            "A": self.audio.last(x.audio),
            "V": self.vision.last(x.vision),
        }
        read["M"] = torch.cat(list(read.values()), 1)
        outputs = {}
        for name, head in self.heads.items():
            outputs[f"F_{name.lower()}"], outputs[name] = head(read[name])
        return outputs

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """``task``: L1 of the score; ``total``: with the unimodal tasks."""
        assert x.labels is not None
        task = (outputs["M"] - x.labels).abs().mean()
        total = task
        for name, labels in self.pseudo_labels(x).items():
            weight = (labels - x.labels).abs().tanh()  # no weight where it says what the true label says
            total = total + (weight * (outputs[name] - labels).abs()).mean()
        return {"task": task, "total": total}

    # Pseudo-labels

    def begin_training(self, samples: int | None) -> None:
        """Labels and features of each training utterance: NaN where it was not seen."""
        like, n = next(self.parameters()), samples or 0
        for name, width in self.post.items():
            self.register_buffer(f"labels_{name}", like.new_full((n,), torch.nan), persistent=False)
            self.register_buffer(f"features_{name}", like.new_full((n, width), torch.nan), persistent=False)

    def kept_labels(self) -> Mapping[str, Tensor]:
        """Those of text, audio and vision."""
        names = {"text": "T", "audio": "A", "vision": "V"} if hasattr(self, "labels_M") else {}
        return {modality: getattr(self, f"labels_{name}") for modality, name in names.items()}

    def begin_epoch(self, epoch: int) -> None:
        """Labels are made from the second epoch on."""
        self.epoch = epoch

    def pseudo_labels(self, x: Inputs) -> dict[str, Tensor]:
        """Labels of T, A and V of a batch; the true ones where there are none."""
        assert x.labels is not None
        # Outside training, utterances may be those of another part, with positions of their own.
        if x.index is None or not self.training or not hasattr(self, "labels_M"):
            return dict.fromkeys(UNIMODAL, x.labels)
        now = {name: getattr(self, f"labels_{name}")[x.index] for name in UNIMODAL}
        return {name: torch.where(labels.isnan(), x.labels, labels) for name, labels in now.items()}

    @torch.no_grad()
    def after_step(self, outputs: Outputs, x: Inputs) -> None:
        """New labels from the centres as they were, then the features of this batch."""
        assert x.labels is not None
        assert x.index is not None
        rows = _last_of_each(x.index)
        index, y_m = x.index[rows], x.labels[rows]
        features = {name: outputs[f"F_{name.lower()}"][rows] for name in self.heads}
        labels = {name: getattr(self, f"labels_{name}") for name in self.heads}
        alpha = {name: self._alpha(name, feature) for name, feature in features.items()}
        i, ours = self.epoch, alpha["M"]
        for name, own in labels.items():
            old, theirs = torch.where(own[index].isnan(), y_m, own[index]), alpha[name]
            if i >= 2 and name != "M" and ours is not None and theirs is not None:
                new = y_m * theirs / (2 * (ours + EPS)) + (y_m + theirs - ours) / 2
                old = (i - 1) / (i + 1) * old + 2 / (i + 1) * new.clamp(-BOUND, BOUND)
            own[index] = old
            getattr(self, f"features_{name}")[index] = features[name]

    def _alpha(self, name: str, feature: Tensor) -> Tensor | None:
        """Relative distance (B,) to the centres of both classes; none while one has no utterance."""
        labels, features = getattr(self, f"labels_{name}"), getattr(self, f"features_{name}")
        distance = []
        for chosen in (labels < 0, labels > 0):  # neither is true of NaN: unseen
            if not bool(chosen.any()):
                return None
            distance.append((feature - features[chosen].mean(0)).norm(dim=1) / feature.shape[1] ** 0.5)
        negative, positive = distance
        return (negative - positive) / (positive + EPS)


def _last_of_each(index: Tensor) -> Tensor:
    """Rows of a batch, of an utterance given twice the last alone, as MMILN does."""
    rows = torch.arange(len(index), device=index.device)
    same = index[:, None] == index  # (B, B)
    return rows[(same * rows).amax(1) == rows]
