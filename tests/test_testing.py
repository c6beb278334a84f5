"""What researchers' own tests use: the regression fixture and the oracle check."""

import re

import pytest
import torch
from torch import nn

import mmiln
from mmiln.testing import assert_close_to_oracle, mmiln_regression  # noqa: F401, found by name
from reference import batches, configs, losses, model, params

LENGTHS = {"text": [4, 1, 7], "audio": [5, 1, 9], "vision": [3, 6, 1]}


@pytest.fixture(scope="module")
def subject():
    config = configs.TINY
    built = mmiln.Model("mosi", dtype="float64", **config)
    built.load_state_dict(params.perturb(params.init(config, 0), 1))
    return built, config, batches.random_batch(config, LENGTHS, 0)


def oracle_of(config, spoil=None):
    def oracle(weights, batch):
        if spoil is not None:
            weights = weights | {spoil: weights[spoil] * 1.001}
        out = model.forward(weights, config, batch)
        pseudo = dict.fromkeys(model.sources(config), batch["labels"])
        return {**out, **losses.losses(out, batch["labels"], pseudo, config)}

    return oracle


def test_the_reference_is_close(subject):
    built, config, batch = subject
    assert_close_to_oracle(built, oracle_of(config), batch)


def test_the_worst_difference_is_named(subject):
    built, config, batch = subject
    with pytest.raises(AssertionError) as caught:
        assert_close_to_oracle(built, oracle_of(config, "heads.audio.linear3.weight"), batch)
    text = str(caught.value)
    assert re.search(r"^\d+ of \d+ tensors are off, the worst first", text)
    assert "y_audio[" in text or "heads.audio" in text
    assert "y_vision" not in text
    assert re.search(r"model [-\d.e]+, oracle [-\d.e]+, off by", text)
    assert_close_to_oracle(built, oracle_of(config, "heads.audio.linear3.weight"), batch, rtol=0.5, atol=0.5)


def test_a_gradient_alone_is_found(subject):
    """A value that is right with a gradient that is not: detached in one place."""
    built, config, batch = subject

    def oracle(weights, batch):
        name = "heads.multimodal.linear1.weight"
        return oracle_of(config)(weights | {name: weights[name].detach()}, batch)

    with pytest.raises(
        AssertionError, match=r"worst first.*\n  gradient of heads\.multimodal\.linear1\.weight"
    ):
        assert_close_to_oracle(built, oracle, batch)


def test_some_results_are_enough_and_nan_is_not_close(subject):
    built, config, batch = subject
    whole = oracle_of(config)
    assert_close_to_oracle(built, lambda w, b: {"y_audio": whole(w, b)["y_audio"]}, batch)
    with pytest.raises(AssertionError, match="y_audio"):
        assert_close_to_oracle(built, lambda w, b: {"y_audio": whole(w, b)["y_audio"] * float("nan")}, batch)
    with pytest.raises(
        AssertionError, match=r"y_audio: the model's shapes are \[\(3,\)\], the oracle's \[\(2,\)\]"
    ):
        assert_close_to_oracle(built, lambda w, b: {"y_audio": whole(w, b)["y_audio"][:2]}, batch)
    with pytest.raises(ValueError, match=r"unexpected \['y_sound'\]"):
        assert_close_to_oracle(built, lambda w, b: {"y_sound": whole(w, b)["y_audio"]}, batch)
    with pytest.raises(ValueError, match="results"):
        assert_close_to_oracle(built, lambda w, b: {}, batch)


class Head(nn.Module):
    """A module that has a parameter by the name of each weight of a model."""

    def __init__(self, state, config):
        super().__init__()
        self.names = list(state)
        for name, weight in state.items():
            *path, last = name.split(".")
            place = self
            for part in path:
                if not hasattr(place, part):
                    place.add_module(part, nn.Module())
                place = getattr(place, part)
            place.register_parameter(last, nn.Parameter(torch.zeros_like(weight)))
        self.config = config

    def forward(self, batch):
        assert not self.training
        return oracle_of(self.config)(dict(self.named_parameters()), batch)


def test_a_module_gets_the_model_s_weights_by_name(subject):
    built, config, batch = subject
    state = built.state_dict()
    module = Head(state, config)
    assert_close_to_oracle(built, module, batch)
    assert module.training
    assert not any(parameter.any() for parameter in module.parameters())  # untouched
    del module.heads.audio.linear3
    module.extra = nn.Linear(2, 2)
    with pytest.raises(
        ValueError, match=r"missing \['heads\.audio\.linear3\.bias', .*unexpected \['extra\.bias'"
    ):
        assert_close_to_oracle(built, module, batch)


def test_float32_has_a_wider_tolerance(subject):
    _, config, batch = subject
    single = mmiln.Model("mosi", **config)
    single.load_state_dict(params.perturb(params.init(config, 0), 1))
    narrow = {
        name: [u.float() for u in value] if isinstance(value, list) else value.float()
        for name, value in batch.items()
    }
    assert_close_to_oracle(single, oracle_of(config), narrow)


def test_a_run_stays_what_it_was(mmiln_regression):  # noqa: F811
    """The numbers of a small run, stored beside this file."""
    data = mmiln.data.synthetic(40, 12, 20)
    built = mmiln.Model("mosi", seed=3, num_layers=1, d_model=10, num_heads=2, dtype="float64", accumulate=1)
    history = built.fit(data.train, data.valid, epochs=2, progress=False)
    # Sums differ in the last bits from processor to processor.
    mmiln_regression.check(history, built.predict(data.test), digest=False)


RUN = """
import numpy as np
from mmiln import History, Predictions

def test_run(mmiln_regression):
    history = History({{"train_total": [2.0, {loss}], "seconds": [{seconds}, 1.0]}})
    score = np.array([0.5, {score}, -1.0], np.float32)
    predictions = Predictions(score, label=np.array([1.0, 0.0, -2.0], np.float32))
    mmiln_regression.check(history, predictions{options})
"""


@pytest.fixture
def project(pytester, monkeypatch):
    # Else a file that is rewritten within a second, to the same size, is taken for the one before.
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    pytester.makeconftest('pytest_plugins = ["mmiln.testing"]')

    def run(*arguments, loss=1.0, score=0.25, seconds=0.1, options=""):
        pytester.makepyfile(test_it=RUN.format(loss=loss, score=score, seconds=seconds, options=options))
        return pytester.runpytest_inprocess("-p", "no:cacheprovider", *arguments)

    run("--regen-all")
    run().assert_outcomes(passed=1)
    return run


def test_what_is_stored_is_compared(project):
    project(seconds=9.0).assert_outcomes(passed=1)
    wrong = project(loss=1.1)
    wrong.assert_outcomes(failed=1)
    wrong.stdout.fnmatch_lines(["*train_total*"])
    project(score=0.26).assert_outcomes(failed=1)


def test_tolerances_by_field_and_digest(project):
    project(loss=1.1, options=', tolerances={"train_total": {"atol": 0.2}}').assert_outcomes(passed=1)
    tiny = 0.25 + 1e-7
    project(score=tiny).assert_outcomes(failed=1)  # bits
    project(score=tiny, options=", digest=False").assert_outcomes(passed=1)
    unknown = project(options=', tolerances={"train_totl": {"atol": 1}}')
    unknown.stdout.fnmatch_lines(["*no field*train_totl*"])


def test_a_flag_stores_anew(project):
    project("--force-regen", loss=1.1, score=0.3)
    project(loss=1.1, score=0.3).assert_outcomes(passed=1)


def test_a_first_run_stores_and_fails(pytester):
    pytester.makeconftest('pytest_plugins = ["mmiln.testing"]')
    pytester.makepyfile(test_it=RUN.format(loss=1.0, score=0.25, seconds=0.1, options=""))
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(failed=1)
    assert {path.name for path in (pytester.path / "test_it").iterdir()} == {
        "test_run_metrics.csv", "test_run_curve.csv", "test_run_digest.yml",
    }  # fmt: skip
    pytester.runpytest_inprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)
