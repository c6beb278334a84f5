"""The history of a run, and what it says of pseudo-labels."""

import copy
import math
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mmiln
from mmiln import History
from mmiln.baselines import Baseline
from mmiln.errors import NonFiniteError, StateError

TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2, "batch_size": 6, "seed": 2}


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(20, 8, 8)


def fit(data: mmiln.data.Dataset, loader: Any = None, **more: Any) -> mmiln.Model:
    model = mmiln.Model("mosi", **TINY)
    given = {"epochs": 3, "progress": False, **more}
    model.fit(data.train if loader is None else loader, data.valid, **given)
    return model


def test_what_an_epoch_does_not_measure_is_nan():
    history = History()
    history.append({"a": 1.0, "b": 2.0})
    history.append({"b": 3.0, "c": 4.0})
    frame = history.to_frame()
    expected = pd.DataFrame(
        {"a": [1.0, math.nan], "b": [2.0, 3.0], "c": [math.nan, 4.0]}, index=pd.RangeIndex(1, 3, name="epoch")
    )
    pd.testing.assert_frame_equal(frame, expected)


def test_accuracies_are_printed_in_per_cent():
    measured = {"valid_mae": [0.9], "valid_has0_acc2": [0.75], "valid_f1": [math.nan]}
    history = History({"train_total": [2.0]} | measured)
    shown = "train_total 2.0000, valid_mae 0.9000, valid_has0_acc2 75.00%, valid_f1 –"
    assert repr(history) == f"History(1 epochs; last: {shown})"


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda h: pickle.loads(pickle.dumps(h))])
def test_copies(how):
    history = History({"train_total": [2.0, 1.0]})
    history.best_epoch = 2
    again = how(history)
    assert again == history
    assert (again.best_epoch, again.epochs, type(again)) == (2, 2, History)


def test_an_empty_history_has_no_picture():
    assert repr(History()) == "History(no epoch)"
    with pytest.raises(StateError, match="no epoch to draw"):
        History().plot()


def test_a_new_figure_shows_itself_in_a_notebook():
    """Also without pyplot; axes that the user passed are left for the user to show."""
    history = History({"train_total": [2.0, 1.5]})
    drawn = history.plot()
    for shown in (drawn, drawn[0].figure, mmiln.plotting.learning_curve(history).figure):
        assert shown._repr_png_().startswith(b"\x89PNG")
    assert not hasattr(history.plot(drawn[0]), "_repr_png_")


def test_panels_are_those_that_were_measured(data):
    from matplotlib.figure import Figure

    history = fit(data).history_
    axes = history.plot()
    assert len(axes) == 3
    assert all(ax.has_data() for ax in axes)
    alone = History({name: history[name] for name in history if name.startswith("train_")})
    given = Figure().subplots()
    assert alone.plot(given) == [given]
    grid = Figure().subplots(2, 2)
    with pytest.raises(StateError, match=r"3 panels to draw \(loss_parts, .*\), got 4 axes"):
        history.plot(grid)
    assert History.plot(history, grid.ravel()[:3].tolist()) == grid.ravel()[:3].tolist()


# Pseudo-labels


def expected_shift(model: mmiln.Model, split: mmiln.data.Split, name: str) -> float:
    return float(np.abs(model.pseudo_labels[name].astype(np.float64) - split.labels).mean())


@pytest.mark.parametrize("kind", ["split", "list"])
def test_shifts_are_those_of_the_labels(kind, data):
    loader = data.train if kind == "split" else list(data.train.loader(6))
    seen: dict[str, list[float]] = {"audio": [], "vision": []}

    class Look(mmiln.Callback):
        def on_epoch_end(self, model, epoch, logs):
            for name, shifts in seen.items():
                shifts.append(expected_shift(model, data.train, name))
                assert logs[f"pseudo_shift_{name}"] == shifts[-1]

    history = fit(data, loader, callbacks=[Look()]).history_
    for name, shifts in seen.items():
        assert history[f"pseudo_shift_{name}"] == shifts
        assert shifts[0] == 0 < shifts[1]


def test_an_epoch_counts_the_utterances_that_it_read(data):
    """The loader reads another half of the data in each epoch."""

    class Halves:
        dataset = data.train
        half = 1

        def __iter__(self):
            self.half = 1 - self.half
            part = range(10 * self.half, 10 * self.half + 10)
            yield mmiln.data.collate([data.train[i] for i in part])

    loader = Halves()
    model = fit(data, loader, epochs=4, callbacks=[])
    index = np.arange(10, 20)
    true = data.train.labels[index]
    shift = np.abs(model.pseudo_labels["audio"][index].astype(np.float64) - true).mean()
    assert model.history_["pseudo_shift_audio"][3] == shift


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (mmiln.Model("mosi", **TINY, audio_dim=0), {"vision"}),
        (mmiln.Model("mosi", **TINY, audio_dim=0, vision_dim=0), set()),
        (mmiln.Model("mosi", **TINY, variant="no_mrm", dtype="float64"), {"audio", "vision"}),
        (Baseline("self_mm", batch_size=6), {"text", "audio", "vision"}),
        (Baseline("text_only", batch_size=6), set()),
    ],
    ids=lambda value: str(sorted(value)) if isinstance(value, set) else None,
)
def test_only_modalities_that_have_pseudo_labels(model, names, data):
    history = model.fit(data.train, epochs=2, progress=False)
    shifts = {name: values for name, values in history.items() if name.startswith("pseudo_shift_")}
    assert shifts.keys() == {f"pseudo_shift_{name}" for name in names}
    assert all(values[0] == 0 < values[1] for values in shifts.values())


@pytest.mark.parametrize("epoch", [1, 2])
@pytest.mark.parametrize(
    "build", [lambda: mmiln.Model("mosi", **TINY), lambda: Baseline("self_mm", batch_size=6)]
)
def test_a_run_that_was_cut_off_measures_the_same(build, epoch, data, tmp_path):
    class Cut(mmiln.Callback):
        def on_batch_end(self, model, now, batch):
            if (now, batch) == (epoch, 2):
                raise KeyboardInterrupt

    kept = {"epochs": 3, "progress": False, "checkpoint_dir": tmp_path, "checkpoint_every": 0}
    whole = build().fit(data.train, epochs=3, progress=False)
    with pytest.raises(KeyboardInterrupt):
        build().fit(data.train, callbacks=[Cut()], **kept)
    again = build().fit(data.train, **kept)
    for name in ("pseudo_shift_audio", "pseudo_shift_vision"):
        assert again[name] == whole[name]


def test_an_utterance_that_was_skipped_does_not_count(data):
    loader = list(data.train.loader(10))
    loader[1]["text"] = [1e30 * frames for frames in loader[1]["text"]]
    with pytest.raises(NonFiniteError):
        fit(data, loader)
    with pytest.warns(RuntimeWarning, match="skipped"):
        model = fit(data, loader, epochs=2, nonfinite="skip")
    labels = model.pseudo_labels["audio"]
    assert np.isnan(labels[10:]).all()
    shift = np.abs(labels[:10].astype(np.float64) - data.train.labels[:10]).mean()
    assert model.history_["pseudo_shift_audio"][1] == shift


def test_small_rates_can_be_read():
    history = History({"valid_acc7": [0.25], "lr_text": [5e-6]})
    assert repr(history) == "History(1 epochs; last: valid_acc7 25.00%, lr_text 5e-06)"
    assert ">5e-06<" in history._repr_html_()
