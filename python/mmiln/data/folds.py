"""Divisions of a data set by video: one fold of several, and parts of data that have one alone."""

from __future__ import annotations

from itertools import islice

from mmiln.data.dataset import Dataset
from mmiln.data.videos import shared_out
from mmiln.errors import DataError


def fold(dataset: Dataset, number: int, folds: int) -> Dataset:
    """One of the ``folds`` divisions of :meth:`Dataset.kfold`, without a seed: the same in every call.

    Raises:
        DataError: There are fewer than three folds, fewer videos than folds, or no such number.

    >>> from mmiln.data import synthetic
    >>> data = synthetic(100, 50, 50)
    >>> fold(data, 0, 4)
    Dataset('synthetic', train 104, valid 48, test 48; text, raw_text, audio, vision)
    """
    if not 0 <= number < folds:
        raise DataError(f"expected one of {folds} folds, from 0 on, got {number}")
    return next(islice(dataset.kfold(folds), number, None))


def split_by_video(dataset: Dataset, seed: int) -> Dataset:
    """A data set of one part, shared out by video, about 6 : 2 : 2 in utterances, as ``seed`` determines.

    Raises DataError where there are fewer than three videos.
    """
    ((part, whole),) = dataset.splits.items()
    splits = shared_out(whole, seed)
    sizes = ", ".join(f"{key} {len(split)}" for key, split in splits.items())
    dataset.report.warn(
        f"There is one part alone ({part}, {len(whole)} utterances); it was split by video "
        f"with seed {seed}: {sizes}."
    )
    return Dataset(splits["train"], splits["valid"], splits["test"], name=dataset.name, report=dataset.report)
