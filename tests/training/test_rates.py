"""Learning rates and weight decays that change during a run: from the next step on, recorded, and resumed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import mmiln
from mmiln.baselines import Baseline
from mmiln.callbacks import Callback, LearningRate
from mmiln.errors import CheckpointError, ConfigError, StateError
from support.small_runs import TINY, Cut, CutAt, build, result, run

OTHER = {"lr_text": 2e-3, "lr_audio": 3e-3, "lr_vision": 4e-3, "lr_other": 1e-3}
OTHER |= {"decay_text": 0.3, "decay_audio": 0.1, "decay_vision": 0.05, "decay_other": 0.2}
OF_BASELINES = {"lr": 2e-3, "lr_audio": 3e-3, "lr_vision": 4e-3, "decay": 0.2, "decay_audio": 0.1}
RATES = tuple(name for name in OTHER if name.startswith("lr"))


class Change(Callback):
    """Sets parameters when a hook is called at a place, such as (epoch, batch)."""

    def __init__(self, hook: str, *at: int, **params: Any) -> None:
        def change(model: Any, *place: Any) -> None:
            if place[: len(at)] == at:
                model.set_params(**params)

        setattr(self, hook, change)


def model_of(kind: str, **changes: Any) -> Any:
    return build(**changes) if kind == "mmiln" else Baseline(kind, batch_size=7, seed=3, **changes)


def fit(data: Any, model: Any, *callbacks: Callback, folder: Any = None, epochs: int = 4, **more: Any) -> Any:
    kept = {"checkpoint_dir": folder, "checkpoint_every": 0.0}
    history = model.fit(
        data.train, data.valid, epochs=epochs, callbacks=callbacks, progress=False, **kept, **more
    )
    return result(model, history)


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(24, 12, 12)


KINDS = pytest.mark.parametrize(("kind", "other"), [("mmiln", OTHER), ("self_mm", OF_BASELINES)])


@KINDS
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_rates_that_are_set_are_as_good_as_those_given(kind, other, optimizer, data):
    given = fit(data, model_of(kind, optimizer=optimizer, **other))
    model = model_of(kind, optimizer=optimizer)
    found = fit(data, model, Change("on_epoch_begin", 1, **other))
    assert found["weights"] == given["weights"]
    assert found["pseudo"] == given["pseudo"]
    assert found["history"] == given["history"] | {name: [rate] * 4 for name, rate in other.items()}
    assert given["weights"] != fit(data, model_of(kind, optimizer=optimizer))["weights"]
    assert model.config.to_dict().items() >= other.items()


@KINDS
def test_earlier_steps_have_the_earlier_rates(kind, other, data, tmp_path):
    """Two epochs with each set of rates, in one run; and in two, of which the second adopts others."""
    found = fit(data, model_of(kind), Change("on_epoch_end", 2, **other))
    fit(data, model_of(kind), folder=tmp_path, epochs=2)
    assert fit(data, model_of(kind, **other), folder=tmp_path, resume="adopt") == found


def test_the_next_step_has_them_within_an_epoch_too(data):
    """A window of two micro-batches ends in a step with the rates that were set between the two."""
    model = build()
    model.predict(data.train)
    before = model.state_dict()
    still = Change("on_batch_end", 1, 1, **dict.fromkeys(RATES, 0.0))
    fit(data, model, still, epochs=1)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_a_group_can_be_stopped_alone(data):
    class Freeze(Callback):
        def on_epoch_begin(self, model, epoch):
            if epoch == 3:
                self.before = model.state_dict()
                model.set_params(lr_other=0.0)

        def on_epoch_end(self, model, epoch, logs):
            self.after = model.state_dict()

    freeze = Freeze()
    fit(data, build(), freeze)
    moved = {n.split(".")[0] for n, w in freeze.after.items() if not torch.equal(w, freeze.before[n])}
    assert moved == {"audio", "vision"}


def test_the_history_has_a_column_for_what_changed_alone(data):
    model = build()
    fit(data, model, Change("on_epoch_begin", 3, lr_other=1e-4, decay_audio=0.5))
    assert model.history_["lr_other"] == [5e-3, 5e-3, 1e-4, 1e-4]
    assert model.history_["decay_audio"] == [1e-2, 1e-2, 0.5, 0.5]
    assert not model.history_.keys() & (OTHER.keys() - {"lr_other", "decay_audio"})
    back = build()
    steps = [Change("on_epoch_begin", 2, lr_text=0.0), Change("on_epoch_begin", 3, lr_text=5e-5)]
    fit(data, back, *steps)
    assert back.history_["lr_text"] == [5e-5, 0.0, 5e-5, 5e-5]
    assert not fit(data, build())["history"].keys() & OTHER.keys()


@KINDS
@pytest.mark.parametrize("at", [(2, 1), (3, 2), (3, 0), (4, 1)])
def test_a_resumed_run_goes_on_with_them_to_the_same_bits(kind, other, at, data, tmp_path):
    """The callback does not set them again: they are in the checkpoint."""

    def changes() -> list[Callback]:
        return [
            Change("on_epoch_begin", 2, **other),
            Change("on_batch_end", 3, 2, **dict.fromkeys(other, 1e-4)),
        ]

    whole = fit(data, model_of(kind), *changes())
    with pytest.raises(Cut):
        fit(data, model_of(kind), *changes(), CutAt(*at), folder=tmp_path)
    assert fit(data, model_of(kind), *changes(), folder=tmp_path) == whole


def test_rates_given_anew_are_adopted_in_place_of_those_that_were_set(data, tmp_path):
    change = Change("on_epoch_begin", 2, lr_other=1e-4, lr_audio=2e-4)
    with pytest.raises(Cut):
        fit(data, build(), change, CutAt(3, 0), folder=tmp_path)
    model = build(lr_other=7e-3)
    fit(data, model, folder=tmp_path, resume="adopt")
    assert model.history_["lr_other"] == [5e-3, 1e-4, 7e-3, 7e-3]  # it was cut before the end of epoch 3
    assert model.history_["lr_audio"] == [1e-3, 2e-4, 2e-4, 2e-4]


@pytest.mark.parametrize("rate", ['"much"', "null", "-1", "1" + "0" * 400, "true"])
def test_rates_that_are_none(rate, data, tmp_path):
    """In a damaged record of how the run began."""
    fit(data, build(), folder=tmp_path, epochs=1)
    for record in tmp_path.rglob("state.json"):
        text = record.read_text()
        assert text.count('"train.lr_other": 0.005') == 1
        record.write_text(text.replace('"train.lr_other": 0.005', f'"train.lr_other": {rate}'))
    with pytest.raises(CheckpointError, match="are damaged: expected a rate as lr_other"):
        fit(data, build(), folder=tmp_path, resume="adopt")


@pytest.mark.parametrize("kind", ["mmiln", "self_mm"])
@pytest.mark.parametrize(
    "params", [{"patience": 1}, {"batch_size": 2}, {"seed": 4}, {"dtype": "float64"}, {"freeze_text": True}]
)
def test_nothing_else_can_change_during_a_run(kind, params, data):
    model = model_of(kind)
    before = model.config
    said = rf"is being trained, so {next(iter(params))} can't change: .* only learning rates .*lr_audio"
    with pytest.raises(StateError, match=said):
        fit(data, model, Change("on_epoch_begin", 2, lr_audio=1.0, **params))
    assert model.config.train == before.train
    with pytest.raises(ConfigError, match="lr_audio"):
        fit(data, model, Change("on_epoch_begin", 2, lr_audio=-1.0))
    assert model.config.train == before.train
    assert fit(data, model)["best"]


def test_a_baseline_can_change_its_rates_between_runs(data):
    model, given = model_of("self_mm"), model_of("self_mm", **OF_BASELINES)
    model.predict(data.test)
    model.set_params(**OF_BASELINES)
    assert fit(data, model) == fit(data, given)


# A schedule


def test_a_schedule_sets_the_rates_of_each_epoch(data):
    class Same(Callback):
        def on_epoch_begin(self, model, epoch):
            model.set_params(**{name: rate * 0.5 ** (epoch - 1) for name, rate in initial.items()})

    model = build()
    initial = {name: model.config.train[name] for name in RATES}
    found = fit(data, model, LearningRate(lambda epoch: 0.5 ** (epoch - 1)))
    assert found == fit(data, build(), Same())
    for name, rate in initial.items():
        assert found["history"][name] == [rate, rate / 2, rate / 4, rate / 8]
    assert {name: model.config.train[name] for name in RATES} == initial


def test_a_schedule_is_that_of_lambda_lr(data):
    """Which counts epochs from 0."""
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=5e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)
    rates = []
    for _ in range(4):
        rates += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    model = build()
    fit(data, model, LearningRate(lambda epoch: 0.9 ** (epoch - 1)))
    assert model.history_["lr_other"] == pytest.approx(rates, rel=1e-12)


@pytest.mark.parametrize("kind", ["mmiln", "self_mm", "text_only"])
def test_a_schedule_goes_on_after_a_resume_and_after_an_interruption(kind, data, tmp_path):
    def schedule() -> LearningRate:
        return LearningRate(lambda epoch: 1 / epoch)

    whole = model_of(kind)
    whole.fit(data.train, data.valid, epochs=4, callbacks=[schedule()], progress=False)
    model = model_of(kind)
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 0.0, "progress": False, "epochs": 4}
    for at in ((2, 2), (3, 0)):  # the same model again, as in a notebook
        with pytest.raises(Cut):
            model.fit(data.train, data.valid, callbacks=[schedule(), CutAt(*at)], **kept)
    model.fit(data.train, data.valid, callbacks=[schedule()], **kept)
    assert dict(model.history_) | {"seconds": 0} == dict(whole.history_) | {"seconds": 0}
    found = model.state_dict()
    assert all(torch.equal(weight, found[name]) for name, weight in whole.state_dict().items())
    assert model.config == whole.config


@pytest.mark.parametrize("factor", [math.nan, math.inf, -1.0, None, "0.5"])
def test_what_is_no_factor_is_refused(factor, data):
    model = build()
    with pytest.raises(ConfigError, match=r"a factor, a finite number of 0 or more; got .* for epoch 2"):
        fit(data, model, LearningRate(lambda epoch: 1.0 if epoch == 1 else factor))
    assert model.config.train["lr_other"] == TINY["lr_other"]
    with pytest.raises(ConfigError, match="needs a function of the epoch"):
        LearningRate(0.5)


def test_a_schedule_is_that_of_any_run(data):
    assert run(data, callbacks=[LearningRate(lambda epoch: 1.0)]) == run(data)
