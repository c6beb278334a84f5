"""Scores of a dataset's utterances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import BatchError, ConfigError, DataError
from ..labels import MOSI, LabelRange
from ..pages import html
from .calibration import Calibration
from .measures import family_of
from .metrics import Metrics

if TYPE_CHECKING:
    import pandas as pd

WORST: Final = 5  # shown in notebooks


@dataclass(frozen=True, repr=False)
class Predictions:
    """Scores in dataset order where the batches carry indices, else in the order of the loader.

    Attributes:
        score: Predicted sentiment, float32 ``(N,)``.
        id: Names of the utterances, or ``None``.
        index: Positions in the dataset, or ``None``.
        label: True scores, or ``None``.
        label_range: The lowest and the highest possible score; labels and scores are in its unit.
        classes: Names of the classes ``(N,)``, or ``None``: see :meth:`with_classes`.
        probabilities: Of each class by its name, ``(N,)`` each, or ``None``.
        low, high: Ends of the intervals ``(N,)``, or ``None``: see :meth:`with_interval`.
    """

    score: npt.NDArray[np.float32]
    id: list[str] | None = None
    index: npt.NDArray[np.int64] | None = None
    label: npt.NDArray[np.float32] | None = None
    label_range: LabelRange = MOSI
    classes: npt.NDArray[np.str_] | None = None
    probabilities: dict[str, npt.NDArray[np.float64]] | None = None
    low: npt.NDArray[np.float32] | None = None
    high: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.score, dtype=dtype, copy=True if copy is None else copy)

    @classmethod
    def mean_of(cls, several: Sequence[Predictions]) -> Predictions:
        """The mean of several models' scores of the same utterances, an ensemble.

        Raises:
            DataError: They are of different utterances, or there are none.
        """
        if not several:
            raise DataError("the mean of predictions needs at least one")
        first = several[0]
        for other in several[1:]:
            for name in ("id", "index", "label", "label_range"):
                if len(first) != len(other) or not np.array_equal(getattr(first, name), getattr(other, name)):
                    raise DataError(
                        "the mean of several models' scores needs predictions of the same utterances, but "
                        f"{name} differs"
                    )
        scores = [each.score for each in several]
        mean = np.asarray(np.mean(scores, axis=0, dtype=np.float64), np.float32)
        return cls(mean, first.id, first.index, first.label, first.label_range)

    def measured(self) -> Metrics:
        """Measures of the scores against the labels.

        Raises:
            BatchError: There are no labels.
        """
        if self.label is None:
            raise BatchError("evaluation needs labels in every batch")
        return Metrics.of(self.label, self.score, self.label_range)

    def calibration(self) -> Calibration:
        """The errors of the scores.

        Raises:
            BatchError: There are no labels.
        """
        if self.label is None:
            raise BatchError("calibration needs labels in every batch")
        return Calibration(np.sort(-self._errors()))

    def with_classes(self, count: int, calibration: Calibration | None = None) -> Predictions:
        """The same with each score's class, and with a calibration the probability of each class.

        The classes are those of the accuracy of ``count`` classes: 2, 5 or 7, of CH-SIMS 2, 3 or 5. The
        probability of one is the share of the calibration's residuals that, added to the score, end in it.

        Raises:
            ConfigError: The measures of these labels have no such number of classes.
        """
        known = family_of(self.label_range).classes
        if count not in known:
            counts = ", ".join(map(str, known))
            raise ConfigError(
                f"classes must be one of {counts}, the numbers of classes that the measures of labels in "
                f"{self.label_range} have, got {count!r}"
            )
        classes = known[count]
        found = classes.of(self.label_range.scaled(self.score.astype(np.float64)))
        named = replace(self, classes=np.array(classes.names)[found])
        if calibration is None:
            return named
        shares = calibration.probabilities(self.score, classes, self.label_range)
        return replace(named, probabilities=dict(zip(classes.names, shares.T, strict=True)))

    def with_interval(self, margin: float) -> Predictions:
        """The same with intervals of ``margin`` to both sides of each score, within the range of labels."""
        low, high = (np.clip(self.score + d, *self.label_range).astype(np.float32) for d in (-margin, margin))
        return replace(self, low=low, high=high)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """What is known of each utterance beside names and truth, by column: ``score``, ``low``, ``high``,
        ``class``, and ``p_<class>`` for each class's probability.
        """
        columns = {"score": self.score, "low": self.low, "high": self.high, "class": self.classes}
        shares = {f"p_{name}": values for name, values in (self.probabilities or {}).items()}
        return {name: values for name, values in columns.items() if values is not None} | shares

    def to_pandas(self) -> pd.DataFrame:
        """A frame of ``id``, ``index`` and ``label``, where they are known, and of :meth:`columns`."""
        import pandas as pd

        columns = {"id": self.id, "index": self.index, "label": self.label, **self.columns()}
        return pd.DataFrame({name: values for name, values in columns.items() if values is not None})

    def __repr__(self) -> str:
        known = ", ".join(name for name in ("id", "index", "label") if getattr(self, name) is not None)
        shown = f"Predictions({len(self)} scores, mean {self.score.mean():.4g}"
        if self.label is not None:
            shown += f", MAE {np.abs(self._errors()).mean():.4g}"
        return f"{shown}; {known or 'scores alone'})"

    def _errors(self) -> npt.NDArray[np.float64]:
        return self.score.astype(np.float64) - np.asarray(self.label, np.float64)

    def _repr_html_(self) -> str:
        """The utterances with the largest errors; without labels, the first."""
        columns = {"id": self.id, "index": self.index}
        names = {name: values for name, values in columns.items() if values is not None}
        if self.label is None:
            shown = np.arange(min(WORST, len(self)))
            numbers: dict[str, npt.NDArray[Any]] = {"score": self.score}
            caption = f"The first {len(shown)} of {len(self)} utterances"
        else:
            errors = self._errors()
            shown = np.argsort(-np.abs(errors), kind="stable")[:WORST]
            numbers = {"label": self.label, "score": self.score, "error": errors}
            caption = f"The {len(shown)} largest errors of {len(self)} utterances"
        rows = [
            [*(values[i] for values in names.values()), *(html.number(v[i], 2) for v in numbers.values())]
            for i in shown
        ]
        return html.code(self) + html.table([*names, *numbers], rows, caption)
