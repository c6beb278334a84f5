"""MMILN and the baselines as scikit-learn's regressors, for its cross-validation and searches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, RegressorMixin, clone
from sklearn.model_selection import GroupShuffleSplit
from sklearn.utils.validation import check_is_fitted

from .data import Split
from .data.videos import video_of
from .errors import ConfigError, DataError
from .training.estimator import Estimator

Utterances = Iterable[Mapping[str, Any]]  # a Split is one


class Regressor(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A model whose ``X`` is a :class:`mmiln.data.Split`, or a list of its utterances.

    Each ``fit`` trains a new model with the same parameters; searches name them ``model__<name>``. All
    splitters of scikit-learn work; give ``groups`` to keep the utterances of a video together.

    Args:
        model: A :class:`mmiln.Model` or :class:`mmiln.baselines.Baseline`; it is not changed.
        epochs: The largest number of epochs.
        validation_fraction: The share of the training utterances, in whole videos, on which the best epoch
            is chosen and early stopping decides; 0 trains on all for ``epochs`` epochs.

    Attributes:
        model_: The fitted model.

    >>> import mmiln
    >>> from sklearn.model_selection import cross_val_score
    >>> split = mmiln.data.synthetic(24, 8, 8).train
    >>> regressor = Regressor(mmiln.Model("mosi", num_layers=1), epochs=1, validation_fraction=0)
    >>> scores = cross_val_score(regressor, split, split.labels, cv=2, scoring="neg_mean_absolute_error")
    >>> scores.shape
    (2,)
    """

    def __init__(self, model: Estimator, *, epochs: int = 50, validation_fraction: float = 0.1) -> None:
        self.model = model
        self.epochs = epochs
        self.validation_fraction = validation_fraction

    def fit(self, X: Utterances, y: npt.ArrayLike | None = None) -> Regressor:
        """Trains on utterances with the labels ``y`` ``(N,)``, or with their own.

        Raises:
            ConfigError: An argument is out of range.
            DataError: Utterances or labels are malformed, or all are of one video.
        """
        if not 0 <= self.validation_fraction < 1:
            raise ConfigError(
                f"validation_fraction must be 0 or more and below 1, got {self.validation_fraction!r}"
            )
        model = clone(self.model)
        known = X.label_range if isinstance(X, Split) else model.label_range_
        split = Split.from_items(X, y, label_range=known)
        train, valid = self._divided(split, model.config.train["seed"])
        model.fit(train, valid, epochs=self.epochs, progress=False)
        self.model_: Estimator = model
        return self

    def predict(self, X: Utterances) -> npt.NDArray[np.float32]:
        """Scores ``(N,)``, in the order of ``X``; labels are not read.

        Raises:
            sklearn.exceptions.NotFittedError: ``fit`` was not called.
            BatchError: The utterances can't be used.
        """
        check_is_fitted(self)
        items = [{name: value for name, value in item.items() if name != "labels"} for item in X]
        return self.model_.predict(Split.from_items(items)).score

    def _divided(self, split: Split, seed: int) -> tuple[Split, Split | None]:
        if self.validation_fraction == 0:
            return split, None
        videos = [video_of(name) for name in split.id]
        if len(set(videos)) < 2:
            raise DataError(
                "expected utterances of two videos or more to keep some for validation, got one: "
                "validation_fraction=0 trains without"
            )
        shares = GroupShuffleSplit(1, test_size=self.validation_fraction, random_state=seed % 2**32)
        train, valid = next(shares.split(np.zeros(len(split)), groups=videos))
        return split.subset(train), split.subset(valid)
