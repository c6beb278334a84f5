"""What a user may write, as a type checker sees it: mypy reads it strictly, tests/test_typing.py runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

import mmiln
from mmiln import Estimator
from mmiln import functional as F
from mmiln.baselines import Baseline
from mmiln.callbacks import Callback, Checkpoint, CSVLogger, EarlyStopping, ProgressBar, PseudoLabels
from mmiln.data import Dataset, Split
from mmiln.errors import MmilnError
from mmiln.sklearn import Regressor


class Count(Callback):
    """Stops after so many micro-batches."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.seen = 0

    def on_batch_end(self, model: Estimator, epoch: int, batch: int) -> None:
        self.seen += 1

    def on_epoch_end(self, model: Estimator, epoch: int, logs: dict[str, float]) -> bool:
        assert_type(logs["valid_mae"], float)
        return self.seen >= self.most and epoch <= self.plan.epochs


class Short(ProgressBar):
    """Shows the F1."""

    def shown(self, logs: dict[str, float]) -> dict[str, str]:
        return {"F1": f"{logs['valid_has0_f1']:.3f}"}


def train(folder: Path) -> mmiln.Model:
    """Data, a model, its history, measures and files."""
    data: Dataset = mmiln.data.synthetic(n_train=24, n_valid=8, n_test=8)
    print(data.describe(), data.train)
    model = mmiln.Model("mosi", num_layers=1, d_model=8, num_heads=2, seed=1)
    labels = PseudoLabels()
    callbacks = [
        EarlyStopping("valid_corr", patience=2),
        CSVLogger(folder / "curve.csv"),
        Checkpoint(folder / "saved", monitor="valid_acc7"),
        labels,
        Count(most=2),
        Short(),
    ]
    history = model.fit(data.train, data.valid, epochs=2, callbacks=callbacks)
    assert_type(history, mmiln.History)
    assert_type(history["train_total"], list[float])
    assert_type(history.best_epoch, int | None)
    assert_type(history.to_frame(), pd.DataFrame)
    assert_type(labels.labels_["audio"][0], npt.NDArray[np.float32])

    metrics = model.evaluate(data.splits["test"])
    assert_type(metrics.mae, float)
    assert_type(metrics.to_dict(), dict[str, float])
    assert_type(metrics.has0_acc2, float)
    assert_type(mmiln.Metrics.of([0.2, -0.4], [0.1, -0.6], label_range=(-1, 1)).acc3, float)
    predictions = model.predict(data.train)
    assert_type(predictions.score, npt.NDArray[np.float32])
    assert_type(predictions.id, list[str] | None)
    assert_type(model.calibrate(data.valid).residuals, npt.NDArray[np.float64])
    assert_type(model.predict(data.train, classes=7, interval=0.8).classes, npt.NDArray[np.str_] | None)
    seeds = mmiln.fit_seeds(model, [1, 2], data.train, data.valid, epochs=1, progress=False)
    assert_type(seeds.models, dict[int, Estimator])
    assert_type(seeds.to_pandas(), pd.DataFrame)
    print(metrics, predictions.to_pandas().head(), model.summary().total)

    model.save_pretrained(folder / "model")
    again = mmiln.Model.from_pretrained(folder / "model")
    assert_type(again, mmiln.Model)
    assert_type(mmiln.load_pretrained(folder / "model"), Estimator)
    return again


def exchange(split: Split) -> Split:
    """Utterances, frames, tensors."""
    frame = split.to_pandas(arrays=True)
    assert_type(Split.from_pandas(frame[frame["label"] > 0]), Split)
    for item in split:
        assert_type(item, dict[str, Any])
    return Split.from_items(list(split), labels=np.zeros(len(split)))


def compare(split: Split) -> None:
    """A baseline, scikit-learn, operations by themselves."""
    baseline = Baseline("lmf", batch_size=8)
    assert_type(baseline.set_params(batch_size=4), Baseline)
    assert_type(baseline.fit(split, epochs=1, progress=False), mmiln.History)
    module = mmiln.Model("mosi", text_dim=2, audio_dim=0, vision_dim=0).to_torch()
    assert_type(module, mmiln.pytorch.MMILN)
    assert_type(mmiln.Model.from_torch(module), mmiln.Model)
    regressor = Regressor(baseline, epochs=1, validation_fraction=0)
    assert_type(regressor.fit(split, split.labels).predict(split), npt.NDArray[np.float32])
    frames = torch.randn(5, 4, requires_grad=True)
    assert_type(F.mean_pool(frames, [2, 3]), torch.Tensor)


def refuse() -> str:
    """What goes wrong is of one tree of errors."""
    try:
        mmiln.Model("mosi", num_layers=-1)
    except MmilnError as error:
        return str(error)
    raise AssertionError


def mistakes(model: mmiln.Model, split: Split) -> None:
    """Not run: each line is wrong, and mypy must say so."""
    model.fit(split, epochs="3")  # type: ignore[arg-type]
    model.fit(split, callbacks=[EarlyStopping])  # type: ignore[list-item]
    model.fit(split, resume="always")  # type: ignore[arg-type]
    EarlyStopping("valid_mae", mode="up")  # type: ignore[arg-type]
    Split.from_items([1, 2])  # type: ignore[list-item]
    model.evaluate(split).maes  # type: ignore[attr-defined]  # noqa: B018
    Regressor("mosi")  # type: ignore[arg-type]
    model.parameters()  # type: ignore[attr-defined]
    model(split)  # type: ignore[operator]


def main(folder: Path) -> None:
    """All that is right."""
    model = train(folder)
    assert_type(model.get_params(), dict[str, Any])
    compare(exchange(mmiln.data.synthetic(n_train=16, n_valid=4, n_test=4).train))
    print(refuse())
