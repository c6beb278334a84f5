"""Pseudo-labels through training, against an oracle that recomputes its centres from all rows.

With learning rates, decay and dropout zero the weights stay, so that the features of a training step
are those of `forward`, and the oracle can be fed with them.
"""

from typing import Any

import numpy as np
import pytest

import mmiln
from reference import configs
from support.pseudo_labels import STILL, Replay, Schedule, batch_of, labels, random_schedule, replay

SMALL: dict[str, Any] = {"num_heads": 1, "num_layers": 1, "variant": "no_mfm"}


def test_a_thousand_updates() -> None:
    """Running sums stay the means that they stand for."""
    config = configs.tiny(**SMALL)
    schedule = random_schedule(config, labels(40), sizes=[12, 12, 1], epochs=40)
    callback = replay(schedule, config)
    assert sum(len(batch["index"]) for epoch in schedule.epochs for batch in epoch) == 1000
    last, first = callback.labels[-1], callback.labels[0]
    for n in ("audio", "vision"):
        seen = ~np.isnan(first[n])
        assert np.abs(last[n] - first[n])[seen].max() > 0.5  # labels did move


@pytest.mark.parametrize("exclude_zero", [True, False])
@pytest.mark.parametrize("changes", [{}, {"audio_dim": 0}, {"vision_dim": 0}], ids=["all", "vision", "audio"])
@pytest.mark.parametrize("variant", ["full", "no_gate_fusion"])
def test_every_step_of_a_short_run(exclude_zero: bool, changes: dict, variant: str) -> None:
    config = configs.tiny(exclude_zero=exclude_zero, variant=variant, num_layers=1, **changes)
    replay(random_schedule(config, labels(9), sizes=[4, 3], epochs=5), config)


def test_whether_zero_is_positive_matters() -> None:
    """The two readings differ where labels are zero, so that the tests above distinguish them."""
    found = []
    for exclude_zero in (True, False):
        config = configs.tiny(exclude_zero=exclude_zero, **SMALL)
        callback = replay(random_schedule(config, labels(9), sizes=[4, 3], epochs=4), config)
        found.append(callback.labels[-1]["audio"])
    assert np.nanmax(np.abs(found[0] - found[1])) > 1e-3


@pytest.mark.parametrize("bound", [1.0, 2.0])
def test_the_bound_of_new_labels(bound: float) -> None:
    config = configs.tiny(label_bound=bound, **SMALL)
    truth = np.clip(labels(12), -bound, bound)
    callback = replay(random_schedule(config, truth, sizes=[6, 6], epochs=6), config)
    assert max(np.nanmax(np.abs(y)) for y in callback.labels[-1].values()) <= bound


@pytest.mark.parametrize("late", ["negative", "positive"])
@pytest.mark.parametrize("exclude_zero", [True, False])
def test_a_class_that_is_empty_at_first(late: str, exclude_zero: bool) -> None:
    """Labels stay while a class has no sample, whatever the epoch."""
    config = configs.tiny(exclude_zero=exclude_zero, **SMALL)
    sign = 1 if late == "negative" else -1
    truth = sign * np.array([2.0, 1.0, 0.5, 3.0, 0.25, -1.0, -2.0, -0.5])
    early, rest = [0, 1, 2, 3, 4], [5, 6, 7]
    numbers = iter(range(100))
    epochs = [
        [batch_of(config, part, truth, next(numbers)) for part in (early[:3], early[3:])] for _ in "123"
    ]
    epochs += [
        [batch_of(config, part, truth, next(numbers)) for part in (early, rest, [*early[:2], *rest])]
        for _ in range(2)
    ]
    callback = replay(Schedule(epochs, len(truth)), config)
    waiting = callback.labels[6]  # after the first batch of epoch 4, still of one class
    for n in ("audio", "vision"):
        np.testing.assert_array_equal(waiting[n][:5], truth[:5].astype(np.float32))
        assert np.isnan(waiting[n][5:]).all()
        assert (callback.labels[-1][n][5:] != truth[5:].astype(np.float32)).all()


def test_only_zeros_on_one_side() -> None:
    """Zeros are positive only where `exclude_zero` is off: then labels move, else they stay."""
    truth = np.array([0.0, 0.0, -1.0, -2.0])
    for exclude_zero in (True, False):
        config = configs.tiny(exclude_zero=exclude_zero, **SMALL)
        epochs = [[batch_of(config, [0, 1, 2, 3], truth, seed)] for seed in range(4)]
        callback = replay(Schedule(epochs, 4), config)
        moved = np.abs(callback.labels[-1]["audio"] - truth).max() > 1e-3
        assert moved != exclude_zero


@pytest.mark.parametrize("accumulate", [1, 3, 50])
def test_labels_do_not_wait_for_the_optimizer(accumulate: int) -> None:
    """Steps are micro-batches, in windows full, incomplete or longer than an epoch."""
    config = configs.tiny(**SMALL)
    schedule = random_schedule(config, labels(9), sizes=[3, 2, 3, 1], epochs=4)
    replay(schedule, config, accumulate=accumulate)


def test_an_index_that_stands_twice_in_a_batch() -> None:
    """The last occurrence counts; an index that never occurs has no label."""
    config = configs.tiny(**SMALL)
    truth = labels(8, seed=3)
    rows = [[1, 1, 2], [3, 1, 3, 3], [5, 6], [6, 2, 6, 5]]
    epochs = [[batch_of(config, row, truth, 10 * e + i) for i, row in enumerate(rows)] for e in range(4)]
    callback = replay(Schedule(epochs, len(truth)), config)
    for n in ("audio", "vision"):
        np.testing.assert_array_equal(np.isnan(callback.labels[-1][n]), [1, 0, 0, 0, 1, 0, 0, 1])


def test_the_first_epoch_leaves_the_true_labels() -> None:
    config = configs.tiny(**SMALL)
    truth = labels(6)
    schedule = Schedule([[batch_of(config, [4, 0, 2], truth, 0), batch_of(config, [1], truth, 1)]], 6)
    callback = replay(schedule, config)
    expected = truth.astype(np.float32)
    expected[[3, 5]] = np.nan
    for n in ("audio", "vision"):
        np.testing.assert_array_equal(callback.labels[-1][n], expected)


def test_a_new_run_starts_from_the_true_labels() -> None:
    config = configs.tiny(**SMALL)
    truth = labels(6)
    model = mmiln.Model("mosi", **{**config, **STILL})
    batch = batch_of(config, [0, 1, 2, 3, 4, 5], truth, 0)
    model.fit([batch], epochs=4, progress=False)
    moved = model.pseudo_labels
    assert np.abs(moved["audio"] - truth).max() > 1e-3
    model.fit([batch], epochs=1, progress=False)
    np.testing.assert_array_equal(model.pseudo_labels["audio"], truth.astype(np.float32))
    moved["audio"][:] = 9  # what was handed out is the caller's
    assert np.abs(model.pseudo_labels["audio"]).max() <= 3


def test_features_are_those_of_training() -> None:
    """Dropout before the heads changes the stored features, and so the labels."""
    config = configs.tiny(**SMALL)
    batch = batch_of(config, [0, 1, 2, 3, 4, 5], labels(6, seed=1), 0)
    found = []
    for dropout in (0.0, 0.5):
        model = mmiln.Model("mosi", **{**config, **STILL, "audio_dropout": dropout})
        model.fit([batch], epochs=3, progress=False)
        found.append(model.pseudo_labels)
    assert np.abs(found[0]["audio"] - found[1]["audio"]).max() > 1e-3
    np.testing.assert_array_equal(found[0]["vision"], found[1]["vision"])


def test_labels_in_float32() -> None:
    """The default precision follows the oracle as far as it can."""
    config = configs.tiny(**SMALL)
    schedule = random_schedule(config, labels(20), sizes=[6, 6, 1], epochs=8)
    model = mmiln.Model("mosi", **{**config, **STILL})
    model.state_dict()  # with weights before `fit`, which else reads a first batch for the widths
    callback = Replay(schedule, config, tolerance=1e-4)
    model.fit(schedule, epochs=8, callbacks=[callback], progress=False)
    assert callback.steps == 24
