"""Measures against MMSA's evaluation, on random scores and at every edge where definitions could differ."""

import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import mmiln
from reference import mmsa

Doubles = NDArray[np.float64]
Drawn = tuple[Doubles, Doubles]

RANGES: dict[str, tuple[float, float]] = {"mosi": (-3, 3), "mosei": (-3, 3), "sims": (-1, 1)}
ORACLES = {"mosi": mmsa.mosi, "mosei": mmsa.mosi, "sims": mmsa.sims}


def continuous(rng: np.random.Generator, bound: float) -> Drawn:
    truth = rng.uniform(-bound, bound, 300)
    return truth, truth + rng.normal(0, bound / 3, 300)


def steps(rng: np.random.Generator, bound: float) -> Drawn:
    """Labels as annotators give them, and scores that are labels too: zeros, halves and cuts among them."""
    fifths, tenths = rng.integers(-5, 6, 300) / 5, rng.integers(-10, 11, 300) / 10
    return bound * fifths, bound * tenths


def thirds(rng: np.random.Generator, bound: float) -> Drawn:
    """CMU-MOSEI's labels."""
    return bound * rng.integers(-9, 10, 300) / 9, bound * rng.integers(-18, 19, 300) / 18


def cuts(rng: np.random.Generator, bound: float) -> Drawn:
    """The cuts, their neighbours in float32, and both zeros."""
    at = np.array([-0.7, -0.1, 0.0, -0.0, 0.1, 0.7, 1, -1, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5], np.float32)
    near = np.concatenate([at, np.nextafter(at, np.float32(9)), np.nextafter(at, np.float32(-9))])
    truth = near[np.abs(near) <= bound]
    return rng.choice(truth, 600).astype(float), rng.choice(near, 600).astype(float)


def in_double_precision(rng: np.random.Generator, bound: float) -> Drawn:
    """Cuts that only float64 can tell from their neighbours."""
    at = rng.choice([-0.7, -0.1, 0.1, 0.7], 300)
    return at, at + rng.choice([-1e-12, 0, 1e-12], 300)


def beyond(rng: np.random.Generator, bound: float) -> Drawn:
    return rng.uniform(-bound, bound, 300), rng.normal(0, 3 * bound, 300)


def one_class(rng: np.random.Generator, bound: float) -> Drawn:
    return rng.uniform(0.2, 1, 50), rng.uniform(0.1, 1, 50)


def the_other_class(rng: np.random.Generator, bound: float) -> Drawn:
    return rng.uniform(0.2, 1, 50), -rng.uniform(0.1, 1, 50)


def constant_score(rng: np.random.Generator, bound: float) -> Drawn:
    return rng.uniform(-bound, bound, 50), np.full(50, 0.1)


def constant_truth(rng: np.random.Generator, bound: float) -> Drawn:
    return np.full(50, 0.7), rng.uniform(-bound, bound, 50)


def both_constant(rng: np.random.Generator, bound: float) -> Drawn:
    return np.full(50, 0.25), np.full(50, 0.25)


def constant_once_clipped(rng: np.random.Generator, bound: float) -> Drawn:
    """Scores that all leave the range have no correlation where they are clipped."""
    return rng.uniform(-bound, bound, 50), rng.uniform(4, 5, 50)


def two_utterances(rng: np.random.Generator, bound: float) -> Drawn:
    return bound * np.array([0.5, -1]), bound * np.array([0.4, 1.2])


KINDS = [
    continuous, steps, thirds, cuts, in_double_precision, beyond, one_class, the_other_class,
    constant_score, constant_truth, both_constant, constant_once_clipped, two_utterances,
]  # fmt: skip


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("kind", KINDS)
def test_measures_are_mmsa_s(kind: Callable[..., Drawn], name: str) -> None:
    for seed in range(8):
        truth, score = kind(np.random.default_rng(seed), RANGES[name][1])
        with warnings.catch_warnings(action="ignore"):  # no correlation, from numpy and from us
            expected = ORACLES[name](truth, score)
            found = mmiln.Metrics.of(truth, score, RANGES[name]).to_dict()
        assert found.pop("n") == len(truth)
        # numpy's correlation of a constant is NaN, or noise where the mean is rounded.
        clipped = [np.clip(side, *RANGES[name]) if name == "sims" else side for side in (truth, score)]
        if any(len(set(side)) == 1 for side in clipped):
            assert math.isnan(found.pop("corr"))
            del expected["corr"]
        assert found == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize(
    ("cut", "rises"), [(0.1, True), (-0.1, False), (0.7, False), (-0.7, True)]
)  # fmt: skip
def test_scores_at_the_cuts(cut: float, rises: bool) -> None:
    """In float32 a score at a cut is a little above or below it."""
    at = float(np.float32(cut))
    assert (at > cut) is rises
    for other, same in ((cut - 0.05, not rises), (cut + 0.05, rises)):
        assert mmiln.Metrics.of([at, 0.9], [other, 0.9], (-1, 1)).acc5 == (1 if same else 0.5)
