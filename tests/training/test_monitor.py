"""The measure of validation that chooses the epoch."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mmiln
from mmiln import cli
from mmiln.errors import ConfigError, StateError
from mmiln.experiments import runs
from mmiln.experiments.report import Report
from mmiln.results.history import History
from support import small_file
from support.small_runs import Cut, CutAt, build


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(24, 12, 12)


class Weights(mmiln.Callback):
    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, model, epoch, logs):
        self.epochs.append(model.state_dict())


def fit(data, monitor, *callbacks, model=None, epochs=6, **more):
    model = model or build(lr_other=2e-2)
    history = model.fit(
        data.train, data.valid, epochs=epochs, monitor=monitor, callbacks=callbacks, progress=False, **more
    )
    return model, history


@pytest.mark.parametrize("kind", ["mmiln", "text_only"])
@pytest.mark.parametrize(
    ("monitor", "best"), [("valid_mae", np.argmin), ("valid_corr", np.argmax), ("valid_has0_f1", np.argmax)]
)
def test_the_weights_are_those_of_the_best_epoch_by_any_measure(monitor, best, kind, data):
    model = build(lr_other=2e-2) if kind == "mmiln" else mmiln.baselines.Baseline(kind, lr=2e-2, seed=1)
    seen = Weights()
    model, history = fit(data, monitor, seen, model=model)
    assert history.best_epoch == best(history[monitor]) + 1
    assert history.monitor == monitor
    kept = seen.epochs[history.best_epoch - 1]
    assert all(torch.equal(weight, kept[name]) for name, weight in model.state_dict().items())
    assert getattr(model.evaluate(data.valid), monitor.removeprefix("valid_")) == max(
        history[monitor], key=lambda value: value if best is np.argmax else -value
    )


class Curve(mmiln.Callback):
    """Correlation with the validation part has these values, epoch by epoch."""

    def __init__(self, monkeypatch, *values):
        self.now, of = 1, mmiln.Metrics.of

        def changed(*arguments):
            measured = of(*arguments)
            vars(measured)["corr"] = values[self.now - 1]
            return measured

        monkeypatch.setattr("mmiln.results.metrics.Metrics.of", changed)

    def on_epoch_begin(self, model, epoch):
        self.now = epoch


def test_patience_waits_for_the_same_measure(data, monkeypatch):
    curve = Curve(monkeypatch, 0.1, 0.5, 0.4, 0.3, 0.6, 0.7)
    _, history = fit(data, "valid_corr", curve, patience=2, epochs=6)
    assert (history.epochs, history.best_epoch) == (4, 2)


@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        ("valid_cor", "one of valid_mae, valid_corr, .*; got 'valid_cor'; did you mean 'valid_corr'"),
        ("mae", "got 'mae'; did you mean 'valid_mae'"),
        ("val_f1", "got 'val_f1'; did you mean"),
        ("valid_acc3", "got 'valid_acc3'"),  # of CH-SIMS
        ("train_total", "must be a measure of the validation part, .*got 'train_total'"),
        (None, "got None"),
    ],
)
def test_a_name_is_checked_before_training(monitor, said, data):
    with pytest.raises(ConfigError, match=said):
        fit(data, monitor, CutAt(1, 1))


def test_without_a_validation_part_there_is_nothing_to_monitor(data):
    with pytest.raises(
        ConfigError, match=r"monitor='valid_corr' is measured on a validation part: give valid="
    ):
        build().fit(data.train, monitor="valid_corr", progress=False)
    history = build().fit(data.train, epochs=1, progress=False)
    assert (history.best_epoch, history.monitor) == (None, None)


def test_measures_of_ch_sims_have_their_own_names():
    data = mmiln.data.synthetic(16, 8, 8)
    for part in data.splits.values():
        part.labels, part.label_range = part.labels / 3, mmiln.labels.LabelRange(-1, 1)
    model = mmiln.Model("sims", num_layers=1, batch_size=8)
    with pytest.raises(ConfigError, match=r"one of .*valid_acc3.*; got 'valid_has0_acc2'"):
        fit(data, "valid_has0_acc2", model=model)
    assert fit(data, "valid_acc3", model=model, epochs=1)[1].best_epoch == 1


def test_nan_is_never_the_best(data, monkeypatch):
    nan = float("nan")
    _, history = fit(data, "valid_corr", Curve(monkeypatch, nan, 0.2, nan, 0.1), epochs=4)
    assert (history.epochs, history.best_epoch) == (4, 2)


def test_where_all_is_nan_the_last_weights_stay_and_a_warning_says_so(data, monkeypatch):
    seen = Weights()
    with pytest.warns(RuntimeWarning, match="valid_corr is NaN in every epoch, .* those of the last"):
        model, history = fit(data, "valid_corr", Curve(monkeypatch, *[float("nan")] * 3), seen, epochs=3)
    assert history.best_epoch is None
    assert all(torch.equal(w, seen.epochs[-1][n]) for n, w in model.state_dict().items())


def test_another_measure_is_another_run(data, tmp_path):
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 0.0}
    with pytest.raises(Cut):
        fit(data, "valid_corr", CutAt(3, 1), **kept)
    with pytest.raises(StateError, match=r"of another run, with monitor 'valid_corr' \(now 'valid_mae'\)"):
        fit(data, "valid_mae", **kept)
    _, history = fit(data, "valid_corr", **kept)
    _, whole = fit(data, "valid_corr")
    assert (history.best_epoch, history.monitor) == (whole.best_epoch, "valid_corr")
    assert history["valid_corr"] == whole["valid_corr"]


def test_it_is_said_where_the_best_epoch_is(data):
    history = History({"valid_mae": [1.0, 0.9], "valid_corr": [0.4, 0.3]})
    history.best_epoch, history.monitor = 1, "valid_corr"
    assert "best epoch by valid_corr 1;" in repr(history)
    assert "best epoch by valid_corr, 1" in history._repr_html_()
    history.monitor = "valid_mae"
    assert "best epoch 1;" in repr(history)


def test_the_command_and_its_record_name_the_measure(tmp_path):
    file = small_file.write(tmp_path / "small.pkl")
    fields = ["num_layers=1", "d_model=10", "num_heads=2", "batch_size=8"]
    arguments = ["train", "--data", str(file), "--epochs", "2", "--out", str(tmp_path)]
    arguments += [word for field in fields for word in ("--set", field)]
    said = CliRunner().invoke(cli.app, [*arguments, "--monitor", "valid_corr"], catch_exceptions=False)
    assert said.exit_code == 0, said.output
    assert "epoch chosen by valid_corr on validation" in " ".join(said.output.split())
    record = runs.Record.read(tmp_path / "seed-1111")
    assert record.best_epoch == np.argmax(record.history["valid_corr"]) + 1
    assert record.protocol.choice == "the highest Corr on: valid"
    assert "the epoch with the highest Corr on: valid" in Report.read(tmp_path)._protocol()
    wrong = CliRunner().invoke(cli.app, [*arguments, "--monitor", "corr"])
    assert wrong.exit_code != 0
    assert "did you mean 'valid_corr'?" in " ".join(f"{wrong.output} {wrong.exception}".split())


def test_a_record_of_a_measure_that_there_is_not_is_refused():
    with warnings.catch_warnings(), pytest.raises(ValueError, match="no measure 'valid_beauty'"):
        runs.Protocol(epochs=1, monitor="valid_beauty")
