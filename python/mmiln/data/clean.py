"""Replaces or refuses NaN and infinities in true frames, and counts values far from others of a column."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats
from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings
from mmiln.data.names import MODALITIES
from mmiln.data.outliers import Bounds, warn_of_far
from mmiln.data.sequences import Mapped, Ragged
from mmiln.data.split import Split
from mmiln.errors import ConfigError, DataError

Nonfinite = Literal["zero", "raise", "mean"]


def clean_nonfinite(dataset: Dataset, how: Nonfinite) -> None:
    """Replace non-finite values (in place where they are in lists), and count them in the report.

    The same pass counts values far outside their column's spread, which stay as they are; the report warns.

    Args:
        how: ``"zero"`` puts 0, ``"mean"`` the mean of the column's finite values in train (0 where
            it has none), ``"raise"`` refuses them.

    Raises:
        DataError: with ``"raise"``, at the first utterance that has one.
        ConfigError: ``how`` is something else.
    """
    check(how)
    for modality in MODALITIES:
        bounds = fill = None
        for name, split in dataset.splits.items():
            frames: Sequence[Floats] | None = getattr(split, modality)
            if frames is None:
                continue
            bounds = bounds or Bounds.of(frames)
            unusual = [i for i, f in enumerate(frames) if not bounds.hold(f)]
            far = bounds.far(frames, unusual)
            warn_of_far(dataset.report, f"{name} {modality}", [split.id[i] for i in far], [*far.values()])
            dirty = [i for i in unusual if not np.isfinite(frames[i]).all()]
            if not dirty:
                continue
            if how == "raise":
                raise DataError(
                    f"{name} {modality}: {len(dirty)} utterances hold NaN or infinite values, the "
                    f"first is {split.id[dirty[0]]!r}; clean them or read with nonfinite='zero'"
                )
            if fill is None:
                mean = how == "mean"
                fill = (
                    _column_means(getattr(dataset.train, modality)) if mean else np.zeros(frames[0].shape[1])
                )
            count = sum(int((~np.isfinite(frames[i])).sum()) for i in dirty)
            if isinstance(frames, Ragged):
                setattr(split, modality, Mapped(frames, partial(_filled, fill)))
            else:
                for i in dirty:
                    frames[i][:] = _filled(fill, i, frames[i])
            dataset.report.add(
                f"{name} {modality}: {count} NaN or infinite values in {len(dirty)} utterances "
                f"became {'0' if how == 'zero' else 'the mean of their column in train'}.",
                {f"{name}.{modality}.nonfinite": count},
            )


def far_values(split: Split) -> list[str]:
    """A sentence for each modality of a split in memory with values far outside their column's spread."""
    report = Findings()
    for name in MODALITIES:
        frames = getattr(split, name)
        if frames is None or isinstance(frames, Ragged):
            continue
        bounds = Bounds.of(frames)
        unusual = [i for i, each in enumerate(frames) if not bounds.hold(each)]
        far = bounds.far(frames, unusual)
        warn_of_far(report, name, [split.id[i] for i in far], [*far.values()])
    return report.warnings


def check(how: str | None) -> None:
    """Raises ConfigError where ``how`` is unknown."""
    if how not in get_args(Nonfinite):
        raise ConfigError(f"expected nonfinite to be one of {get_args(Nonfinite)}, got {how!r}")


def _filled(fill: npt.NDArray[np.float64], _: int, frames: Floats) -> Floats:
    return np.where(np.isfinite(frames), frames, fill.astype(np.float32))


def _column_means(frames: Sequence[Floats]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    total, count = np.zeros(frames[0].shape[1]), np.zeros(frames[0].shape[1])
    for utterance in frames:
        finite = np.isfinite(utterance)
        total += np.where(finite, utterance, 0).sum(axis=0, dtype=np.float64)
        count += finite.sum(axis=0)
    return total / np.maximum(count, 1)
