"""Scores of random weights are warned of, once, and no others."""

import copy
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest

import mmiln
from mmiln.baselines import Baseline
from mmiln.errors import StateWarning
from support.small_runs import TINY

WARNING = "not trained: its scores are those of random weights"
BUILT: dict[str, Callable[[], Any]] = {
    "model": lambda: mmiln.Model("mosi", **TINY),
    "baseline": lambda: Baseline("lmf"),
}


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(16, 8, 8)


@pytest.fixture(params=BUILT)
def build(request):
    return BUILT[request.param]


def told(call: Callable[[], object]) -> int:
    """How many warnings of random weights a call gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return sum(warning.category is StateWarning for warning in caught)


def test_untrained_scores_are_warned_of_once(data, build):
    for use in ("predict", "evaluate"):
        model = build()
        with pytest.warns(StateWarning, match=WARNING) as caught:
            getattr(model, use)(data.test)
        assert len(caught) == 1
        assert told(lambda model=model: model.predict(data.test)) == 0


def test_a_copy_of_an_untrained_model_is_untrained(data, build):
    for copied in (copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))):
        assert told(lambda copied=copied: copied(build()).predict(data.test)) == 1


def test_trained_and_loaded_weights_are_not_warned_of(data, build, tmp_path):
    trained = build()
    assert told(lambda: trained.fit(data.train, data.valid, epochs=1, progress=False)) == 0
    trained.save_pretrained(tmp_path)
    filled = build()
    filled.forward(next(iter(data.test.loader(8))))
    filled.load_state_dict(trained.state_dict())
    for model in (trained, copy.deepcopy(trained), mmiln.load_pretrained(tmp_path), filled):
        assert told(lambda model=model: model.evaluate(data.test)) == 0
