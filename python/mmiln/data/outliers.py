"""Values far outside their column's spread, such as the 1e30 of a failed extraction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats
from mmiln.data.findings import Findings
from mmiln.data.sequences import Ragged

FAR: Final = 1e4  # spreads from the median
LEAST: Final = 100.0  # from the median: where columns vary less, such values harm no training
OF_CONSTANT: Final = 1e6  # from the median of a column that does not vary
SAMPLE: Final = 2000  # rows that the spread is estimated from
_IDS: Final = 5  # named in a note
_COLUMNS: Final = 20


class Bounds(NamedTuple):
    """The values (w,) between which a column's values are ordinary; ``inner`` are so in every column."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]
    inner: tuple[float, float]

    @classmethod
    def of(cls, frames: Sequence[Floats]) -> Bounds:
        """Bounds from about 2000 rows of arrays (T, w).

        The spread of a column is its interquartile range, or, where that is 0, the 99th percentile of the
        distances from the median: neither depends on a few extreme values.
        """
        total = int(frames.lengths.sum()) if isinstance(frames, Ragged) else sum(map(len, frames))
        every = max(1, total // SAMPLE)
        rows = np.concatenate([frames[at] for at in range(0, len(frames), every)])
        rows = np.where(np.isfinite(rows), rows, 0).astype(np.float64)
        first, median, third = np.percentile(rows, [25, 50, 75], axis=0)
        rare = np.percentile(np.abs(rows - median), 99, axis=0)
        spread = np.where(third > first, third - first, rare)
        reach = np.where(spread > 0, np.maximum(FAR * spread, LEAST), OF_CONSTANT)
        low, high = median - reach, median + reach
        return cls(low, high, (low.max(), high.min()))

    def hold(self, frames: Floats) -> bool:
        """Whether all values of (T, w) are ordinary; NaN and infinities are not."""
        if frames.min() >= self.inner[0] and frames.max() <= self.inner[1]:  # quicker
            return True
        with np.errstate(invalid="ignore"):  # of a signalling NaN, which damaged files may hold
            return bool((frames.min(axis=0) >= self.low).all() and (frames.max(axis=0) <= self.high).all())

    def far(self, frames: Sequence[Floats], among: Iterable[int]) -> dict[int, npt.NDArray[np.bool_]]:
        """By position, for the arrays ``among`` these that have any, which values are not ordinary."""
        return {i: mask for i in among if (mask := self.beyond(frames[i])).any()}

    def beyond(self, frames: Floats) -> npt.NDArray[np.bool_]:
        """Which values of (T, w) are finite and not ordinary."""
        with np.errstate(invalid="ignore"):
            return np.isfinite(frames) & ((frames < self.low) | (frames > self.high))


def warn_of_far(
    report: Findings, part: str, ids: Sequence[str], far: Sequence[npt.NDArray[np.bool_]]
) -> None:
    """Adds to a report which values of some utterances are far, given their masks (T, w).

    Args:
        part: split and modality, such as ``"train audio"``.
        ids: the utterances' names.
        far: the masks, none of them empty.
    """
    if not far:
        return
    count = sum(int(mask.sum()) for mask in far)
    columns = np.flatnonzero(np.any([mask.any(axis=0) for mask in far], axis=0)).tolist()
    shown = ", ".join(map(str, columns[:_COLUMNS])) + (", ..." if len(columns) > _COLUMNS else "")
    names = ", ".join(map(repr, ids[:_IDS])) + (", ..." if len(ids) > _IDS else "")
    report.warn(
        f"{part}: {count} values in {len(far)} utterances lie more than {FAR:g} times their column's spread "
        f"from its median, in columns {shown} of {names}: training may overflow on them; extract these "
        "features anew, or leave the utterances out.",
        {f"{part.replace(' ', '.')}.far": count},
    )
