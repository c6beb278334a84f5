"""Measures against scikit-learn and scipy, and at the edges where those have no answer."""

import copy
import math
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, f1_score

import mmiln
from mmiln.errors import BatchError, ConfigError, DataError
from reference import batches, configs

Floats = NDArray[np.float64]
NAMES = ["n", "has0_acc2", "has0_f1", "non0_acc2", "non0_f1", "acc7", "acc5", "mae", "corr"]


def peer(truth: Floats, prediction: Floats) -> dict[str, float]:
    """The measures by their definitions, with functions of scikit-learn and scipy."""
    nonzero = truth != 0
    has0, non0 = (truth >= 0, prediction >= 0), (truth[nonzero] > 0, prediction[nonzero] > 0)
    sevens, fives = (
        [np.round(np.clip(scores, -bound, bound)) for scores in (truth, prediction)] for bound in (3, 2)
    )
    return {
        "n": len(truth),
        "has0_acc2": accuracy_score(*has0),
        "has0_f1": f1_score(*has0, average="weighted"),
        "non0_acc2": accuracy_score(*non0),
        "non0_f1": f1_score(*non0, average="weighted"),
        "acc7": accuracy_score(*sevens),
        "acc5": accuracy_score(*fives),
        "mae": float(np.abs(truth - prediction).mean()),
        "corr": float(pearsonr(truth, prediction).statistic),
    }


def continuous(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    truth = rng.uniform(-3, 3, n)
    return truth, truth + rng.normal(0, 1, n)


def with_zeros(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    truth, prediction = continuous(rng, n)
    truth[rng.random(n) < 0.3] = 0
    prediction[rng.random(n) < 0.3] = 0
    prediction[rng.random(n) < 0.1] = -0.0
    return truth, prediction


def ties(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Steps of one half, where rounding half to even differs from half up."""
    return rng.integers(-6, 7, n) / 2, rng.integers(-6, 7, n) / 2


def beyond(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """Scores out of bounds are clipped for the classes, not for the error."""
    return rng.uniform(-3, 3, n), rng.normal(0, 5, n)


def far_from_zero(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    truth, prediction = continuous(rng, n)
    return truth, 1e5 + prediction


def one_sided(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    """A class that is never predicted."""
    return rng.uniform(-3, 3, n), rng.uniform(0.1, 3, n)


KINDS = [continuous, with_zeros, ties, beyond, far_from_zero, one_sided]


@pytest.mark.parametrize("n", [2, 17, 700])
@pytest.mark.parametrize("kind", KINDS)
def test_random_scores(kind: Any, n: int) -> None:
    for seed in range(5):
        truth, prediction = kind(np.random.default_rng(seed), n)
        if (truth == 0).all() or len(set(truth)) == 1 or len(set(prediction)) == 1:
            continue
        found = mmiln.Metrics.of(truth, prediction).to_dict()
        assert list(found) == NAMES
        assert found == pytest.approx(peer(truth, prediction), rel=1e-8, abs=1e-12)


def test_a_case_by_hand() -> None:
    truth = [-3.0, -1.5, 0.0, 0.5, 2.5, 1.0]
    prediction = [-3.6, -0.4, -0.2, 0.4, 3.5, -1.0]
    found = mmiln.Metrics.of(truth, prediction)
    assert found.has0_acc2 == pytest.approx(4 / 6)  # wrong: 0.0 and 1.0
    assert found.non0_acc2 == pytest.approx(4 / 5)  # wrong: 1.0
    # negative: precision 2/4, recall 1; positive: precision 1, recall 2/4
    assert found.has0_f1 == pytest.approx(2 / 3)
    # negative: precision 2/3, recall 1; positive: precision 1, recall 2/3
    assert found.non0_f1 == pytest.approx(4 / 5)
    # -3 -2 0 0 2 1 against -3 0 0 0 3 -1
    assert found.acc7 == pytest.approx(3 / 6)
    # -2 -2 0 0 2 1 against -2 0 0 0 2 -1
    assert found.acc5 == pytest.approx(4 / 6)
    assert found.mae == pytest.approx((0.6 + 1.1 + 0.2 + 0.1 + 1.0 + 2.0) / 6)
    assert str(found).startswith("MAE 0.8333  Corr 0.8")
    assert str(found).endswith(
        "Acc-2 66.67% / 80.00%  F1 66.67% / 80.00%  Acc-7 50.00%  Acc-5 66.67%  (n = 6)"
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [(1.0, 1.0), (-1.0, -1.0), (1e-6, 1.0), (-1e6, -1.0)],
)
def test_perfect_correlation_is_within_bounds(given: float, expected: float) -> None:
    truth = np.random.default_rng(0).uniform(-3, 3, 1001)
    corr = mmiln.Metrics.of(truth, given * truth + 0.1).corr
    assert corr == pytest.approx(expected, abs=1e-9)
    assert abs(corr) <= 1


EDGES = [
    # truth, prediction, measures that are NaN, measures that still have a value
    ([1.0, 1.0, 1.0], [0.5, 1.5, -1.0], {"corr"}, {"has0_acc2": 2 / 3, "non0_f1": 0.8, "mae": 1.0}),
    ([0.1, 0.7, -1.0], [0.1, 0.1, 0.1], {"corr"}, {"has0_acc2": 2 / 3, "acc7": 1 / 3}),
    ([0.5], [0.5], {"corr"}, {"n": 1, "has0_acc2": 1.0, "non0_f1": 1.0, "acc7": 1.0, "mae": 0.0}),
    ([-2.0], [1.0], {"corr"}, {"n": 1, "has0_acc2": 0.0, "has0_f1": 0.0, "acc5": 0.0, "mae": 3.0}),
    ([0.0, 0.0], [1.0, -1.0], {"corr", "non0_acc2", "non0_f1"}, {"has0_acc2": 0.5, "has0_f1": 2 / 3}),
    ([0.0, -0.0], [0.0, -0.0], {"corr", "non0_acc2", "non0_f1"}, {"has0_acc2": 1.0, "acc7": 1.0}),
    ([0.1] * 3, [0.3] * 3, {"corr"}, {"has0_f1": 1.0, "mae": 0.2}),
]


@pytest.mark.parametrize(("truth", "prediction", "missing", "known"), EDGES)
def test_measures_without_a_value_are_nan_and_told(
    truth: list, prediction: list, missing: set, known: dict
) -> None:
    with pytest.warns(UserWarning, match="is NaN|are NaN") as told:
        found = mmiln.Metrics.of(truth, prediction).to_dict()
    assert {name for name, value in found.items() if math.isnan(value)} == missing
    messages = " ".join(str(warning.message) for warning in told)
    assert all(name in messages for name in missing)
    assert {warning.filename for warning in told} == {__file__}  # the caller's line
    assert {name: found[name] for name in known} == pytest.approx(known)


def test_nothing_is_told_where_all_have_a_value() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mmiln.Metrics.of([1.0, 0.0, -1.0], [0.0, 1.0, 2.0])


SIMS = (-1, 1)
SIMS_NAMES = ["n", "acc2", "acc3", "acc5", "f1", "mae", "corr"]


def test_measures_of_ch_sims_by_hand() -> None:
    truth = [-1.0, -0.6, 0.0, 0.2, 0.8, 0.0]
    prediction = [-1.5, -0.75, 0.3, 0.05, 0.6, -0.1]
    found = mmiln.Metrics.of(truth, prediction, SIMS)
    assert list(found.to_dict()) == SIMS_NAMES
    assert found.acc2 == pytest.approx(5 / 6)  # wrong: 0.3 for 0
    # not positive: precision 1, recall 3/4; positive: precision 2/3, recall 1
    assert found.f1 == pytest.approx(4 / 6 * 6 / 7 + 2 / 6 * 4 / 5)
    # -1 -1 0 1 1 0 against -1 -1 1 0 1 -1
    assert found.acc3 == pytest.approx(3 / 6)
    # -2 -1 0 1 2 0 against -2 -2 1 0 1 -1
    assert found.acc5 == pytest.approx(1 / 6)
    assert found.mae == pytest.approx((0 + 0.15 + 0.3 + 0.15 + 0.2 + 0.1) / 6)  # -1.5 counts as -1
    assert str(found).endswith("Acc-2 83.33%  Acc-3 50.00%  Acc-5 16.67%  F1 83.81%  (n = 6)")


@pytest.mark.parametrize("label_range", [None, (-3, 3), SIMS, (1, 5)])
def test_only_measures_of_the_own_family_are_there(label_range: Any) -> None:
    found = mmiln.Metrics.of([1.0, 0.5, 0.0], [1.0, -0.5, 0.25], label_range)
    own, other = (SIMS_NAMES, NAMES) if label_range == SIMS else (NAMES, SIMS_NAMES)
    assert list(found.to_dict()) == own
    assert not any(math.isnan(value) for value in found.to_dict().values())
    for name in set(other) - set(own):
        with pytest.raises(AttributeError, match=f"'{name}' is not measured .* which have n, "):
            getattr(found, name)


def test_labels_in_a_unit_of_their_own() -> None:
    """The classes are those of scores on [-3, 3]; the error is in the user's unit."""
    rng = np.random.default_rng(0)
    truth = rng.integers(-3, 4, 200).astype(float)
    score = truth + rng.normal(0, 1, 200)
    usual = mmiln.Metrics.of(truth, score).to_dict()
    found = mmiln.Metrics.of(3 + truth * 2 / 3, 3 + score * 2 / 3, (1, 5)).to_dict()
    assert found.pop("mae") == pytest.approx(usual.pop("mae") * 2 / 3)
    assert found == pytest.approx(usual)
    with pytest.warns(UserWarning, match="corr is NaN|every truth is 3") as told:
        mmiln.Metrics.of([3.0, 3.0], [1.0, 3.0], (1, 5))
    assert len(told) == 2


def test_scores_that_are_constant_once_clipped() -> None:
    with pytest.warns(UserWarning, match=r"clipped to \[-1, 1\], is constant"):
        assert math.isnan(mmiln.Metrics.of([0.5, -0.5], [1.5, 2.5], SIMS).corr)


def test_metrics_are_values() -> None:
    found, same = (mmiln.Metrics.of([1.0, -1.0], [0.5, 0.25]) for _ in range(2))
    other = mmiln.Metrics.of([1.0, -1.0], [0.5, 0.25], SIMS)
    assert found == same == pickle.loads(pickle.dumps(found)) == copy.deepcopy(found)
    assert len({found, same, other}) == 2
    assert repr(other).startswith("Metrics(n=2, acc2=0.5, acc3=0.5, ")
    with pytest.raises(AttributeError, match="can't be changed: mae"):
        found.mae = 0.0


@pytest.mark.parametrize("label_range", [(1, 1), (3, -3), (0, math.inf), 3, "ab"])
def test_what_is_no_range(label_range: Any) -> None:
    with pytest.raises(ConfigError, match="expected a range of labels"):
        mmiln.Metrics.of([1.0], [1.0], label_range)


REFUSED = [
    ([], [], "at least one"),
    ([1.0], [], "1 truths and 0 predictions"),
    ([1.0, 2.0], [1.0], "2 truths and 1 predictions"),
    ([1.0, math.nan], [1.0, 2.0], "truth holds 1"),
    ([1.0, 2.0], [math.inf, -math.inf], "prediction holds 2"),
]


@pytest.mark.parametrize(("truth", "prediction", "message"), REFUSED)
def test_what_can_not_be_measured(truth: list, prediction: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        mmiln.Metrics.of(truth, prediction)


CONVERSIONS = [list, np.float32, lambda x: np.array(x)[:, None], torch.tensor, np.array, tuple]


@pytest.mark.parametrize("convert", CONVERSIONS)
def test_inputs_of_any_kind(convert: Any) -> None:
    truth, prediction = [0.5, -1.25, 0.0, 2.0], [1.0, 0.25, -0.5, 3.0]
    expected = mmiln.Metrics.of(truth, prediction)
    assert mmiln.Metrics.of(convert(truth), convert(prediction)) == expected


def some_batches() -> list[dict[str, Any]]:
    config = configs.tiny()
    lengths = [{m: [1 + (i + k) % 3 for i in range(size)] for m in ("text", "audio", "vision")}
               for k, size in enumerate((4, 1, 3))]  # fmt: skip
    return [batches.random_batch(config, part, seed) for seed, part in enumerate(lengths)]


def test_evaluation_is_over_all_samples() -> None:
    """The measures are those of all samples, never a mean over batches."""
    model = mmiln.Model("mosi", **configs.tiny())
    data = some_batches()
    truth = np.concatenate([batch["labels"] for batch in data])
    scores = np.concatenate([model.forward(batch)["y_multimodal"] for batch in data])
    expected = peer(truth, scores.astype(np.float64))
    singles = [
        {name: value[b : b + 1] for name, value in batch.items()}
        for batch in data
        for b in range(len(batch["labels"]))
    ]
    for loader in (data, data[::-1], singles):
        assert model.evaluate(loader).to_dict() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    # labels as MMSA has them
    shaped = [{**batch, "labels": {"M": batch["labels"][:, None]}} for batch in data]
    assert model.evaluate(shaped) == model.evaluate(data)


def test_evaluation_needs_labels() -> None:
    model = mmiln.Model("mosi", **configs.tiny())
    data = some_batches()
    del data[1]["labels"]
    with pytest.raises(BatchError, match="labels in every batch"):
        model.evaluate(data)
