"""The field's measures for CMU-MOSI and CMU-MOSEI, and those for CH-SIMS."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import DataError
from ..labels import MOSI, LabelRange
from ..pages import html
from .measures import SIMS, Family, Measure, family_in, family_of


class Metrics:
    """Measures of a set of predictions; accuracies and F1 are shares in [0, 1]. Nothing is rounded.

    The range of the labels decides which measures there are: [-1, 1] has those of CH-SIMS, every other range
    those of CMU-MOSI and CMU-MOSEI. An object has no attribute for a measure of the other family.

    Attributes:
        n: Number of utterances.
        mae: Mean absolute error in sentiment points, the unit of the labels.
        corr: Pearson correlation; NaN where either side is constant.
        acc5: Five classes. CMU-MOSI: both clipped to +-2 and rounded half to even. CH-SIMS: cuts at -0.7,
            -0.1, 0.1 and 0.7; a cut belongs to the class below it.
        has0_acc2: CMU-MOSI: binary accuracy over all: truth >= 0 against prediction >= 0 (left of "/" in the
            papers).
        has0_f1: CMU-MOSI: F1 of the same, weighted by support.
        non0_acc2: CMU-MOSI: binary accuracy where truth is not 0: truth > 0 against prediction > 0 (right of
            "/").
        non0_f1: CMU-MOSI: F1 of the same, weighted by support.
        acc7: CMU-MOSI: seven classes: both clipped to +-3 and rounded half to even.
        acc2: CH-SIMS: binary accuracy over all: truth > 0 against prediction > 0.
        acc3: CH-SIMS: three classes, cuts at -0.1 and 0.1.
        f1: CH-SIMS: F1 of the two classes of ``acc2``, weighted by support.

    All measures of CH-SIMS, ``mae`` and ``corr`` too, are of both sides clipped to [-1, 1]. Where labels have
    a range of their own, such as 1 to 5, they and the scores are mapped to [-3, 3] for the classes.

    >>> Metrics.of([-1.0, 0.0, 2.0], [-0.5, 0.5, 1.5]).mae
    0.5
    >>> Metrics.of([-1.0, 0.0, 0.6], [-0.8, -0.2, 0.8], label_range=(-1, 1)).acc3
    0.6666666666666666
    """

    n: int
    has0_acc2: float
    has0_f1: float
    non0_acc2: float
    non0_f1: float
    acc7: float
    acc2: float
    acc3: float
    acc5: float
    f1: float
    mae: float
    corr: float

    def __init__(self, n: int, **measures: float) -> None:
        vars(self).update(n=n, **measures)

    @classmethod
    def of(
        cls,
        truth: npt.ArrayLike,
        prediction: npt.ArrayLike,
        label_range: tuple[float, float] | None = None,
    ) -> Metrics:
        """Measures ``prediction`` against ``truth``, one score an utterance each.

        Args:
            truth: True scores.
            prediction: Predicted scores.
            label_range: The lowest and the highest possible label, [-3, 3] by default.

        Raises:
            DataError: Different or zero lengths, or a value that is not finite.
            ConfigError: ``label_range`` is no range.
        """
        scale = MOSI if label_range is None else LabelRange.checked(label_range)
        y = np.asarray(truth, dtype=np.float64).reshape(-1)
        p = np.asarray(prediction, dtype=np.float64).reshape(-1)
        if y.size == 0 or y.size != p.size:
            raise DataError(
                f"metrics need one prediction for each truth and at least one, got {y.size} truths and "
                f"{p.size} predictions"
            )
        for name, values in (("truth", y), ("prediction", p)):
            bad = int((~np.isfinite(values)).sum())
            if bad:
                raise DataError(f"metrics need finite scores, {name} holds {bad} that are not")
        measures = measured(y, p, scale)
        if np.isnan(measures["corr"]):
            clipped = ", clipped to [-1, 1]," if "acc2" in measures else ""
            warnings.warn(f"corr is NaN: truth or prediction{clipped} is constant", stacklevel=2)
        if np.isnan(measures.get("non0_acc2", 0)):
            warnings.warn(
                f"non0_acc2 and non0_f1 are NaN: every truth is {scale.restored(0.0):g}", stacklevel=2
            )
        return cls(y.size, **measures)

    def to_dict(self) -> dict[str, float]:
        """The measures by name, ``n`` included."""
        return dict(vars(self))

    @property
    def family(self) -> Family:
        """How the measures are shown."""
        return family_in(vars(self))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"measures can't be changed: {name}")

    if not TYPE_CHECKING:  # a type checker should refuse a name that is no measure

        def __getattr__(self, name: str) -> NoReturn:
            known = ", ".join(vars(self))
            raise AttributeError(f"{name!r} is not measured of these predictions, which have {known}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Metrics) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).items()))

    def __repr__(self) -> str:
        return f"Metrics({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def _repr_html_(self) -> str:
        """One row; the accuracies and F1 in per cent, as "has0 / non0" where there are both."""

        def text(name: str, measure: Measure) -> str:
            return html.number(measure.factor * getattr(self, name), 2 if measure.unit == "%" else 4)

        columns = ["n", *self.family.headings.values()]
        return html.table(columns, [[str(self.n), *self.family.cells(text).values()]])

    def __str__(self) -> str:
        texts = self.family.cells(lambda name, measure: measure.text(getattr(self, name)))
        return "  ".join([*(f"{title} {text}" for title, text in texts.items()), f"(n = {self.n})"])


def measured(
    truth: npt.NDArray[np.float64], prediction: npt.NDArray[np.float64], label_range: LabelRange
) -> dict[str, float]:
    """The measures by name of two arrays of equal length, not empty; NaN where one has no value."""
    if family_of(label_range) is SIMS:
        return dict(_core.metrics_of(truth, prediction, True))
    found = dict(_core.metrics_of(label_range.scaled(truth), label_range.scaled(prediction), False))
    return found | {"mae": found["mae"] * label_range.unit}


def spread(values: Sequence[float]) -> dict[str, float]:
    """``n``, ``mean``, sample standard deviation ``std`` (NaN of one value), ``min`` and ``max``, over seeds.

    >>> spread([1.0, 3.0])["mean"]
    2.0
    """
    return {
        "n": len(values),
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else float("nan"),
        "min": min(values),
        "max": max(values),
    }
