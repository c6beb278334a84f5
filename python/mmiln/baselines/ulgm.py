"""ULGM: unimodal label generation, Algorithm 1 of Self-MM.

Yu, Xu, Yuan, Wu: Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for
Multimodal Sentiment Analysis, AAAI 2021.

Pseudo-labels y_s of s = text, audio, vision beside the true labels y_m. H bounds the
labels: 3, and 1 for CH-SIMS (`label_bound`). The centres C^p and C^n, d wide, are
the means of the last seen features F* of utterances whose label is above and below zero. Initially y_s = y_m;
then each step of epoch i >= 2 computes, before it updates F* and the centres:

    D     = ||F* - C|| / sqrt(d),  alpha = (D^n - D^p) / (D^p + eps)         (relative distance)
    new_s = y_m alpha_s / (2 (alpha_m + eps)) + (y_m + alpha_s - alpha_m) / 2, clipped to [-H, H]
    y_s  <- (i - 1) / (i + 1) y_s + 2 / (i + 1) new_s                        (momentum)

MMILN takes these equations over (`src/ulgm.rs`). Self-MM's code counts labels of zero as positive, as here
`exclude_zero=False` does, and unseen utterances as features of zero; here both are ignored, and labels stay
while a class is empty.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..labels import MOSI
from .inputs import Inputs

UNIMODAL = {"text": "T", "audio": "A", "vision": "V"}
EPS = 1e-8


class ULGM(nn.Module):
    """Labels (N,) and features (N, width) of all training utterances, by the names of ``widths``.

    Names are M, and T, A and V or some of them. They are buffers, ``labels_M`` (the true ones) and so on,
    with NaN for an utterance that was not seen. With ``exclude_zero`` a label of 0 belongs to neither class,
    else to the positive one.
    """

    def __init__(
        self, widths: Mapping[str, int], bound: float | None = None, exclude_zero: bool = True
    ) -> None:
        super().__init__()
        self.widths = widths
        self.names = {modality: name for modality, name in UNIMODAL.items() if name in widths}
        self.exclude_zero = exclude_zero
        self.epoch = 0
        self.given_bound = bound
        self.bound = bound or MOSI.bound

    def begin(self, samples: int, like: Tensor) -> None:
        """Allocates buffers for this number of utterances, of the type and device of ``like``."""
        for name, width in self.widths.items():
            for kind, shape in (("labels", (samples,)), ("features", (samples, width))):
                self.register_buffer(f"{kind}_{name}", like.new_full(shape, torch.nan), persistent=False)

    def kept(self) -> dict[str, Tensor]:
        """Pseudo-labels by modality; none before a run."""
        names = self.names if hasattr(self, "labels_M") else {}
        return {modality: getattr(self, f"labels_{name}") for modality, name in names.items()}

    def of(self, x: Inputs) -> dict[str, Tensor]:
        """A batch's labels (B,) of T, A and V; the true labels where there are no pseudo-labels."""
        assert x.labels is not None
        # Outside training, utterances may be of another split, where an index has another meaning.
        if x.index is None or not self.training or not hasattr(self, "labels_M"):
            return dict.fromkeys(self.names.values(), x.labels)
        now = {self.names[modality]: labels[x.index] for modality, labels in self.kept().items()}
        return {name: torch.where(labels.isnan(), x.labels, labels) for name, labels in now.items()}

    @torch.no_grad()
    def update(self, features: Mapping[str, Tensor], y_m: Tensor, index: Tensor) -> None:
        """Computes a batch's labels from the previous centres, then stores its features (B, width)."""
        rows = _last_of_each(index)
        index, y_m = index[rows], y_m[rows]
        alpha = {name: self._alpha(name, feature[rows]) for name, feature in features.items()}
        i, ours = self.epoch, alpha["M"]
        for name, theirs in alpha.items():
            labels = getattr(self, f"labels_{name}")
            y = torch.where(labels[index].isnan(), y_m, labels[index])
            if i >= 2 and name != "M" and ours is not None and theirs is not None:
                new = y_m * theirs / (2 * (ours + EPS)) + (y_m + theirs - ours) / 2
                y = (i - 1) / (i + 1) * y + 2 / (i + 1) * new.clamp(-self.bound, self.bound)
            labels[index] = y
            getattr(self, f"features_{name}")[index] = features[name][rows]

    def _alpha(self, name: str, feature: Tensor) -> Tensor | None:
        """Relative distance (B,) to the centres of both classes; ``None`` while one has no utterance."""
        labels, features = getattr(self, f"labels_{name}"), getattr(self, f"features_{name}")
        distance = []
        above = labels > 0 if self.exclude_zero else labels >= 0
        for chosen in (labels < 0, above):  # both are false for NaN, an unseen utterance
            if not bool(chosen.any()):
                return None
            distance.append((feature - features[chosen].mean(0)).norm(dim=1) / feature.shape[1] ** 0.5)
        negative, positive = distance
        return (negative - positive) / (positive + EPS)


def _last_of_each(index: Tensor) -> Tensor:
    """Positions in a batch; of a repeated utterance only its last, as in MMILN."""
    rows = torch.arange(len(index), device=index.device)
    same = index[:, None] == index  # (B, B)
    return rows[(same * rows).amax(1) == rows]
