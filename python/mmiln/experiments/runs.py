"""Training runs on disk: a folder for each run, with its settings, curve, metrics and predictions."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

import numpy as np
import pydantic

from .. import files, plotting
from ..callbacks import Callback
from ..callbacks.stopping import check_monitor
from ..data import Dataset, Split
from ..errors import DataError, StateError
from ..labels import MOSI, LabelRange
from ..plain import Plain, faults
from ..results.history import BEST_BY, History
from ..results.measures import MEASURES, family_of
from ..results.metrics import Metrics
from ..results.predictions import Predictions
from ..training import scoring
from ..training.estimator import Estimator
from ..training.identity import release
from ..training.loop import Resume
from ..training.ranks import Ranks, is_first
from . import provenance

if TYPE_CHECKING:
    import pandas as pd

RECORD: Final = "run.json"
PREDICTIONS: Final = "predictions.csv"

_REPORTED: Final = {
    "config": ("patience",),
    "code": ("version", "digest"),
    "machine": ("torch", "processor", "device"),
}

_Count = Annotated[int, pydantic.Field(ge=0, lt=2**63)]
Numbers = dict[str, float | None]  # a measure without a value is null in JSON


def _known(monitor: str) -> str:
    if monitor not in {f"valid_{name}" for name in MEASURES}:
        raise ValueError(f"there is no measure {monitor!r}")
    return monitor


class Row(Plain):
    """The row of a table that a run belongs to.

    Attributes:
        model: Name of the model.
        grid: The fields that were varied, with their values in this run.
    """

    model: str
    grid: dict[str, Any] = pydantic.Field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join([self.model, *(f"{name}={value}" for name, value in self.grid.items())])

    def __hash__(self) -> int:
        return hash(str(self))


class Protocol(Plain):
    """The settings that, like config and data, must be equal for runs to be averaged.

    Attributes:
        epochs: Largest number of epochs.
        selection: The part that chose the epoch: ``"valid"``, or ``"test"``, which is biased.
        monitor: The measure of that part that chose it, by its name in the history.
        standardized: Whether audio and vision were scaled by the train part.
        folds: Number of folds by video where the run is one of them; ``None`` for the parts of the file.
        shuffled_labels: Whether train and valid had their labels permuted, as a control.
    """

    epochs: int
    selection: Literal["valid", "test"] = "valid"
    monitor: Annotated[str, pydantic.AfterValidator(_known)] = BEST_BY
    standardized: bool = False
    folds: int | None = None
    shuffled_labels: bool = False

    @property
    def choice(self) -> str:
        """What distinguishes the epoch that was chosen.

        >>> Protocol(epochs=1).choice
        'the lowest MAE on: valid'
        """
        measure = MEASURES[self.monitor.removeprefix("valid_")]
        return f"the {'highest' if measure.rises else 'lowest'} {measure.label} on: {self.selection}"


class Record(Plain):
    """The record of a finished run: ``run.json``."""

    format: Literal[1] = 1
    row: Row
    dataset_name: str
    fingerprint: str
    sizes: dict[str, Annotated[_Count, pydantic.Field(ge=1)]]
    seed: int
    fold: int | None = None
    protocol: Protocol
    preset: str
    config: dict[str, Any]
    text_encoder: str | None
    label_range: Annotated[LabelRange, pydantic.AfterValidator(LabelRange.checked)] = MOSI
    code: dict[str, str]
    machine: dict[str, str | int]
    best_epoch: _Count
    history: dict[str, list[float | None]]
    metrics: dict[str, Numbers]
    parameters: _Count
    seconds: float
    peak_memory_mib: float
    finished: datetime

    @pydantic.model_validator(mode="after")
    def _whole(self) -> Self:
        """Checks that everything that reports need is present."""
        if not self.history.get("seconds"):
            raise ValueError("history lacks seconds")
        for name, keys in _REPORTED.items():
            if missing := [key for key in keys if key not in getattr(self, name)]:
                raise ValueError(f"{name} lacks {', '.join(missing)}")
        if not {"valid", "test"} & self.sizes.keys():
            raise ValueError("sizes lacks valid and test")
        return self

    @classmethod
    def read(cls, folder: Path) -> Record:
        """The record of a run's folder.

        Raises:
            DataError: It is damaged or of another format.
        """
        path = folder / RECORD
        try:
            return cls.model_validate_json(path.read_bytes())
        except pydantic.ValidationError as error:
            raise DataError(f"{path} is no record of a run: {faults(error)[0]}") from None

    def identity(self) -> dict[str, Any]:
        """Protocol, config, versions and data of the run, which with row and fold determine it."""
        return {
            **self.protocol.model_dump(),
            **self.config,
            "preset": self.preset,
            "text_encoder": self.text_encoder,
            "mmiln": self.code["version"],
            "torch": release(str(self.machine["torch"])),
            "data": self.fingerprint,
        }

    def write(self, folder: Path) -> None:
        """Writes ``run.json``, whole or not at all."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, allow_nan=False)
        files.write_text(folder / RECORD, text + "\n")


@dataclass(frozen=True)
class Run:
    """A trained model and its measures, with the weights that validation chose."""

    model: Estimator
    history: History
    metrics: dict[str, Metrics]
    record: Record
    folder: Path


def train(
    dataset: Dataset,
    model: Estimator,
    folder: Path,
    *,
    epochs: int,
    monitor: str = BEST_BY,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    name: str | None = None,
    row: Row | None = None,
    protocol: Protocol | None = None,
    fold: int | None = None,
    keep_model: bool = True,
    resume: Resume | None = None,
) -> Run:
    """Fits ``model`` on the train part, selects on the valid part, measures both and the test part.

    Writes to ``folder``: ``predictions.csv`` of the parts measured, ``pseudo_labels.csv`` of the train part
    where the model has any and, last, ``run.json``. With ``keep_model`` also the model (with the
    standardizer of its inputs), ``history.csv`` and ``learning_curve.png``. With ``resume`` (see
    :meth:`mmiln.Model.fit`) checkpoints are kept in ``checkpoints`` until the run is finished. A ``protocol``
    replaces ``monitor``. Of several processes that torchrun started, only the first writes.

    Raises:
        DataError: The dataset lacks the part that the epoch is chosen on.
        StateError: The checkpoints are of another run.
    """
    if protocol is None:
        check_monitor(monitor, family_of(dataset.label_range))
        scaled = dataset.standardizer is not None
        protocol = Protocol(epochs=epochs, monitor=monitor, standardized=scaled)
    chooser = dataset.splits.get(protocol.selection)
    if chooser is None:
        raise DataError(
            "training selects the best epoch on a "
            + ("validation" if protocol.selection == "valid" else "test")
            + " part, which this dataset has not"
        )
    fingerprint = dataset.fingerprint()
    if protocol.shuffled_labels:
        shuffle_labels(dataset, model.config.train["seed"])
    checkpoints = folder / "checkpoints"
    history = model.fit(
        dataset.train,
        chooser,
        epochs=epochs,
        monitor=protocol.monitor,
        progress=progress,
        callbacks=callbacks,
        checkpoint_dir=None if resume is None else checkpoints,
        resume="auto" if resume is None else resume,
    )
    if model.trained is not None:
        known = {"dataset": name or dataset.name, "fingerprint": fingerprint}
        model.trained = model.trained.model_copy(update=known)
    began = time.perf_counter()
    measured = {name: part for name, part in dataset.splits.items() if name != "train"}
    ranks = Ranks.here(model.device)
    predictions = {name: scoring.predict(model, part, ranks) for name, part in measured.items()}
    if protocol.selection == "valid":
        model.calibration_ = predictions["valid"].calibration()
    label_range = next(iter(predictions.values())).label_range
    metrics = {
        name: Metrics.of(part.truth, predictions[name].score, label_range) for name, part in measured.items()
    }
    seconds = sum(history["seconds"]) + time.perf_counter() - began

    record = Record(
        row=row or Row(model=model.kind),
        dataset_name=name or dataset.name,
        fingerprint=fingerprint,
        sizes={name: len(part) for name, part in dataset.splits.items()},
        seed=model.config.train["seed"],
        fold=fold,
        protocol=protocol,
        preset=model.preset,
        config=model.config.to_dict() | {"dtype": model.dtype, "precision": model.precision},
        text_encoder=model.text_encoder_fingerprint(),
        label_range=label_range,
        code=provenance.code(),
        machine=provenance.machine(model.device),
        best_epoch=history.best_epoch or 0,
        history={name: [_number(value) for value in values] for name, values in history.items()},
        metrics={
            name: {measure: _number(value) for measure, value in each.to_dict().items()}
            for name, each in metrics.items()
        },
        parameters=model.summary().total,
        seconds=seconds,
        peak_memory_mib=provenance.peak_memory(),
        finished=datetime.now(UTC),
    )
    run = Run(model, history, metrics, record, folder)
    if is_first():
        _write(run, dataset, predictions, keep_model=keep_model)
        if resume is not None:
            shutil.rmtree(checkpoints)
    if ranks is not None:
        ranks.wait()
    return run


def _write(run: Run, dataset: Dataset, predictions: dict[str, Predictions], *, keep_model: bool) -> None:
    """Writes the files of a run, its record last."""
    folder, write = run.folder, files.write
    folder.mkdir(parents=True, exist_ok=True)
    frame = _frame({name: each.to_pandas() for name, each in predictions.items()})
    write(folder / PREDICTIONS, lambda path: frame.to_csv(path, index=False))
    _write_pseudo_labels(run.model, dataset.train, folder)
    if keep_model:
        run.model.save_pretrained(folder)
        if dataset.standardizer is not None:
            dataset.standardizer.save(folder)
        write(folder / "history.csv", lambda path: run.history.to_frame().to_csv(path))
        curve = plotting.new_figure()
        plotting.learning_curve(run.history, curve.subplots())
        write(folder / "learning_curve.png", lambda path: curve.savefig(path, format="png", dpi=150))
    run.record.write(folder)


def shuffle_labels(dataset: Dataset, seed: int) -> None:
    """Permutes the labels of train and of valid among their utterances; the test part keeps its own."""
    rng = np.random.default_rng(seed)
    for name in ("train", "valid"):
        if (split := dataset.splits.get(name)) is not None:
            order = rng.permutation(len(split))
            split.labels = split.truth[order]
            split.unimodal_labels = {m: labels[order] for m, labels in split.unimodal_labels.items()}


def _frame(parts: dict[str, pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    return pd.concat(parts, names=["part"]).reset_index("part").reset_index(drop=True)


def _write_pseudo_labels(model: Estimator, split: Split, folder: Path) -> None:
    try:
        labels = model.pseudo_labels
    except StateError:  # a model of one modality has none
        return
    import pandas as pd

    frame = pd.DataFrame({"id": split.id, "label": split.labels, **labels})
    files.write(folder / "pseudo_labels.csv", lambda path: frame.to_csv(path, index=False))


def _number(value: float) -> float | None:
    return value if abs(value) < float("inf") else None  # false for NaN too


def part_of(dataset: Dataset, name: str) -> Split:
    """A part of a dataset by name.

    Raises:
        DataError: There is none of that name.
    """
    if name not in dataset.splits:
        raise DataError(f"this dataset has the parts {', '.join(dataset.splits)}; got {name!r}")
    return dataset.splits[name]
