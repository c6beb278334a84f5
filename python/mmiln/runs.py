"""Training runs on disk: one folder a seed, with the model, its curve, its metrics and predictions."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import plotting, pretrained
from .data import Dataset, Split
from .errors import DataError
from .history import History
from .metrics import Metrics
from .model import Model


@dataclass(frozen=True)
class Run:
    """One trained model and what it measured with the weights that validation chose."""

    model: Model
    history: History
    metrics: dict[str, Metrics]
    folder: Path


def train(dataset: Dataset, model: Model, folder: Path, *, epochs: int, progress: bool = True) -> Run:
    """Fits ``model`` on the train part, selects on the valid part, measures both and the test part.

    Writes to ``folder``: the model (with the standardizer of its inputs), ``history.csv``,
    ``learning_curve.png``, ``metrics.json`` and ``predictions.csv`` of the last part measured.

    Raises:
        DataError: The dataset has no validation part.
    """
    if dataset.valid is None:
        raise DataError("training selects the best epoch on a validation part, which this dataset has not")
    history = model.fit(dataset.train, dataset.valid, epochs=epochs, progress=progress)
    measured = {"valid": dataset.valid} | ({"test": dataset.test} if dataset.test is not None else {})
    predictions = {name: model.predict(part) for name, part in measured.items()}
    metrics = {name: Metrics.of(part.labels, predictions[name].score) for name, part in measured.items()}

    model.save_pretrained(folder)
    if dataset.standardizer is not None:
        dataset.standardizer.save(folder)
    write = pretrained.write
    write(folder / "history.csv", lambda path: history.to_frame().to_csv(path))
    curve = plotting.new_figure()
    history.plot(curve.subplots())
    write(folder / "learning_curve.png", lambda path: curve.savefig(path, format="png", dpi=150))
    frame = predictions[list(measured)[-1]].to_pandas()
    write(folder / "predictions.csv", lambda path: frame.to_csv(path, index=False))
    record = {"best_epoch": history.best_epoch, **{name: m.to_dict() for name, m in metrics.items()}}
    write(folder / "metrics.json", lambda path: path.write_text(json.dumps(record, indent=2) + "\n"))
    return Run(model, history, metrics, folder)


def spread(runs: list[Run], part: str) -> dict[str, dict[str, float | None]]:
    """Mean and (sample) standard deviation over runs of each measure on a part; one run has no deviation."""
    rows = [run.metrics[part].to_dict() for run in runs]
    return {
        name: {
            "mean": float(np.mean([row[name] for row in rows])),
            "std": float(np.std([row[name] for row in rows], ddof=1)) if len(rows) > 1 else None,
        }
        for name in rows[0]
        if name != "n"
    }


def part_of(dataset: Dataset, name: str) -> Split:
    """A part of a dataset by name.

    Raises:
        DataError: There is none of that name.
    """
    if name not in dataset.splits:
        raise DataError(f"this dataset has the parts {', '.join(dataset.splits)}; got {name!r}")
    return dataset.splits[name]


def overrides(assignments: list[str]) -> dict[str, Any]:
    """Config fields out of ``name=value`` texts; values are JSON, or plain words.

    Raises:
        DataError: A text is no assignment.

    >>> overrides(["alpha=0.3", "variant=no_mrm"])
    {'alpha': 0.3, 'variant': 'no_mrm'}
    """
    fields = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign:
            raise DataError(f"expected name=value, got {assignment!r}")
        try:
            fields[name.strip()] = json.loads(value)
        except ValueError:
            fields[name.strip()] = value.strip()
    return fields
