"""The label that is learned: which column of a file, its range, and labels beyond that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats, single
from mmiln.data.findings import Findings
from mmiln.errors import DataError
from mmiln.labels import MOSI, SIMS, LabelRange

ENOUGH: Final = 20  # labels of CMU-MOSI: one in 10^7 such sets lies in [-1, 1] by chance


def classes_note(labels: npt.NDArray[Any]) -> str | None:
    """A sentence about labels that look like numbers of classes: enough of them, whole, none negative.

    None where they do not.
    """
    kinds = np.unique(labels)
    if labels.size < ENOUGH or len(kinds) < 2 or kinds[0] < 0 or not (kinds == np.rint(kinds)).all():
        return None
    return (
        f"all {labels.size} labels are whole numbers from {kinds[0]:g} to {kinds[-1]:g}, like numbers of "
        "classes, and are learned as scores in [-3, 3]: if they are scores, name their range, "
        f"labels=({kinds[0]:g}, {kinds[-1]:g}) in load or label_range= of a Split or Model; in a file that "
        "has scores too, name those by target="
    )


@dataclass(frozen=True)
class Target:
    """What a user says of the labels of a file.

    Attributes:
        column: the number of a column, or the name of a field or column; None where there is one alone.
        range: the lowest and the highest label that is possible; None to find out.
        clamp: whether labels beyond the range become its nearest end.
    """

    column: int | str | None = None
    range: LabelRange | None = None
    clamp: bool = False

    def one_column(self, labels: npt.NDArray[Any], where: str) -> npt.NDArray[Any]:
        """The labels to learn, (N,), of labels (N,), (N, 1), (N, K) or (N, 1, 1).

        Raises:
            DataError: There are several columns and none is named, or there is no such column.
        """
        flat = labels.reshape(len(labels), -1)
        count, column = flat.shape[1], self.column
        if count == 1:
            return flat[:, 0]
        if not isinstance(column, int):
            raise DataError(
                f"{where}: labels have {count} columns, and MMILN learns one score: name the column by "
                f"target=, a number from 0 to {count - 1} (in the files of CMU-MOSEI, 0 is the sentiment and "
                "1 to 6 are emotions from 0 to 3, for which also give labels=(0, 3))"
            )
        if not 0 <= column < count:
            raise DataError(f"{where}: expected target to be a column from 0 to {count - 1}, got {column}")
        return flat[:, column]

    def range_of(self, parts: Sequence[npt.NDArray[Any]], report: Findings, *, unimodal: bool) -> LabelRange:
        """The range of the labels of all parts: the given one, else that of CMU-MOSI or of CH-SIMS.

        Args:
            parts: the labels of each part that has any.
            report: notes a guess.
            unimodal: whether there are labels of single modalities, as in CH-SIMS alone.
        """
        if self.range is not None:
            return self.range
        labels = np.concatenate([*parts, np.zeros(0)])
        small = labels.size > 0 and not SIMS.outside(labels).any()
        classes = classes_note(labels)
        if classes is not None:
            report.warn(f"{classes[0].upper()}{classes[1:]}.")
        if small and unimodal:
            report.add("Labels lie in [-1, 1] and there are labels of single modalities: those of CH-SIMS.")
            return SIMS
        if small and labels.size >= ENOUGH and labels.any():
            if classes is None:
                report.warn(
                    f"All {labels.size} labels lie in [-1, 1]: taken for the scale of CH-SIMS, and measured "
                    "by its measures. If the scale is another, name it: labels=(-3, 3)."
                )
            return SIMS
        return MOSI

    def clamped(
        self, labels: npt.NDArray[Any], among: LabelRange, ids: Sequence[str], part: str, report: Findings
    ) -> Floats:
        """The labels, those beyond the range at its nearest end where that is wanted."""
        beyond = among.outside(labels) & np.isfinite(labels)
        if self.clamp and beyond.any():
            names = ", ".join(repr(ids[i]) for i in np.nonzero(beyond)[0][:5])
            report.warn(
                f"{part}: {int(beyond.sum())} labels beyond {among} were clamped: {names}"
                f"{', ...' if beyond.sum() > 5 else ''}.",
                {f"{part}.labels.clamped": int(beyond.sum())},
            )
            labels = np.clip(labels, among.low, among.high)
        return single(labels)
