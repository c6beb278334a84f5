"""How sure a score is: intervals and probabilities of classes, from the errors on labelled utterances."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..labels import LabelRange
from .measures import Classes

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """The errors of a model on utterances that it was not trained on.

    Attributes:
        residuals: Label minus score, ``(n,)``, in increasing order.
    """

    residuals: Doubles

    def __repr__(self) -> str:
        return f"Calibration({len(self.residuals)} utterances)"

    @classmethod
    def read(cls, values: Any) -> Calibration:
        """From the list of numbers that a saved model has.

        Raises:
            ConfigError: It is no such list.
        """
        try:
            residuals = np.asarray(values, np.float64)
        except (TypeError, ValueError, OverflowError):
            residuals = np.zeros(0)
        if residuals.ndim != 1 or not residuals.size or not np.isfinite(residuals).all():
            raise ConfigError("the residuals of a saved model must be a list of finite numbers")
        return cls(np.sort(residuals))

    def margin(self, level: float) -> float:
        """Half the width of an interval around a score that holds the label with this probability.

        It is the ceil((n + 1) level)-th smallest absolute residual: split conformal prediction (Lei et al.,
        2018, Algorithm 2), whose probability is at least ``level`` for a label that is exchangeable with
        those of the residuals.

        Raises:
            ConfigError: ``level`` is not between 0 and 1, or there are too few residuals for it.
        """
        if not isinstance(level, (int, float)) or not 0 < level < 1:
            raise ConfigError(f"interval must be a probability between 0 and 1 such as 0.9, got {level!r}")
        n = len(self.residuals)
        place = math.ceil(round((n + 1) * level, 9))  # 9.000000000000002 is meant to be 9
        if place > n:
            needed, most = math.ceil(round(level / (1 - level), 9)), math.floor(100 * n / (n + 1)) / 100
            raise ConfigError(
                f"interval={level} needs a model that was calibrated on {needed} labelled utterances or "
                f"more, got {n}: calibrate on more, or give interval={most:g} or less"
            )
        return float(np.sort(np.abs(self.residuals))[place - 1])

    def probabilities(self, score: npt.NDArray[Any], classes: Classes, label_range: LabelRange) -> Doubles:
        """For N scores ``(N, C)``: the share of residuals that, added to the score, end in each class."""
        shares = np.empty((len(score), len(classes.names)))
        for row, value in zip(shares, score.astype(np.float64), strict=True):
            found = classes.of(label_range.scaled(value + self.residuals))
            row[:] = np.bincount(found, minlength=len(row)) / len(found)
        return shares
