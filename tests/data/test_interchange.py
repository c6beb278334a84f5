"""Data and models in and out: utterances, pandas, torch, scikit-learn, copies."""

import copy
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from torch.utils.data import ConcatDataset, DataLoader, Subset, random_split

import mmiln
from mmiln.baselines import Baseline
from mmiln.callbacks import CSVLogger, EarlyStopping, ProgressBar, PseudoLabels
from mmiln.data import Split, collate
from mmiln.data.videos import video_of
from mmiln.errors import ConfigError, DataError, StateError
from mmiln.sklearn import Regressor

TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2, "batch_size": 8, "seed": 1}


@pytest.fixture(scope="module")
def data() -> mmiln.data.Dataset:
    return mmiln.data.synthetic(48, 8, 8)


def build(**changes: Any) -> mmiln.Model:
    return mmiln.Model("mosi", **{**TINY, **changes})


def same(first: Split, second: Split) -> bool:
    return first.fingerprint() == second.fingerprint()


# Utterances


def test_a_split_from_its_utterances(data):
    assert same(Split.from_items(data.train), data.train)
    some = [data.train[5], data.train[2]]
    assert same(Split.from_items(some), data.train.subset([5, 2]))
    assert Split.from_items(some, [1.5, -1]).labels.tolist() == [1.5, -1]
    nameless = [{"audio": np.ones((2, 3)), "labels": 1.0}] * 2
    assert Split.from_items(nameless).id == ["0", "1"]
    assert len(list(data.train)) == 48


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (
            [{"raw_text": "a"}, {"labels": 0.0, "raw_text": "b"}],
            "labels in every utterance or in none, 1 of 2",
        ),
        ([{"raw_text": "a", "labels": [1.0, 2.0]}], "one number as the label"),
        ([{"raw_text": "a", "labels": {"T": 1.0}}], "a number, or to hold 'M'"),
        ([{"raw_text": "a", "Audio": np.ones((2, 3))}], "unknown key 'Audio'.* did you mean 'audio'"),
        ([{"video": np.ones((2, 3))}], "unknown key 'video'.* did you mean 'vision'"),
        ([{"audio": np.ones((2, 3)), "audio_lengths": 3}], "a whole number up to its 2 frames, got 3"),
        (
            [{"labels": 0.0, "raw_text": "a"}, {"labels": 0.0}],
            "raw_text in every utterance or in none, 1 of 2",
        ),
        ([], "at least one utterance"),
        (["a"], "expected each utterance to be a dictionary .* got str"),
        ([{"labels": 0.0, "raw_text": 3.5}], r"expected ids and raw_text to be text, got 3\.5"),
    ],
)
def test_what_are_no_utterances_is_refused(items, said):
    with pytest.raises(DataError, match=said):
        Split.from_items(items)


# pandas


def test_a_frame_and_back(data):
    frame = data.train.to_pandas(arrays=True)
    assert same(Split.from_pandas(frame), data.train)
    assert same(Split.from_pandas(frame.sample(frac=1, random_state=0).sort_index()), data.train)
    chosen = frame[frame["label"] > 1]
    assert same(Split.from_pandas(chosen), data.train.subset(chosen.index))
    assert same(Split.from_pandas(pickle.loads(pickle.dumps(frame))), data.train)


def test_tokens_too():
    split = Split(["a", "b"], [0.0, 1.0], text_bert=[np.ones((3, 4), np.int64), np.ones((3, 2), np.int64)])
    assert same(Split.from_pandas(split.to_pandas(arrays=True)), split)
    assert Split(["a"], [0.0], text_bert=[torch.ones(3, 4)]).text_bert[0].dtype == np.int64


def test_a_frame_of_ones_own():
    frame = pd.DataFrame({"raw_text": ["good", "bad"], "label": [2, -1]}, index=["x", "y"])
    split = Split.from_pandas(frame)
    assert (split.id, split.raw_text, split.labels.tolist()) == (["x", "y"], ["good", "bad"], [2.0, -1.0])
    rows = np.empty(2, object)
    rows[:] = [np.ones(3), np.zeros(3)]  # as Parquet gives a matrix
    frame = pd.DataFrame({"label": [1.0], "audio": [rows]})
    assert Split.from_pandas(frame).audio[0].tolist() == [[1.0] * 3, [0.0] * 3]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"label": [0.0], "visual": [1]}, r"got also \['visual'\]: leave them out"),
        ({"label": [9.0], "raw_text": ["a"]}, r"labels in \[-3, 3\]"),
        ({"label": [0.0], "raw_text": [np.nan]}, "expected ids and raw_text to be text, got nan"),
        ({"label": [0.0], "audio": [np.ones(3)]}, "expected audio of shape"),
    ],
)
def test_other_frames_are_refused(columns, said):
    with pytest.raises(DataError, match=said):
        Split.from_pandas(pd.DataFrame(columns))


def test_predictions_as_a_frame_and_a_tensor(data):
    predictions = build().predict(data.test)
    frame = predictions.to_pandas().set_index("id")
    assert frame.loc[data.test.id[3], "score"] == predictions.score[3]
    tensor = torch.from_numpy(predictions.score)
    assert tensor.dtype == torch.float32
    assert np.asarray(predictions).tolist() == tensor.tolist()


# torch


def test_tensors_are_taken_as_arrays_are(data):
    tensors = {
        name: [torch.tensor(frames, requires_grad=True) for frames in getattr(data.train, name)]
        for name in ("text", "audio", "vision")
    }
    split = Split(data.train.id, torch.from_numpy(data.train.labels), raw_text=data.train.raw_text, **tensors)
    assert same(split, data.train)
    doubles = {name: [frames.double() for frames in values] for name, values in tensors.items()}
    assert same(Split(split.id, split.labels, raw_text=split.raw_text, **doubles), data.train)


def test_a_split_is_a_dataset_of_torch(data):
    first, second = random_split(data.train, [40, 8], generator=torch.Generator().manual_seed(0))
    assert len(ConcatDataset([first, second])) == 48
    model = build()
    loader = DataLoader(Subset(data.train, range(16)), batch_size=8, collate_fn=collate)
    assert model.fit(loader, epochs=1, progress=False).epochs == 1
    (scores,) = {model.forward(batch)["y_multimodal"].dtype for batch in loader}
    assert scores == torch.float32


# Copies


def test_everything_can_be_copied(data, tmp_path):
    model = build()
    callbacks = [EarlyStopping(patience=2), CSVLogger(tmp_path / "a.csv"), PseudoLabels(), ProgressBar()]
    model.fit(data.train, data.valid, epochs=2, callbacks=callbacks)
    metrics, predictions = model.evaluate(data.test), model.predict(data.test)
    things = [model.history_, metrics, predictions, data, data.describe(), model.summary(), *callbacks]
    for how in (copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))):
        for thing in things:
            again = how(thing)
            assert type(again) is type(thing)
            if type(thing).__repr__ is not object.__repr__:
                assert repr(again) == repr(thing)
        regressor = how(Regressor(model))
        assert (regressor.model.predict(data.test).score == predictions.score).all()


# scikit-learn


@pytest.mark.parametrize("build", [build, lambda: Baseline("lmf", batch_size=8, text_hidden=4)])
def test_cloned_models_have_the_parameters_and_no_weights(build, data):
    model = build()
    model.predict(data.test)
    again = clone(model)
    assert repr(again) == repr(model)
    assert not again.built
    assert again.get_params() == model.get_params()


def test_parameters_of_baselines(data):
    model = Baseline("lmf")
    assert model.set_params(batch_size=8, text_hidden=4) is model
    assert model.settings.batch_size == 8
    with pytest.raises(ConfigError, match="no field 'batchsize'"):
        model.set_params(batchsize=8)
    model.predict(data.test)
    with pytest.raises(StateError, match="has weights already, which text_hidden can't change under"):
        model.set_params(text_hidden=8)


def test_cross_validation():
    data = mmiln.data.synthetic(120, 8, 8)
    regressor = Regressor(build(), epochs=2)
    videos = [video_of(name) for name in data.train.id]
    scores = cross_val_score(
        regressor, data.train, data.train.labels, groups=videos, cv=GroupKFold(2),
        scoring="neg_mean_absolute_error", error_score="raise",
    )  # fmt: skip
    (train, test), *_ = GroupKFold(2).split(videos, groups=videos)
    by_hand = Regressor(build(), epochs=2).fit(data.train.subset(train), data.train.labels[train])
    expected = by_hand.model_.evaluate(data.train.subset(test)).mae
    assert scores[0] == pytest.approx(-expected, rel=1e-6)
    assert not hasattr(regressor, "model_")
    assert not regressor.model.built


def test_a_search_over_the_model_s_fields(data):
    regressor = Regressor(build(), epochs=1, validation_fraction=0)
    grid = {"model__d_model": [4, 8], "epochs": [1]}
    search = GridSearchCV(regressor, grid, cv=2, scoring="neg_mean_absolute_error", error_score="raise")
    search.fit(data.train, data.train.labels)
    assert search.best_params_["model__d_model"] in (4, 8)
    best = search.best_estimator_.model_
    assert best.config.model["d_model"] == search.best_params_["model__d_model"]
    assert search.predict(data.test).shape == (8,)
    assert regressor.model.config.model["d_model"] == 8


def test_labels_are_those_that_were_given(data):
    y = np.full(48, 2.5, np.float32)
    changed = Regressor(build(lr_other=0.02), epochs=8, validation_fraction=0).fit(data.train, y)
    assert np.abs(changed.predict(data.test) - 2.5).mean() < 1
    own = Regressor(build(), epochs=1).fit(data.train)
    given = Regressor(build(), epochs=1).fit(list(data.train), pd.Series(data.train.labels))
    assert (own.predict(data.test) == given.predict(data.test)).all()


def test_lists_and_pipelines(data):
    train, test, y_train, _ = train_test_split(data.train, data.train.labels, test_size=8, random_state=0)
    pipeline = make_pipeline(Regressor(build(), epochs=1)).fit(train, y_train)
    scores = pipeline.predict(test)
    assert scores.dtype == np.float32
    unlabelled = [{name: value for name, value in item.items() if name != "labels"} for item in test]
    assert (pipeline.predict(unlabelled) == scores).all()
    assert -10 < pipeline.score(test, [item["labels"] for item in test]) < 1


def test_the_validation_part_is_whole_videos(data):
    regressor = Regressor(build(), epochs=1, validation_fraction=0.3)
    train, valid = regressor._divided(data.train, 1)
    assert 5 <= len(valid) <= 30
    assert len(train) + len(valid) == 48
    assert not {video_of(name) for name in train.id} & {video_of(name) for name in valid.id}
    assert regressor.fit(data.train).model_.history_.best_epoch == 1


def test_wrong_calls_of_a_regressor(data):
    with pytest.raises(NotFittedError):
        Regressor(build()).predict(data.test)
    with pytest.raises(ConfigError, match=r"validation_fraction must be 0 or more and below 1, got 1\.5"):
        Regressor(build(), validation_fraction=1.5).fit(data.train)
    one_video = Split([f"a[{n}]" for n in range(4)], np.zeros(4), audio=[np.ones((2, 3))] * 4)
    with pytest.raises(DataError, match="two videos or more"):
        Regressor(build()).fit(one_video)
