"""The range of a dataset's labels, and the scale that a model is trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from .errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MODEL_BOUND: Final = 3.0  # of labels that are mapped onto a model's scale
Values = Any  # a number, an array or a tensor; the result is of the same kind


class LabelRange(NamedTuple):
    """The lowest and the highest label that a dataset can have.

    A model is trained on labels in [-bound, bound]. Labels in [-h, h] with h up to 3 are used as they are;
    others are shifted and scaled to [-3, 3], and scores are mapped back.

    >>> LabelRange(-1, 1).bound, LabelRange(1, 5).bound, LabelRange(1, 5).scaled(4.0)
    (1, 3.0, 1.5)
    """

    low: float
    high: float

    @classmethod
    def checked(cls, value: Any) -> LabelRange:
        """A range from a pair of numbers.

        Raises:
            ConfigError: It is not a pair of finite numbers of which the first is lower.
        """
        try:
            low, high = (float(number) for number in value)
        except (TypeError, ValueError):
            raise ConfigError(
                f"expected a range of labels as a pair such as (-3, 3) or (1, 5), got {value!r}"
            ) from None
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigError(f"expected a range of labels from low to high, got ({low:g}, {high:g})")
        return cls(low, high)

    @property
    def bound(self) -> float:
        """The bound of the labels that a model is trained on, H in (34)."""
        return self.high if self._kept else MODEL_BOUND

    @property
    def _kept(self) -> bool:
        """Whether a model is trained on the labels as they are."""
        return -self.low == self.high <= MODEL_BOUND

    @property
    def unit(self) -> float:
        """The number of the dataset's units in one unit of the model's scale."""
        return (self.high - self.low) / (2 * self.bound)

    @property
    def _centre(self) -> float:
        return (self.low + self.high) / 2

    def scaled(self, labels: Values) -> Values:
        """Labels on the model's scale."""
        return labels if self._kept else (labels - self._centre) / self.unit

    def restored(self, scores: Values) -> Values:
        """Scores of the model in the dataset's unit."""
        return scores if self._kept else scores * self.unit + self._centre

    def outside(self, labels: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Which labels are not in the range, by more than rounding; NaN is not."""
        import numpy as np

        with np.errstate(invalid="ignore"):  # of a signalling NaN
            values = np.asarray(labels, np.float64)
        slack = 1e-4 * (self.high - self.low) / 6
        return ~((values >= self.low - slack) & (values <= self.high + slack))

    def __str__(self) -> str:
        return f"[{self.low:g}, {self.high:g}]"


MOSI: Final = LabelRange(-3.0, 3.0)  # CMU-MOSI and CMU-MOSEI
SIMS: Final = LabelRange(-1.0, 1.0)  # CH-SIMS and CH-SIMS v2
