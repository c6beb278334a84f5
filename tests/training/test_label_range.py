"""A model follows the range of its data's labels: bounds, scores in the data's unit, saving, other data."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

import mmiln
from mmiln.baselines import Baseline
from mmiln.data import Split, collate
from mmiln.errors import BatchError, ConfigError, DataWarning, StateError
from mmiln.labels import MOSI, SIMS, LabelRange
from support.small_runs import build

STARS = LabelRange(1.0, 5.0)


@pytest.fixture(scope="module")
def data() -> mmiln.data.Dataset:
    return mmiln.data.synthetic(24, 8, 8)


def _in(among: LabelRange, split: Split) -> Split:
    """The split with its labels in another unit: those of [-3, 3] stretched and shifted."""
    share = (split.truth.astype(np.float64) + 3) / 6
    return replace(split, labels=among.low + share * (among.high - among.low), label_range=among)


@pytest.mark.parametrize("make", [build, lambda **fields: Baseline("self_mm", seed=3, **fields)])
def test_scores_are_in_the_unit_of_the_labels(make, data):
    """A model of stars is that of [-3, 3], whose scores are shown as stars."""
    plain, stars = make(), make()
    plain.fit(data.train, data.valid, epochs=2, progress=False)
    stars.fit(_in(STARS, data.train), _in(STARS, data.valid), epochs=2, progress=False)
    assert (plain.label_range_, stars.label_range_) == (MOSI, STARS)
    one, two = plain.predict(data.test), stars.predict(_in(STARS, data.test))
    assert two.label_range == STARS
    np.testing.assert_allclose(two.score, STARS.restored(one.score), rtol=1e-4)
    np.testing.assert_allclose(two.label, STARS.restored(one.label), rtol=1e-6)
    for name, labels in plain.pseudo_labels.items():
        np.testing.assert_allclose(stars.pseudo_labels[name], STARS.restored(labels), rtol=1e-4)
    assert stars.evaluate(_in(STARS, data.test)).mae == pytest.approx(
        plain.evaluate(data.test).mae / 1.5, rel=1e-4
    )


@pytest.mark.parametrize("make", [build, lambda **fields: Baseline("self_mm", seed=3, lr=0.05)])
def test_pseudo_labels_stay_in_the_range_of_the_labels(make, data):
    model = make()
    model.fit(_in(SIMS, data.train), None, epochs=4, progress=False)
    labels = np.stack([*model.pseudo_labels.values()])
    assert np.abs(labels).max() <= 1
    assert (labels != _in(SIMS, data.train).labels).any()
    if isinstance(model, mmiln.Model):
        assert model.config.model["label_bound"] == 1


def test_the_range_is_saved_and_copied(data, tmp_path):
    for number, model in enumerate([build(), Baseline("lf_lstm", seed=1)]):
        model.fit(_in(STARS, data.train), None, epochs=1, progress=False)
        folder = tmp_path / str(number)
        model.save_pretrained(folder)
        again = type(model).from_pretrained(folder)
        assert again.label_range_ == copy.deepcopy(model).label_range_ == STARS
        batch = next(iter(data.test.loader(3)))
        np.testing.assert_array_equal(again.predict(batch).score, model.predict(batch).score)


def test_data_of_another_range_is_refused(data):
    model = build()
    model.fit(data.train, None, epochs=1, progress=False)
    fit = partial(model.fit, epochs=1, progress=False)
    for call in (model.predict, model.evaluate, fit):
        with pytest.raises(ConfigError, match=r"labels lie in \[-3, 3\], those of the data in \[1, 5\]"):
            call(_in(STARS, data.test))
    unlabelled = replace(_in(STARS, data.test), labels=None)
    np.testing.assert_array_equal(model.predict(unlabelled).score, model.predict(data.test).score)
    with pytest.raises(ConfigError, match="those of the data"):
        build().fit(data.train, _in(SIMS, data.valid), epochs=1, progress=False)


def test_a_model_with_weights_follows_too(data):
    """Its weights stay, and the bound of pseudo-labels changes."""
    model = build()
    model.predict(
        {name: value for name, value in next(iter(data.test.loader(3))).items() if name != "labels"}
    )
    before = model.state_dict()
    model.follow(SIMS)
    assert model.config.model["label_bound"] == 1
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())


def test_a_given_range_is_for_loaders_that_do_not_tell(data):
    batches = list(_in(STARS, data.train).loader(8))
    with pytest.raises(BatchError, match="labels must lie in"):
        build().fit(batches, None, epochs=1, progress=False)
    model = build(label_range=(1, 5))
    model.fit(batches, None, epochs=1, progress=False)
    assert model.get_params()["label_range"] == STARS
    assert model.evaluate(batches).n == 24
    with pytest.raises(ConfigError, match="range of labels"):
        build(label_range=(5, 1))


# Loaders as users have them


class _Endless(IterableDataset):
    def __init__(self, batches: Any) -> None:
        self.batches = batches

    def __iter__(self):
        return iter(self.batches)


def test_a_loader_without_a_length(data):
    batches = list(data.train.loader(8))
    loader = DataLoader(_Endless(batches), batch_size=None)
    with pytest.raises(StateError, match="whose size this loader does not tell"):
        build().fit(loader, None, epochs=1, progress=False)
    model = build(audio_dim=0, vision_dim=0)  # has no pseudo-labels
    model.fit(loader, None, epochs=1, progress=False)
    assert len(model.predict(loader)) == 24


def test_what_a_loader_must_not_yield(data):
    with pytest.raises(BatchError, match="got tuple: let the loader's collate_fn name its parts"):
        build().fit([(1, 2)], None, epochs=1, progress=False)


def test_one_utterance_without_an_axis_of_utterances(data):
    model = build()
    model.predict(data.test)
    one = {name: getattr(data.test, name)[2] for name in ("text", "audio", "vision")}
    expected = model.predict(data.test.subset([2])).score
    lengths = {f"{name}_lengths": [len(value)] for name, value in one.items()}
    for given in (one, one | lengths, one | {"labels": 1.0, "id": "x", "index": 0, "config": {}}):
        np.testing.assert_array_equal(model.predict(given).score, expected)
    assert model.predict(one | {"labels": 1.0, "id": "x"}).id == ["x"]
    with pytest.warns(UserWarning, match="corr is NaN"):
        assert model.evaluate(one | {"labels": {"M": 1.0}}).n == 1


@pytest.mark.parametrize("padded", [False, True])
def test_an_utterance_of_a_batch_without_frames(data, padded):
    model = build()
    model.predict(data.test)
    zeros = replace(data.test.subset([0, 1]), audio=[np.zeros((1, data.dims["audio"])), data.test.audio[1]])
    batch = collate(list(data.test.subset([0, 1])))
    if padded:
        width = max(map(len, batch["audio"]))
        batch["audio"] = np.stack([np.pad(f, ((0, width - len(f)), (0, 0))) for f in batch["audio"]])
        batch["audio_lengths"] = [0, len(data.test.audio[1])]
    else:
        batch["audio"] = [np.zeros((0, data.dims["audio"]), np.float32), batch["audio"][1]]
    with pytest.warns(DataWarning, match="1 utterances of a batch have no frame of audio"):
        np.testing.assert_array_equal(model.predict(batch).score, model.predict(zeros).score)


@pytest.mark.parametrize("make", [build, lambda: Baseline("lf_lstm", seed=1)])
def test_a_modality_missing_at_prediction_is_zeros_on_demand(make, data):
    model = make()
    model.predict(data.test)
    without = replace(data.test, vision=None)
    with pytest.raises(BatchError, match="no 'vision', which this model was built with"):
        model.predict(without)
    zeros = replace(data.test, vision=[np.zeros((1, data.dims["vision"]))] * len(data.test))
    expected = model.predict(zeros).score
    np.testing.assert_array_equal(model.predict(without, missing="zeros").score, expected)
    assert model.evaluate(without, missing="zeros") == model.evaluate(zeros)
    with pytest.raises(ConfigError, match=r"missing must be one of .* got 'mean'"):
        model.predict(without, missing="mean")


def test_labels_of_another_range_in_scikit_learn(data):
    stars = _in(STARS, data.train)
    regressor = mmiln.sklearn.Regressor(build(), epochs=1, validation_fraction=0).fit(stars)
    assert regressor.model_.label_range_ == STARS
    assert (regressor.predict(stars) > 1).all()


def test_small_labels_of_a_loader_are_told_of(data):
    """Neither a list of batches nor a split made by hand says whether its labels are those of CH-SIMS."""
    small = _in(SIMS, data.train)
    batches = list(small.loader(8))
    with pytest.warns(DataWarning, match=r"all 24 labels lie in .* label_range=\(-1, 1\)"):
        build().fit(batches, None, epochs=2, progress=False)
    by_hand = replace(small, label_range=MOSI)
    with pytest.warns(DataWarning, match=r"all 24 labels lie in"):
        build().fit(by_hand, None, epochs=1, progress=False)
    build(label_range=(-3, 3)).fit(by_hand, None, epochs=1, progress=False)
    model = build(label_range=(-1, 1))
    model.fit(batches, None, epochs=1, progress=False)
    assert model.config.model["label_bound"] == 1


@pytest.mark.parametrize("kinds", [(0, 1), (0, 1, 2), (0, 1, 2, 3)])
def test_numbers_of_classes_are_told_of(data, kinds):
    classes = replace(data.train, labels=np.resize(kinds, 24))
    message = f"all 24 labels are whole numbers from 0 to {kinds[-1]}, like numbers of classes"
    for given in (classes, list(classes.loader(8)), classes.to_pandas(arrays=True)):
        with pytest.warns(DataWarning, match=message):
            build().fit(given, None, epochs=2, progress=False)
    build().fit(replace(classes, label_range=LabelRange(0, 3)), None, epochs=1, progress=False)
    build(label_range=(-3, 3)).fit(classes, None, epochs=1, progress=False)
    for labels in (classes.labels - 2, classes.labels * 0.9 + 0.2, np.full(24, 2.0)):
        build().fit(replace(data.train, labels=labels), None, epochs=1, progress=False)


def test_far_values_are_told_of_before_training(data):
    frames = [each.copy() for each in data.train.audio]
    frames[3][1, 2] = 1e30
    message = rf"audio: 1 values in 1 utterances .* in columns 2 of '{re.escape(data.train.id[3])}'"
    with pytest.warns(DataWarning, match=message):
        build().fit(replace(data.train, audio=frames), None, epochs=1, progress=False, nonfinite="skip")
