"""Tells of labels that are trained on as if of [-3, 3], but look like classes or like labels in [-1, 1]."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.target import ENOUGH, classes_note
from ..errors import DataWarning
from ..labels import SIMS
from . import batches


class SmallLabels:
    """Looks at the labels of an epoch's batches."""

    def __init__(self) -> None:
        self._labels: list[npt.NDArray[np.float64]] = [np.zeros(0)]

    def note(self, batch: Mapping[str, Any]) -> None:
        """Adds a batch."""
        if (given := batches.labels_of(batch)) is not None:  # else the step refuses it
            self._labels.append(batches.tensor("labels", given).double().reshape(-1).numpy())

    def warn(self) -> None:
        """Warns if there were enough labels, and all of them look like others."""
        labels = np.concatenate(self._labels)
        note = classes_note(labels)
        if note is None and len(labels) >= ENOUGH and not SIMS.outside(labels).any():
            note = (
                f"all {len(labels)} labels lie in [-1, 1], and pseudo-labels may go up to 3: if that is "
                "their range, as in CH-SIMS, name it, Split(..., label_range=(-1, 1)) or, where there is no "
                "Split, Model(label_range=(-1, 1)); else Model(label_range=(-3, 3))"
            )
        if note is not None:
            warnings.warn(note, DataWarning, stacklevel=5)
