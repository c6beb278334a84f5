"""Paired comparisons against the plain way to compute them."""

import math

import numpy as np
import pytest

import mmiln
from mmiln.errors import DataError
from mmiln.experiments import Scores, compare
from mmiln.experiments.compare import McNemar

N = 120


def scores(noise: float, seeds: tuple[int, ...] = (1, 2, 3), stream: int = 0) -> Scores:
    rng = np.random.default_rng(0)
    truth = np.round(rng.uniform(-3, 3, N) * 5) / 5
    truth[:9] = 0
    ids = tuple(f"u{i}" for i in range(N))
    errors = {seed: noise * np.random.default_rng([seed, stream]).standard_normal(N) for seed in seeds}
    return Scores(ids, truth, {seed: truth + error for seed, error in errors.items()})


def test_the_difference_is_the_mean_over_common_seeds():
    first, second = scores(0.5, (1, 2, 3)), scores(1.5, (3, 2, 7))
    found = compare(first, second)
    assert found.seeds == (2, 3)
    assert found.n == N
    for name, difference in found.differences.items():
        expected = np.mean(
            [
                mmiln.Metrics.of(first.truth, first.by_seed[s]).to_dict()[name]
                - mmiln.Metrics.of(second.truth, second.by_seed[s]).to_dict()[name]
                for s in (2, 3)
            ]
        )
        assert difference.value == pytest.approx(expected, abs=1e-12)
        assert difference.low <= difference.value <= difference.high
    assert found.differences["mae"].separated
    assert found.differences["mae"].high < 0 < found.differences["corr"].low


def test_the_interval_is_that_of_resampled_utterances():
    """The percentiles of a bootstrap written down plainly, with other draws."""
    first, second = scores(0.9), scores(1.0)
    found = compare(first, second).differences["mae"]
    error = np.mean(
        [
            np.abs(first.by_seed[s] - first.truth) - np.abs(second.by_seed[s] - second.truth)
            for s in (1, 2, 3)
        ],
        axis=0,
    )
    rng = np.random.default_rng(7)
    means = error[rng.integers(N, size=(20_000, N))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.05 * (high - low))
    assert found.high == pytest.approx(high, abs=0.05 * (high - low))


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    covered = 0
    for trial in range(40):
        rng = np.random.default_rng(100 + trial)
        truth = rng.uniform(-3, 3, 100)
        # Errors of equal size on average: the true difference in MAE is 0.
        a, b = (Scores(("u",) * 100, truth, {1: truth + rng.standard_normal(100)}) for _ in range(2))
        difference = compare(a, b).differences["mae"]
        covered += difference.low <= 0 <= difference.high
    assert covered >= 33  # of 40; fewer has a probability below 1 in 1000 at 95 %


def test_a_model_does_not_differ_from_itself():
    found = compare(scores(1.0), scores(1.0))
    assert all((d.value, d.low, d.high) == (0, 0, 0) and not d.separated for d in found.differences.values())
    assert all(test.p == 1 for tests in found.mcnemar.values() for test in tests.values())


def test_mcnemar_counts_the_utterances_that_one_alone_gets_right():
    first, second = scores(1.2, (1,)), scores(4.0, (1,), stream=1)
    found = compare(first, second).mcnemar
    for convention, test in (("has0", found["has0"][1]), ("non0", found["non0"][1])):
        only = [0, 0]
        for y, a, b in zip(first.truth, first.by_seed[1], second.by_seed[1], strict=True):
            if convention == "non0" and y == 0:
                continue
            right = [(p >= 0) == (y >= 0) if convention == "has0" else (p > 0) == (y > 0) for p in (a, b)]
            if right[0] != right[1]:
                only[right.index(True)] += 1
        n, k = sum(only), min(only)
        p = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
        assert test == McNemar(only[0], only[1], pytest.approx(p, rel=1e-9))
        assert test.only_first > test.only_second > 0
        assert test.p < 0.05


def test_what_can_t_be_compared_is_refused():
    first = scores(1.0)
    other = Scores(first.id[::-1], first.truth, first.by_seed)
    with pytest.raises(DataError, match="same utterances"):
        compare(first, other)
    with pytest.raises(DataError, match="common seeds"):
        compare(scores(1.0, (1,)), scores(1.0, (2,)))
