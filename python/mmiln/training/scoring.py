"""Predictions of all utterances of a loader."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..labels import LabelRange
from ..results.predictions import Predictions
from . import batches, loaders
from .learner import Learner
from .ranks import Ranks

Missing = Literal["raise", "zeros"]


class Scored(NamedTuple):
    """A batch after prediction."""

    score: npt.NDArray[np.float32]
    names: list[str] | None
    indices: npt.NDArray[np.int64] | None
    label: npt.NDArray[np.float32] | None


def predict(
    model: Learner, loader: loaders.Loader, ranks: Ranks | None = None, *, missing: Missing = "raise"
) -> Predictions:
    """Scores of all utterances, in dataset order where batches carry ``index``; with ``ranks``, each process
    scores some of the batches.
    """
    if missing not in get_args(Missing):
        raise ConfigError(f"missing must be one of {get_args(Missing)}, got {missing!r}")
    model.follow(loaders.label_range(loader))
    supply = loaders.each(loaders.for_reading(loader, model.config.train["batch_size"]), model.encoder)
    if missing == "zeros":
        supply = (batches.with_zeros(batch, model.config.model) for batch in supply)
    if ranks is None:
        return joined((_scored(model, batch) for batch in supply), model.label_range_)
    own = [_scored(model, batch) for batch in islice(supply, ranks.rank, None, ranks.size)]
    of_all: list[list[Scored]] = ranks.of_all(own)
    # No process has more batches than the first, which gets the first one.
    in_turn = (part[i] for i in range(len(of_all[0])) for part in of_all if i < len(part))
    return joined(in_turn, model.label_range_)


def _scored(model: Learner, batch: Mapping[str, Any]) -> Scored:
    packed = model.pack(batch)
    return Scored(
        model.label_range_.restored(model.core.scores(packed).float().cpu().numpy()),
        batches.names(batch, len(packed)),
        _numbers("index", batch.get("index"), np.int64),
        _numbers("labels", batches.labels_of(batch), np.float32),
    )


def joined(parts: Iterable[Scored], label_range: LabelRange) -> Predictions:
    """The predictions of all batches, in dataset order where each carries ``index``."""
    scores, names, indices, labels = zip(*parts, strict=True)
    score = np.concatenate(scores)
    named = [name for part in names if part is not None for name in part]
    id_ = named if len(named) == len(score) else None
    index, label = _together(indices), _together(labels)
    if index is not None:
        order = np.argsort(index, kind="stable")
        score, index = score[order], index[order]
        id_ = None if id_ is None else [id_[i] for i in order]
        label = None if label is None else label[order]
    return Predictions(score, id_, index, label, label_range)


def _together(parts: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
    """The parts of all batches as one array; ``None`` where one batch has none."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if len(there) == len(parts) else None


def _numbers(name: str, values: Any, dtype: type) -> npt.NDArray[Any] | None:
    return None if values is None else batches.tensor(name, values).reshape(-1).numpy().astype(dtype)
