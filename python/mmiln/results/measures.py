"""The field's measures: their titles in tables, their units, and whether higher is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import labels
from ..labels import LabelRange


class Measure(NamedTuple):
    """How a measure of :class:`mmiln.Metrics` is shown and compared.

    Attributes:
        title: Such as ``Acc-2``, which the papers give by two conventions as "has0 / non0".
        convention: ``has0`` or ``non0`` where there are both.
        unit: The unit of a value times ``factor``.
        factor: 100 for a share in [0, 1], which tables show in per cent.
        decimals: Digits after the point in the papers' tables.
        rises: Whether a higher value is better.
    """

    title: str
    convention: str = ""
    unit: str = "%"
    factor: int = 100
    decimals: int = 2
    rises: bool = True

    @property
    def label(self) -> str:
        """Title and convention."""
        return f"{self.title} {self.convention}".rstrip()

    @property
    def heading(self) -> str:
        """Title and convention of numbers that ``factor`` multiplies."""
        return f"{self.label} (%)" if self.unit == "%" else self.label

    def text(self, value: float) -> str:
        """A value as text, a share in per cent; a dash for NaN."""
        if math.isnan(value):
            return "–"
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4f}"


class Classes(NamedTuple):
    """The classes of an accuracy.

    Attributes:
        names: Their names, from the most negative one.
        of: The class of each score of the model's scale, from 0.
    """

    names: tuple[str, ...]
    of: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.int64]]


class Family(NamedTuple):
    """The measures of a group of datasets.

    Attributes:
        measures: How each measure is shown, by its name in :class:`mmiln.Metrics`.
        paper: The titles in the papers' tables.
        classes: The classes of its accuracies, by their number.
    """

    measures: dict[str, Measure]
    paper: tuple[str, ...]
    classes: dict[int, Classes]

    @property
    def headings(self) -> dict[str, str]:
        """Headings of a table's columns, by title."""
        return {m.title: f"{m.title} (%)" if m.unit == "%" else m.title for m in self.measures.values()}

    @property
    def binary(self) -> dict[str, str]:
        """Names of the binary accuracies by convention: ``has0`` and ``non0``, or the only one, ``acc2``."""
        return {m.convention or name: name for name, m in self.measures.items() if m.title == "Acc-2"}

    def cells(
        self, text: Callable[[str, Measure], str], titles: Iterable[str] | None = None
    ) -> dict[str, str]:
        """The texts of each title's measures, as "has0 / non0" where there are both; by default of all."""
        return {
            title: " / ".join(text(name, m) for name, m in self.measures.items() if m.title == title)
            for title in titles or self.headings
        }


def _rounded(bound: int) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
    """Scores clipped to ``bound`` and rounded half to even, as classes from 0."""
    return lambda scores: np.rint(np.clip(scores, -bound, bound)).astype(np.int64) + bound


def _cut(*cuts: float) -> Callable[[npt.NDArray[np.float64]], npt.NDArray[np.int64]]:
    """The index of the interval, open below and closed above, of scores rounded to float32."""
    return lambda scores: np.searchsorted(cuts, scores.astype(np.float32).astype(np.float64))


_TWO: Final = ("negative", "positive")
_FIVE: Final = ("negative", "weakly negative", "neutral", "weakly positive", "positive")
_COMMON: Final = {
    "mae": Measure("MAE", unit="sentiment points", factor=1, decimals=3, rises=False),
    "corr": Measure("Corr", unit="", factor=1, decimals=3),
}
#: CMU-MOSI, CMU-MOSEI and all datasets that are not CH-SIMS.
MOSI: Final = Family(
    _COMMON
    | {
        "has0_acc2": Measure("Acc-2", "has0"),
        "non0_acc2": Measure("Acc-2", "non0"),
        "has0_f1": Measure("F1", "has0"),
        "non0_f1": Measure("F1", "non0"),
        "acc7": Measure("Acc-7"),
        "acc5": Measure("Acc-5"),
    },
    paper=("MAE", "Corr", "Acc-2", "F1", "Acc-7"),
    classes={
        2: Classes(_TWO, lambda scores: (scores >= 0).astype(np.int64)),
        5: Classes(_FIVE, _rounded(2)),
        7: Classes(("strongly negative", *_FIVE, "strongly positive"), _rounded(3)),
    },
)
#: CH-SIMS and CH-SIMS v2.
SIMS: Final = Family(
    _COMMON
    | {
        "acc2": Measure("Acc-2"),
        "acc3": Measure("Acc-3"),
        "acc5": Measure("Acc-5"),
        "f1": Measure("F1"),
    },
    paper=("MAE", "Corr", "Acc-2", "Acc-3", "Acc-5", "F1"),
    classes={
        2: Classes(_TWO, _cut(0)),
        3: Classes(("negative", "neutral", "positive"), _cut(-0.1, 0.1)),
        5: Classes(_FIVE, _cut(-0.7, -0.1, 0.1, 0.7)),
    },
)
#: The measures of both families by name.
MEASURES: Final = MOSI.measures | SIMS.measures
#: Pseudo-labels against the labels that people gave to a modality, by name in a history.
AGAINST_HUMAN: Final = {
    f"pseudo_{name}_{modality}": f"{MEASURES[name].title}, {modality}"
    for name in ("mae", "corr")
    for modality in ("audio", "vision")
}


def family_of(label_range: LabelRange) -> Family:
    """The family of a dataset whose labels lie in this range."""
    return SIMS if label_range == labels.SIMS else MOSI


def family_in(names: Container[str]) -> Family:
    """The family that measures of these names belong to, or, as ``valid_*``, the lists of a history."""
    return SIMS if "acc2" in names or "valid_acc2" in names else MOSI
