"""How far ULGM's labels of audio and vision are from the true ones, and from those that people gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..labels import MOSI
from ..results.metrics import measured
from . import batches


class PseudoShift:
    """Collects the labels of an epoch's utterances and compares the pseudo-labels with them."""

    def __init__(self) -> None:
        self._index: list[npt.NDArray[np.int64]] = []
        #: By batch: multimodal labels, and where there are any those of audio and vision.
        self._labels: list[dict[str, npt.NDArray[np.float32]]] = []

    def note(self, batch: Mapping[str, Any]) -> None:
        """Adds a batch that was trained on."""
        labels = {"multimodal": batches.labels_of(batch), **batches.unimodal_labels_of(batch)}
        # Copies: a loader may fill the same arrays again.
        self._index.append(batches.whole_numbers("index", batch["index"]).numpy().copy())
        self._labels.append(
            {
                name: batches.tensor("labels", values).float().reshape(-1).numpy().copy()
                for name, values in labels.items()
            }
        )

    def measure(self, pseudo_labels: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, float]:
        """``pseudo_shift_<modality>``: mean |y_s - y_m| over the utterances noted, in sentiment points.

        Where every batch has labels of a modality by people also ``pseudo_mae_<modality>``, the mean distance
        from these, and ``pseudo_corr_<modality>``, the Pearson correlation with them; NaN where either side
        is constant.
        """
        index, true = np.concatenate(self._index), self._all("multimodal")
        # NaN: an utterance whose batches were all skipped.
        found = {
            f"pseudo_shift_{name}": float(np.nanmean(np.abs(labels[index] - true)))
            for name, labels in pseudo_labels.items()
        }
        for name, labels in pseudo_labels.items():
            if not all(name in batch for batch in self._labels):
                continue
            ours, human = labels[index].astype(np.float64), self._all(name)
            known = ~np.isnan(ours)
            against = measured(human[known], ours[known], MOSI)
            found |= {f"pseudo_mae_{name}": against["mae"], f"pseudo_corr_{name}": against["corr"]}
        return found

    def _all(self, name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([batch[name] for batch in self._labels]).astype(np.float64)
