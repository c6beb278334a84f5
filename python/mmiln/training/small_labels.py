"""Tells of labels that all lie in [-1, 1] and are trained on as if of [-3, 3]."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from ..data.target import ENOUGH
from ..errors import DataWarning
from ..labels import SIMS
from . import batches


class SmallLabels:
    """Looks at the labels of an epoch's batches."""

    def __init__(self) -> None:
        self._count = 0
        self._small = True

    def note(self, batch: Mapping[str, Any]) -> None:
        """Adds a batch."""
        if (given := batches.labels_of(batch)) is None:
            return  # the step refuses it
        labels = batches.tensor("labels", given)
        self._count += labels.numel()
        self._small = self._small and not SIMS.outside(labels.double()).any()

    def warn(self) -> None:
        """Warns if there were enough labels, and all of them small."""
        if self._small and self._count >= ENOUGH:
            warnings.warn(
                f"all {self._count} labels lie in [-1, 1], and pseudo-labels may go up to 3: if that is "
                "their range, as in CH-SIMS, name it, Split(..., label_range=(-1, 1)) or, where there is no "
                "Split, Model(label_range=(-1, 1)); else Model(label_range=(-3, 3))",
                DataWarning,
                stacklevel=5,
            )
