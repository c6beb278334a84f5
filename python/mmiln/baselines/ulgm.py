"""ULGM: unimodal label generation, Algorithm 1 of Self-MM.

Yu, Xu, Yuan, Wu: Learning Modality-Specific Representations with Self-Supervised Multi-Task Learning for
Multimodal Sentiment Analysis, AAAI 2021.

Pseudo-labels y_s of s = text, audio, vision beside the true labels y_m, with C^p and C^n the mean feature F*
of utterances whose label is above and below zero, as last seen, d wide, and i the epoch. At first y_s = y_m;
then, in each step of i >= 2, before F* and centres are replaced by those of the step:

    D     = ||F* - C|| / sqrt(d),  alpha = (D^n - D^p) / (D^p + eps)         (relative distance)
    new_s = y_m alpha_s / (2 (alpha_m + eps)) + (y_m + alpha_s - alpha_m) / 2, held within [-3, 3]
    y_s  <- (i - 1) / (i + 1) y_s + 2 / (i + 1) new_s                        (momentum)

These are MMILN's (`src/ulgm.rs`), which has them from here. Its code counts labels of zero as positive, and
utterances not seen yet as features of zero; here neither counts, and while a class is empty labels stay.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .inputs import Inputs

UNIMODAL = {"text": "T", "audio": "A", "vision": "V"}
EPS = 1e-8
BOUND = 3.0


class ULGM(nn.Module):
    """Labels (N,) and features (N, width) of all training utterances, of each of M, T, A and V.

    They are buffers, ``labels_M`` (the true ones) and so on, with NaN for an utterance that was not seen.
    """

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.widths = widths
        self.epoch = 0

    def begin(self, samples: int, like: Tensor) -> None:
        """A run on so many utterances, in numbers of one type with ``like``."""
        for name, width in self.widths.items():
            for kind, shape in (("labels", (samples,)), ("features", (samples, width))):
                self.register_buffer(f"{kind}_{name}", like.new_full(shape, torch.nan), persistent=False)

    def kept(self) -> dict[str, Tensor]:
        """Pseudo-labels by modality; none before a run."""
        names = UNIMODAL if hasattr(self, "labels_M") else {}
        return {modality: getattr(self, f"labels_{name}") for modality, name in names.items()}

    def of(self, x: Inputs) -> dict[str, Tensor]:
        """Labels (B,) of T, A and V of a batch; the true ones where there are none."""
        assert x.labels is not None
        # Outside training, utterances may be those of another part, with positions of their own.
        if x.index is None or not self.training or not hasattr(self, "labels_M"):
            return dict.fromkeys(UNIMODAL.values(), x.labels)
        now = {UNIMODAL[modality]: labels[x.index] for modality, labels in self.kept().items()}
        return {name: torch.where(labels.isnan(), x.labels, labels) for name, labels in now.items()}

    @torch.no_grad()
    def update(self, features: Mapping[str, Tensor], y_m: Tensor, index: Tensor) -> None:
        """New labels of a batch from the centres as they were, then its features (B, width) by name."""
        rows = _last_of_each(index)
        index, y_m = index[rows], y_m[rows]
        alpha = {name: self._alpha(name, feature[rows]) for name, feature in features.items()}
        i, ours = self.epoch, alpha["M"]
        for name, theirs in alpha.items():
            labels = getattr(self, f"labels_{name}")
            y = torch.where(labels[index].isnan(), y_m, labels[index])
            if i >= 2 and name != "M" and ours is not None and theirs is not None:
                new = y_m * theirs / (2 * (ours + EPS)) + (y_m + theirs - ours) / 2
                y = (i - 1) / (i + 1) * y + 2 / (i + 1) * new.clamp(-BOUND, BOUND)
            labels[index] = y
            getattr(self, f"features_{name}")[index] = features[name][rows]

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
