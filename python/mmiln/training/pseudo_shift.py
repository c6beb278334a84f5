"""How far ULGM has moved the labels of audio and vision from the true ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from . import batches


class PseudoShift:
    """Collects the true labels of an epoch's utterances and compares the pseudo-labels with them."""

    def __init__(self) -> None:
        self._index: list[npt.NDArray[np.int64]] = []
        self._labels: list[npt.NDArray[np.float32]] = []

    def note(self, batch: Mapping[str, Any]) -> None:
        """Adds a batch that was trained on."""
        labels = batches.labels_of(batch)
        # Copies: a loader may fill the same arrays again.
        self._index.append(batches.whole_numbers("index", batch["index"]).numpy().copy())
        self._labels.append(batches.tensor("labels", labels).float().reshape(-1).numpy().copy())

    def measure(self, pseudo_labels: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, float]:
        """``pseudo_shift_<modality>``: mean |y_s - y_m| over the utterances noted, in sentiment points."""
        index, true = np.concatenate(self._index), np.concatenate(self._labels).astype(np.float64)
        # NaN: an utterance whose batches were all skipped.
        return {
            f"pseudo_shift_{name}": float(np.nanmean(np.abs(labels[index] - true)))
            for name, labels in pseudo_labels.items()
        }
