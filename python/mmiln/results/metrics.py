"""The field's measures for CMU-MOSI and CMU-MOSEI."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from .. import _core
from ..errors import DataError
from ..pages import html
from .measures import HEADINGS, Measure, cells


@dataclass(frozen=True)
class Metrics:
    """Measures of a set of predictions; accuracies and F1 are shares in [0, 1]. Nothing is rounded.

    Attributes:
        n: Number of utterances.
        has0_acc2: Binary accuracy over all: truth >= 0 against prediction >= 0 (left of "/" in the papers).
        has0_f1: F1 of the same, weighted by support.
        non0_acc2: Binary accuracy where truth is not 0: truth > 0 against prediction > 0 (right of "/").
        non0_f1: F1 of the same, weighted by support.
        acc7: Seven classes: both clipped to +-3 and rounded half to even.
        acc5: Five classes: the same with +-2.
        mae: Mean absolute error in sentiment points.
        corr: Pearson correlation; NaN where either side is constant.

    >>> Metrics.of([-1.0, 0.0, 2.0], [-0.5, 0.5, 1.5]).mae
    0.5
    """

    n: int
    has0_acc2: float
    has0_f1: float
    non0_acc2: float
    non0_f1: float
    acc7: float
    acc5: float
    mae: float
    corr: float

    @classmethod
    def of(cls, truth: npt.ArrayLike, prediction: npt.ArrayLike) -> Metrics:
        """Measures ``prediction`` against ``truth``, one score an utterance each.

        Raises:
            DataError: Different or zero lengths, or a value that is not finite.
        """
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
        measures = dict(_core.metrics_of(y, p))
        if np.isnan(measures["corr"]):
            warnings.warn("corr is NaN: truth or prediction is constant", stacklevel=2)
        if np.isnan(measures["non0_acc2"]):
            warnings.warn("non0_acc2 and non0_f1 are NaN: every truth is 0", stacklevel=2)
        return cls(n=y.size, **measures)

    def to_dict(self) -> dict[str, float]:
        """The measures by name, ``n`` included."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """One row; the accuracies and F1 as "has0 / non0", in per cent."""

        def text(name: str, measure: Measure) -> str:
            return html.number(measure.factor * getattr(self, name), 2 if measure.unit == "%" else 4)

        return html.table(["n", *HEADINGS.values()], [[str(self.n), *cells(text).values()]])

    def __str__(self) -> str:
        texts = cells(lambda name, measure: measure.text(getattr(self, name)))
        return "  ".join([*(f"{title} {text}" for title, text in texts.items()), f"(n = {self.n})"])


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
