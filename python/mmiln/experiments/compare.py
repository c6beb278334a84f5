"""Compares two models on the same utterances and seeds: their differences, with confidence intervals."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..labels import MOSI, LabelRange
from ..results.measures import family_of
from ..results.metrics import measured

Doubles = npt.NDArray[np.float64]

RESAMPLES: Final = 5000
CONFIDENCE: Final = 0.95


@dataclass(frozen=True)
class Scores:
    """The scores of one model for N utterances, for each seed.

    Attributes:
        id: Ids of the utterances.
        truth: True scores ``(N,)``.
        by_seed: Predicted scores ``(N,)`` by seed.
        label_range: The range of the labels.
    """

    id: tuple[str, ...]
    truth: Doubles
    by_seed: dict[int, Doubles]
    label_range: LabelRange = MOSI

    def measures(self) -> dict[int, dict[str, float]]:
        """The field's measures by seed; NaN where one has no value."""
        return {seed: measured(self.truth, score, self.label_range) for seed, score in self.by_seed.items()}


@dataclass(frozen=True)
class Difference:
    """A measure of the first model minus that of the second, as the mean over seeds.

    Attributes:
        low, high: Ends of the confidence interval.
    """

    value: float
    low: float
    high: float

    @property
    def separated(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class McNemar:
    """McNemar's test for one seed, of utterances that only one of two models classifies correctly.

    Attributes:
        only_first, only_second: Utterances that one model alone gets right.
        p: Exact two-sided probability of a split at least this uneven, if both had equal accuracy.
    """

    only_first: int
    only_second: int
    p: float


@dataclass(frozen=True)
class Comparison:
    """The first model against the second, on ``n`` utterances.

    Attributes:
        seeds: Seeds that both models were trained with.
        differences: Differences by measure.
        mcnemar: Tests by convention (``has0``, ``non0``; of CH-SIMS ``acc2``) and seed.
    """

    n: int
    seeds: tuple[int, ...]
    differences: dict[str, Difference]
    mcnemar: dict[str, dict[int, McNemar]]


def compare(first: Scores, second: Scores) -> Comparison:
    """A paired bootstrap over utterances of the difference in every measure, and McNemar's exact tests.

    A resample draws utterances with replacement and takes both models' scores of all common seeds for
    them; the difference is the mean over seeds. So an interval covers the choice of utterances, for these
    seeds: reports show the spread over seeds beside it.

    Raises:
        DataError: The models were not tested on the same utterances, or share no seed.
    """
    if first.id != second.id or not np.array_equal(first.truth, second.truth):
        raise DataError("a paired comparison needs the same utterances with the same truth on both sides")
    seeds = tuple(seed for seed in first.by_seed if seed in second.by_seed)
    if not seeds:
        raise DataError(
            f"a paired comparison needs common seeds, got {list(first.by_seed)} and {list(second.by_seed)}"
        )
    return Comparison(
        n=len(first.id),
        seeds=seeds,
        differences=_bootstrap(first, second, seeds),
        mcnemar={
            convention: {seed: _mcnemar(first, second, seed, convention) for seed in seeds}
            for convention in family_of(first.label_range).binary
        },
    )


def _bootstrap(first: Scores, second: Scores, seeds: tuple[int, ...]) -> dict[str, Difference]:
    from scipy import stats

    truth = first.truth
    pairs = [(first.by_seed[seed], second.by_seed[seed]) for seed in seeds]
    names = list(measured(truth, pairs[0][0], first.label_range))

    def values_of(truth: Doubles, score: Doubles) -> Doubles:
        return np.array(list(measured(truth, score, first.label_range).values()))

    def difference(drawn: npt.NDArray[np.int64]) -> Doubles:
        y = truth[drawn]
        each = [values_of(y, a[drawn]) - values_of(y, b[drawn]) for a, b in pairs]
        return np.asarray(np.mean(each, axis=0))

    everything = np.arange(len(truth))
    with warnings.catch_warnings():
        # A constant has no correlation, which NaN reports.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (everything,),
            difference,
            vectorized=False,
            method="percentile",
            n_resamples=RESAMPLES,
            confidence_level=CONFIDENCE,
            rng=np.random.default_rng(0),
        ).confidence_interval
    values = difference(everything)
    rows = zip(names, values, np.asarray(interval.low), np.asarray(interval.high), strict=True)
    return {name: Difference(float(value), float(low), float(high)) for name, value, low, high in rows}


def _mcnemar(first: Scores, second: Scores, seed: int, convention: str) -> McNemar:
    """McNemar (1947), exact: under equal accuracy discordant utterances split like tosses of a fair coin."""
    from scipy import stats

    def positive(values: Doubles) -> npt.NDArray[np.bool_]:
        scaled: Doubles = first.label_range.scaled(values)
        return scaled >= 0 if convention == "has0" else scaled > 0

    neutral = first.label_range.scaled(first.truth) == 0
    counted = ~neutral if convention == "non0" else np.ones_like(neutral)
    truth = positive(first.truth)
    right = [positive(scores.by_seed[seed]) == truth for scores in (first, second)]
    only_first = int((counted & right[0] & ~right[1]).sum())
    only_second = int((counted & right[1] & ~right[0]).sum())
    discordant = only_first + only_second
    p = stats.binomtest(only_first, discordant, 0.5).pvalue if discordant else 1.0
    return McNemar(only_first, only_second, float(p))
