"""Cross-validation by video, for data sets that are too small for one test part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from mmiln.data.arrays import Floats
from mmiln.data.dataset import Dataset
from mmiln.data.sequences import Joined, Ragged
from mmiln.data.split import Split
from mmiln.data.videos import video_of
from mmiln.errors import DataError

LEAST = 3  # one fold each for train, valid and test


def fold(dataset: Dataset, number: int, folds: int) -> Dataset:
    """One of the ``folds`` divisions of all utterances of a data set, whole videos together.

    All utterances are divided into folds of about equal size, the same in every call. Fold ``number`` (from
    0) is the test part, the next one the validation part, all others train: every utterance is tested once.

    Raises:
        DataError: There are fewer than three folds, fewer videos than folds, or no such number.

    >>> from mmiln.data import synthetic
    >>> data = synthetic(100, 50, 50)
    >>> fold(data, 0, 4)
    Dataset('synthetic', train 104, valid 48, test 48; text, raw_text, audio, vision)
    """
    from sklearn.model_selection import GroupKFold

    if folds < LEAST or not 0 <= number < folds:
        raise DataError(f"expected at least {LEAST} folds and a fold from 0 on, got fold {number} of {folds}")
    whole = joined(dataset)
    videos = [video_of(name) for name in whole.id]
    if len(set(videos)) < folds:
        raise DataError(f"expected at least as many videos as folds, got {len(set(videos))} and {folds}")
    at = [test for _, test in GroupKFold(folds).split(np.zeros(len(whole)), groups=videos)]
    valid = (number + 1) % folds
    train = np.sort(np.concatenate([at[k] for k in range(folds) if k not in (number, valid)]))
    return Dataset(
        whole.subset(train.tolist()),
        whole.subset(at[valid].tolist()),
        whole.subset(at[number].tolist()),
        name=dataset.name,
        report=dataset.report,
    )


def joined(dataset: Dataset) -> Split:
    """All utterances of a data set as one split, train first; arrays shared."""
    parts = list(dataset.splits.values())
    fields = {name: _one([getattr(part, name) for part in parts]) for name in parts[0].fields}
    return replace(
        parts[0],
        id=[name for part in parts for name in part.id],
        labels=np.concatenate([part.truth for part in parts]),
        unimodal_labels={
            name: np.concatenate([part.unimodal_labels[name] for part in parts])
            for name in parts[0].unimodal_labels
        },
        weights=_weights(parts),
        **fields,
    )


def _weights(parts: list[Split]) -> Floats | None:
    """The weights of all utterances; 1 in a part without any."""
    if all(part.weights is None for part in parts):
        return None
    ones = (np.ones(len(part), np.float32) if part.weights is None else part.weights for part in parts)
    return np.concatenate([*ones])


def _one(sequences: list[Sequence[Any]]) -> Any:
    ragged = [sequence for sequence in sequences if isinstance(sequence, Ragged)]
    return Joined(ragged) if len(ragged) == len(sequences) else list(chain(*sequences))
