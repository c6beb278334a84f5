"""Classes by the cuts of the measures, probabilities and intervals by residuals."""

import copy
import math
import re
from typing import Any

import numpy as np
import pytest

import mmiln
from mmiln.baselines import Baseline
from mmiln.errors import BatchError, ConfigError, StateError
from mmiln.labels import MOSI, SIMS, LabelRange
from mmiln.results.calibration import Calibration
from mmiln.results.measures import family_of
from support.small_runs import TINY

EDGES = {
    MOSI: [-4.0, -2.5, -1.5, -0.5, -1e-9, 0.0, 0.5, 1.5, 2.5, 3.5],
    SIMS: [-2.0, -0.7, -0.1, 0.0, 0.1, 0.7, np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1))],
}


def predictions(score: Any, label: Any = None, label_range: LabelRange = MOSI) -> mmiln.Predictions:
    truth = None if label is None else np.asarray(label, np.float32)
    return mmiln.Predictions(np.asarray(score, np.float32), label=truth, label_range=label_range)


@pytest.mark.parametrize(
    ("label_range", "count", "accuracy"),
    [(MOSI, 2, "has0_acc2"), (MOSI, 5, "acc5"), (MOSI, 7, "acc7"), (SIMS, 2, "acc2"), (SIMS, 3, "acc3"),
     (SIMS, 5, "acc5"), (LabelRange(1, 5), 2, "has0_acc2"), (LabelRange(1, 5), 7, "acc7")],
)  # fmt: skip
def test_classes_are_those_of_the_accuracy(label_range: LabelRange, count: int, accuracy: str) -> None:
    rng = np.random.default_rng(0)
    low, high = label_range
    scores = rng.uniform(low - 0.5, high + 0.5, 500)
    truths = rng.uniform(low, high, 500)
    edges = np.array(EDGES.get(label_range, [3.0, 1.0, 2.0]))
    for truth, score in [(truths, scores), *((np.full(len(edges), edge), edges) for edge in edges)]:
        mine = predictions(score, truth, label_range).with_classes(count).classes
        its = predictions(truth, label_range=label_range).with_classes(count).classes
        expected = mmiln.results.metrics.measured(
            truth.astype(np.float32).astype(float), score.astype(np.float32).astype(float), label_range
        )
        assert (mine == its).mean() == pytest.approx(expected[accuracy])
    assert (
        len(set(predictions(np.linspace(low, high, 99), None, label_range).with_classes(count).classes))
        == count
    )


def test_names_of_classes() -> None:
    assert predictions([-0.4, 0.0, 2.6]).with_classes(2).classes.tolist() == [
        "negative",
        "positive",
        "positive",
    ]
    assert predictions([-3.0, 0.4, 1.2]).with_classes(7).classes.tolist() == [
        "strongly negative", "neutral", "weakly positive",
    ]  # fmt: skip
    of_three = predictions([-0.4, 0.0, 0.2], label_range=SIMS).with_classes(3)
    assert of_three.to_pandas()["class"].tolist() == ["negative", "neutral", "positive"]
    for label_range, count, known in ((MOSI, 3, "2, 5, 7"), (SIMS, 7, "2, 3, 5"), (MOSI, "7", "2, 5, 7")):
        with pytest.raises(ConfigError, match=f"one of {known}, .*, got {count!r}"):
            predictions([0.0], label_range=label_range).with_classes(count)


def test_probabilities_by_hand() -> None:
    known = predictions([0.0] * 4, [-1.0, -0.2, 0.4, 1.0]).calibration()
    np.testing.assert_allclose(known.residuals, [-1.0, -0.2, 0.4, 1.0])
    found = predictions([-0.3, 0.5, 5.0]).with_classes(2, known)
    # -1.3 -0.5 0.1 0.7; -0.5 0.3 0.9 1.5; all above
    np.testing.assert_allclose(found.probabilities["positive"], [0.5, 0.75, 1.0])
    np.testing.assert_allclose(found.probabilities["negative"], [0.5, 0.25, 0.0])
    frame = predictions([0.5]).with_classes(7, known).to_pandas()
    # -0.5 0.3 0.9 1.5 round to 0 0 1 2
    shares = frame.filter(like="p_").iloc[0]
    assert shares.to_dict() == {
        "p_strongly negative": 0, "p_negative": 0, "p_weakly negative": 0, "p_neutral": 0.5,
        "p_weakly positive": 0.25, "p_positive": 0.25, "p_strongly positive": 0,
    }  # fmt: skip


def test_margins_by_hand() -> None:
    residuals = np.array([0.5, -0.1, 0.2, -0.9, 0.3, -0.4, 0.6, -0.7, 0.8])
    known = Calibration.read(residuals.tolist())
    for level, place in ((0.9, 9), (0.5, 5), (0.1, 1), (0.81, 9), (0.3, 3)):
        assert known.margin(level) == np.sort(np.abs(residuals))[place - 1]
    with pytest.raises(ConfigError, match=r"interval=0.95 .* 19 labelled .*, got 9: .* interval=0.9 or less"):
        known.margin(0.95)
    for wrong in (0, 1, 90, -0.1, math.nan, "0.9"):
        with pytest.raises(ConfigError, match=re.escape(f"between 0 and 1 such as 0.9, got {wrong!r}")):
            known.margin(wrong)
    found = predictions([0.0, 2.9]).with_interval(0.5)
    np.testing.assert_allclose(found.low, [-0.5, 2.4], rtol=1e-6)
    np.testing.assert_allclose(found.high, [0.5, 3.0], rtol=1e-6)


def test_intervals_hold_the_label_as_often_as_promised() -> None:
    """Of exchangeable errors, whatever their distribution: ceil((n + 1) level) / (n + 1) of the labels."""
    rng = np.random.default_rng(1)
    for n, level, expected in ((99, 0.9, 0.9), (30, 0.8, 25 / 31)):
        held = []
        for _ in range(2000):
            errors = rng.standard_t(3, n + 20) + 0.5
            margin = Calibration.read(errors[:n]).margin(level)
            held.append((np.abs(errors[n:]) <= margin).mean())
        assert np.mean(held) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("values", [[], "abc", [1.0, None], [math.nan], {"a": 1}, [[1.0]], 3.0, [10**400]])
def test_what_are_no_residuals(values: Any) -> None:
    with pytest.raises(ConfigError, match="must be a list of finite numbers"):
        Calibration.read(values)


@pytest.mark.parametrize("build", [lambda: mmiln.Model("mosi", **TINY), lambda: Baseline("lmf")])
def test_a_model_keeps_its_errors(build: Any, tmp_path: Any) -> None:
    data, fit = mmiln.data.synthetic(24, 12, 10), {"epochs": 1, "progress": False}
    model = build()
    model.fit(data.train, data.valid, **fit)
    with pytest.raises(StateError, match=r"call calibrate\(valid\) after fit\(\)"):
        model.predict(data.test, interval=0.9)
    assert model.predict(data.test, classes=7).probabilities is None
    known = model.calibrate(data.valid)
    np.testing.assert_array_equal(
        known.residuals, np.sort(data.valid.truth.astype(float) - model.predict(data.valid).score)
    )
    found = model.predict(data.test, classes=7, interval=0.9)
    np.testing.assert_allclose(found.high - found.score, known.margin(0.9), rtol=1e-4)
    assert sum(found.probabilities.values()) == pytest.approx(np.ones(10))
    model.save_pretrained(tmp_path)
    for again in (mmiln.load_pretrained(tmp_path), copy.deepcopy(model)):
        other = again.predict(data.test, classes=7, interval=0.9).to_pandas()
        assert other.equals(found.to_pandas())
    model.fit(data.train, **fit)
    assert model.calibration_ is None
    with pytest.raises(BatchError, match="calibration needs labels"):
        model.calibrate({name: value for name, value in data.test[0].items() if name != "labels"})


def test_each_family_names_as_many_classes() -> None:
    for label_range in (MOSI, SIMS):
        assert all(len(c.names) == n for n, c in family_of(label_range).classes.items())
