"""Callbacks: stopping, saving, logging, exceptions; also of runs that are resumed."""

import csv
import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from mmiln.callbacks import (
    Callback,
    Checkpoint,
    CSVLogger,
    EarlyStopping,
    MlflowLogger,
    PseudoLabels,
    TensorBoard,
    WandbLogger,
)
from mmiln.callbacks.stopping import Monitor
from mmiln.errors import ConfigError, StateError

TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2, "batch_size": 8, "accumulate": 1}
HOOKS = ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(16, 8, 8)


def build(**changes: Any) -> mmiln.Model:
    return mmiln.Model("mosi", **{**TINY, "seed": 3, **changes})


def fit(
    data, *callbacks: Callback, model: Any = None, epochs: int = 3, valid: bool = True, **more: Any
) -> Any:
    model = build() if model is None else model
    part = data.valid if valid else None
    model.fit(data.train, part, epochs=epochs, callbacks=callbacks, progress=False, **more)
    return model


class Recorder(Callback):
    def __init__(self, **returns: bool) -> None:
        self.events: list[str] = []
        self.returns = returns

    def __getattribute__(self, name: str) -> Any:
        if name not in (*HOOKS, "on_exception"):
            return super().__getattribute__(name)
        return lambda *arguments: self.events.append(name) or self.returns.get(name)


# The protocol


def test_the_plan_is_known_before_training(data):
    class Look(Callback):
        def on_train_begin(self, model):
            self.seen = self.plan

    look = Look()
    fit(data, look, epochs=2)
    assert (look.seen.epochs, look.seen.batches) == (2, 2)
    fit(data, look, model=build(), epochs=1, valid=False)
    assert look.seen.epochs == 1


def test_any_callback_may_stop_and_all_are_called(data):
    stops, other = Recorder(on_epoch_end=True), Recorder()
    model = fit(data, stops, other)
    assert model.history_.epochs == 1
    assert stops.events == other.events
    assert other.events == [
        "on_train_begin",
        "on_epoch_begin",
        *["on_batch_end"] * 2,
        "on_epoch_end",
        "on_train_end",
    ]
    assert not np.isnan(model.predict(data.test).score).any()


def test_a_stop_before_the_first_epoch_trains_none(data):
    before = build()
    before.predict(data.test)
    model = fit(
        data, Recorder(on_train_begin=True), Recorder(on_epoch_begin=True, on_batch_end=True), model=before
    )
    assert model.history_.epochs == 0
    assert fit(data, Recorder(on_epoch_begin=True, on_batch_end=True)).history_.epochs == 3


@pytest.mark.parametrize("wrong", [EarlyStopping(), [EarlyStopping], [print], None, [None]])
def test_what_is_no_list_of_callbacks_is_refused(wrong, data):
    with pytest.raises(ConfigError, match=r"callbacks must be .*mmiln\.Callback.*, got"):
        build().fit(data.train, callbacks=wrong, progress=False)


@pytest.mark.parametrize("hook", HOOKS)
def test_an_exception_names_callback_and_hook(hook, data):
    class Breaks(Callback):
        pass

    def broken(*arguments: Any) -> None:
        raise LookupError("mine")

    setattr(Breaks, hook, broken)
    model, seen = build(), Recorder()
    with pytest.raises(LookupError, match="mine") as caught:
        fit(data, seen, Breaks(), model=model)
    assert caught.value.__notes__ == [f"raised by {hook} of the callback {Breaks.__name__}"]
    assert seen.events[-1] == "on_exception"
    assert len(model.predict(data.test)) == 8
    before = model.state_dict()["text.conv.weight"]
    assert fit(data, model=model, epochs=1).history_.epochs == 1
    assert not torch.equal(before, model.state_dict()["text.conv.weight"])


def test_ctrl_c_and_broken_loaders_are_told(data):
    class CtrlC(Callback):
        def on_batch_end(self, model, epoch, batch):
            raise KeyboardInterrupt

    seen = Recorder()
    with pytest.raises(KeyboardInterrupt):
        fit(data, seen, CtrlC())
    assert seen.events[-1] == "on_exception"

    class Loader:
        dataset = data.train

        def __iter__(self):
            yield next(iter(data.train.loader(8)))
            raise OSError("disk")

    seen = Recorder()
    with pytest.raises(OSError, match="disk"):
        build().fit(Loader(), callbacks=[seen], progress=False)
    assert seen.events[-1] == "on_exception"


# Early stopping


class Curve(mmiln.Callback):
    """Replaces what was measured by a given curve, before others look."""

    def __init__(self, name: str, values: list[float]) -> None:
        self.name, self.values = name, values

    def on_epoch_end(self, model, epoch, logs):
        model.history_[self.name][-1] = self.values[epoch - 1]


@pytest.mark.parametrize(
    ("arguments", "values", "epochs"),
    [
        ({"monitor": "valid_corr", "patience": 1}, [0.1, 0.3, 0.2, 0.9], 3),
        ({"monitor": "valid_corr", "patience": 2}, [0.3, 0.2, 0.4, 0.1, 0.4, 0.5], 5),
        ({"monitor": "valid_corr", "patience": 1, "mode": "min"}, [0.1, 0.3, 0.2], 2),
        ({"monitor": "valid_corr", "patience": 1}, [math.nan, 0.3], 1),
        ({"monitor": "train_total", "patience": 1}, [3.0, 2.0, 2.0], 3),
        ({"monitor": "train_total", "patience": 1, "min_delta": 0.5}, [3.0, 2.4, 2.0], 3),
        ({"monitor": "train_total", "patience": 2, "min_delta": 0.5}, [3.0, 2.6, 2.4, 2.0], 4),
        ({"monitor": "valid_has0_f1", "patience": 1}, [0.5, 0.5], 2),
        ({"monitor": "valid_acc5", "patience": 1}, [0.4, 0.5, 0.3, 0.9], 3),
        ({"monitor": "pseudo_shift_audio", "patience": 1, "mode": "max"}, [0.5, 0.6, 0.1], 3),
    ],
)
def test_early_stopping_by_any_measure(arguments, values, epochs, data):
    stopping = EarlyStopping(**arguments)
    model = fit(data, Curve(stopping.monitor.name, values), stopping, epochs=len(values))
    assert model.history_.epochs == epochs


@pytest.mark.parametrize("name", ["acc2", "acc3", "acc5", "f1", "corr"])
def test_measures_of_ch_sims_should_rise(name):
    history = mmiln.History({f"valid_{name}": [0.4, 0.6, 0.5], "valid_mae": [0.3, 0.4, 0.5]})
    assert Monitor(f"valid_{name}").best_epoch(history) == 2
    assert Monitor("valid_mae").best_epoch(history) == 1
    assert Monitor("pseudo_corr_audio").mode == "max"
    assert Monitor("pseudo_mae_audio").mode == "min"


def test_the_weights_are_those_of_the_lowest_mae_all_the_same(data):
    valid = [0.9, 0.3, 0.2, 0.1]
    stopping = EarlyStopping("valid_corr", patience=3)
    history = fit(data, Curve("valid_corr", valid), stopping, epochs=4).history_
    assert history.best_epoch == int(np.argmin(history["valid_mae"])) + 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"mode": "up"}, "mode must be"),
        ({"min_delta": -0.1}, "min_delta must be 0 or more"),
        ({"min_delta": math.nan}, "min_delta must be 0 or more"),
    ],
)
def test_wrong_arguments_of_early_stopping(arguments, said):
    with pytest.raises(ConfigError, match=said):
        EarlyStopping(**arguments)


def test_a_measure_that_there_is_none_of_is_named(data):
    with pytest.raises(
        ConfigError, match=r"'valid_mea' is not measured by this run: one of train_task, "
    ) as caught:
        fit(data, EarlyStopping("valid_mea"))
    assert "on_epoch_end of the callback EarlyStopping" in caught.value.__notes__[0]
    with pytest.raises(ConfigError, match="'valid_corr' is not measured"):
        fit(data, EarlyStopping("valid_corr"), valid=False)


def test_a_run_that_was_stopped_is_over_also_when_it_is_resumed(data, tmp_path):
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 0, "epochs": 5}
    curve = Curve("valid_corr", [0.5, 0.4, 0.3, 0.6, 0.7])
    stopped = fit(data, curve, EarlyStopping("valid_corr", patience=2), **kept)
    assert stopped.history_.epochs == 3
    seen = Recorder()
    again = fit(data, curve, EarlyStopping("valid_corr", patience=2), seen, **kept)
    assert seen.events == ["on_train_begin", "on_train_end"]
    assert dict(again.history_) == dict(stopped.history_)
    assert (again.predict(data.test).score == stopped.predict(data.test).score).all()
    further = fit(data, curve, EarlyStopping("valid_corr", patience=3), **kept)
    assert further.history_.epochs == 5


# Saving


def test_checkpoints_by_number(data, tmp_path):
    weights: list[dict[str, torch.Tensor]] = []

    class Weights(Callback):
        def on_epoch_end(self, model, epoch, logs):
            weights.append(model.state_dict())

    fit(data, Weights(), Checkpoint(tmp_path / "all"), Checkpoint(tmp_path / "some", every=2))
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == [
        "epoch-0001",
        "epoch-0002",
        "epoch-0003",
    ]
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["epoch-0002"]
    again = mmiln.Model.from_pretrained(tmp_path / "some" / "epoch-0002").state_dict()
    assert all(torch.equal(weight, again[name]) for name, weight in weights[1].items())


def test_checkpoints_of_the_best_alone_also_after_a_resume(data, tmp_path):
    curve = Curve("valid_corr", [0.1, 0.4, 0.2, 0.3])
    kept = {"checkpoint_dir": tmp_path / "kept", "checkpoint_every": 0}

    def best() -> float:
        return (tmp_path / "best" / "model.safetensors").stat().st_mtime_ns

    fit(data, curve, Checkpoint(tmp_path, monitor="valid_corr"), epochs=2, **kept)
    second = best()
    fit(data, curve, Checkpoint(tmp_path, monitor="valid_corr"), epochs=4, **kept)
    assert best() == second
    curve.values = [0.1, 0.4, 0.2, 0.3, 0.5]
    fit(data, curve, Checkpoint(tmp_path, monitor="valid_corr"), epochs=5, **kept)
    assert best() > second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"every": 2, "monitor": "valid_mae"}, "give one, or two callbacks"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"monitor": "valid_mae", "mode": "best"}, "mode must be"),
    ],
)
def test_wrong_arguments_of_checkpoints(arguments, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        Checkpoint(tmp_path, **arguments)


def test_pseudo_labels_by_epoch(data):
    kept = PseudoLabels()
    model = fit(data, kept)
    assert kept.labels_.keys() == {"audio", "vision"}
    for modality, labels in kept.labels_.items():
        shifts = [float(np.abs(each.astype(float) - data.train.labels).mean()) for each in labels]
        assert shifts == pytest.approx(model.history_[f"pseudo_shift_{modality}"], rel=1e-12)
        assert shifts[0] == 0 < shifts[1] != shifts[2]
        assert not np.shares_memory(labels[1], labels[2])
    fit(data, kept, epochs=1)
    assert len(kept.labels_["audio"]) == 1
    with pytest.raises(StateError, match="no pseudo-labels"):
        fit(data, kept, model=build(audio_dim=0, vision_dim=0))


def test_pseudo_labels_of_a_baseline(data):
    kept = PseudoLabels()
    model = fit(data, kept, model=mmiln.baselines.Baseline("self_mm", batch_size=8, seed=1), epochs=2)
    assert {name: np.shape(labels) for name, labels in kept.labels_.items()} == {
        "text": (2, 16), "audio": (2, 16), "vision": (2, 16),
    }  # fmt: skip
    for modality, labels in kept.labels_.items():
        assert model.history_[f"pseudo_shift_{modality}"][0] == 0
        assert not np.array_equal(labels[0], labels[1])
        np.testing.assert_array_equal(labels[1], model.pseudo_labels[modality])
    with pytest.raises(StateError, match="no pseudo-labels"):
        fit(data, kept, model=mmiln.baselines.Baseline("text_only"))


# Logging


def read(path: Any) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_csv_holds_all_epochs_also_after_a_resume(data, tmp_path):
    path = tmp_path / "new" / "curve.csv"
    kept = {"checkpoint_dir": tmp_path / "kept", "checkpoint_every": 0}
    rows: list[int] = []

    class Look(Callback):
        def on_epoch_end(self, model, epoch, logs):
            rows.append(len(read(path)))

    fit(data, CSVLogger(path), Look(), epochs=2, **kept)
    model = fit(data, CSVLogger(path), Look(), epochs=4, **kept)
    assert rows == [1, 2, 3, 4]
    written = read(path)
    assert [row["epoch"] for row in written] == ["1", "2", "3", "4"]
    for name, values in model.history_.items():
        assert [float(row[name]) for row in written] == pytest.approx(values)
    assert [each.name for each in path.parent.iterdir()] == ["curve.csv"]


def test_a_csv_file_that_can_not_be_is_told_before_training(data, tmp_path):
    (tmp_path / "file").write_text("")
    seen = Recorder()
    with pytest.raises(OSError, match="file") as caught:
        fit(data, CSVLogger(tmp_path / "file" / "curve.csv"), seen)
    assert "on_train_begin of the callback CSVLogger" in caught.value.__notes__[0]
    assert "on_epoch_begin" not in seen.events


class Calls:
    """Takes note of the calls of methods that have the signatures of a service's own."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def note(self, name: str, given: dict[str, Any]) -> None:
        self.calls.append((name, {n: v for n, v in given.items() if n not in ("self", "__class__")}))

    def named(self, name: str) -> list[dict[str, Any]]:
        return [given for called, given in self.calls if called == name]


class SummaryWriter(Calls):
    def add_scalar(
        self, tag, scalar_value, global_step=None, walltime=None, new_style=False, double_precision=False
    ):
        self.note("add_scalar", locals())

    def add_text(self, tag, text_string, global_step=None, walltime=None):
        self.note("add_text", locals())

    def flush(self):
        self.note("flush", {})


def test_tensorboard(data):
    writer = SummaryWriter()
    history = fit(data, TensorBoard(writer)).history_
    scalars = {(c["tag"], c["global_step"]): c["scalar_value"] for c in writer.named("add_scalar")}
    assert len(scalars) == 3 * len(history)
    assert [scalars["valid/has0_acc2", epoch] for epoch in (1, 2, 3)] == history["valid_has0_acc2"]
    assert [scalars["train/total", epoch] for epoch in (1, 2, 3)] == history["train_total"]
    assert [scalars["pseudo_shift/audio", epoch] for epoch in (1, 2, 3)] == history["pseudo_shift_audio"]
    assert "Model('mosi'" in writer.named("add_text")[0]["text_string"]
    assert len(writer.named("flush")) == 3


class WandbConfig(Calls):
    def update(self, d, allow_val_change=None):
        self.note("update", locals())


class WandbRun(Calls):
    def __init__(self) -> None:
        super().__init__()
        self.config = WandbConfig()
        self.summary: dict[str, Any] = {}

    def log(self, data, step=None, commit=None):
        self.note("log", locals())


def test_wandb(data):
    run = WandbRun()
    model = fit(data, WandbLogger(run))
    assert run.config.named("update")[0]["d"] == model.config.to_dict()
    logged = run.named("log")
    assert [each["step"] for each in logged] == [1, 2, 3]
    assert [each["data"]["valid/mae"] for each in logged] == model.history_["valid_mae"]
    assert run.summary == {"best_epoch": model.history_.best_epoch}


class MlflowClient(Calls):
    def log_param(self, run_id, key, value, synchronous=None):
        self.note("log_param", locals())

    def log_metric(
        self, run_id, key, value, timestamp=None, step=None, synchronous=None, dataset_name=None,
        dataset_digest=None, model_id=None,
    ):  # fmt: skip
        self.note("log_metric", locals())

    def set_tag(self, run_id, key, value, synchronous=None):
        self.note("set_tag", locals())


def test_mlflow(data):
    client = MlflowClient()
    model = fit(data, MlflowLogger(client, "run-7"))
    assert {each["run_id"] for _, each in client.calls} == {"run-7"}
    assert {each["key"]: each["value"] for each in client.named("log_param")} == model.config.to_dict()
    mae = {each["step"]: each["value"] for each in client.named("log_metric") if each["key"] == "valid/mae"}
    assert list(mae.values()) == model.history_["valid_mae"]
    assert list(mae) == [1, 2, 3]
    assert client.named("set_tag") == [
        {"run_id": "run-7", "key": "best_epoch", "value": model.history_.best_epoch, "synchronous": None}
    ]


def test_all_callbacks_are_documented():
    for name in mmiln.callbacks.__all__:
        assert inspect.getdoc(getattr(mmiln.callbacks, name)), name
