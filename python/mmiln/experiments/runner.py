"""Runs an experiment: keeps finished runs, and performs the others."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

from ..config import differing
from ..errors import ExperimentError, StateError
from ..files import locked, write_json
from ..model import WIDTHS
from ..training.identity import release
from . import provenance
from .backends import pool_of
from .experiment import DESCRIPTION, Experiment, Task
from .pool import Failure, Job, Pool
from .progress import Display
from .ray_pool import RayPool
from .report import Report
from .runs import RECORD, Record

Description = Experiment | Mapping[str, Any] | str | Path


def run(
    experiment: Description,
    folder: str | Path | None = None,
    *,
    jobs: int = 1,
    progress: bool = True,
    backend: str = "local",
    address: str | None = None,
) -> Report:
    """Performs all unfinished runs, each in a process of its own, and returns the report.

    A run is finished once its ``run.json`` is in its folder. An interrupted run resumes from its last
    checkpoint (one a minute) and ends with the same bits; on Ray it restarts.

    Args:
        experiment: An :class:`Experiment`, the same as plain data, or a TOML file.
        folder: Folder of the results; ``runs/<name>`` by default.
        jobs: Number of runs at a time, which share the cores; results do not depend on it.
        progress: Whether to show progress.
        backend: ``"local"`` for processes of this machine, ``"ray"`` for the machines of a Ray cluster
            (``pip install "mmiln[ray]"``). Those need the same versions of Python, torch, Ray and mmiln,
            and data and text encoders at the same paths; ``jobs`` runs at a time share all their cores.
        address: Address of the Ray cluster; by default the one that ``RAY_ADDRESS`` names or that runs on
            this machine, else this machine alone.

    Raises:
        ConfigError, MissingFileError: The description is wrong, or the backend is not available.
        DeviceError: Models are on CUDA, and no machine of the Ray cluster has a card.
        StateError: The folder holds runs of another protocol, another process runs in it, or this one is
            connected to Ray already and an address is given.
        ExperimentError: Some runs failed; the others are finished and kept.
    """
    experiment = Experiment.given(experiment)
    experiment.check()
    pool = pool_of(backend, jobs, address)
    folder = Path("runs", experiment.name) if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"another process runs an experiment in {folder}: wait for it, or name another folder"
    with locked(folder / ".lock", StateError(busy)):
        failures = _run(experiment, folder, pool, progress)
    if failures:
        raise ExperimentError(
            f"{len(failures)} run{'s' * (len(failures) > 1)} failed, the others are finished in {folder}:\n"
            + "\n".join(map(str, failures))
        )
    return Report.read(folder)


def _run(experiment: Experiment, folder: Path, pool: Pool | RayPool, progress: bool) -> list[Failure]:
    missing = _missing(experiment, folder)
    write_json(folder / DESCRIPTION, experiment.model_dump(mode="json"))
    failures = []
    with Display(len(missing), show=progress) as display:
        work = (Job(experiment, task, folder / task.folder) for task in missing)
        for result in pool.run(work, display.on_event):
            display.ended(result)
            if isinstance(result, Failure):
                failures.append(result)
    return failures


def _missing(experiment: Experiment, folder: Path) -> list[Task]:
    """The tasks without a record.

    Raises:
        StateError: A task has a record that this experiment would not write.
    """

    @cache
    def fingerprint(dataset: str, fold: int | None) -> str:
        return experiment.datasets[dataset].load(fold).fingerprint()

    missing = []
    for task in experiment.tasks():
        if not (folder / task.folder / RECORD).is_file():
            missing.append(task)
            continue
        wanted = _wanted(experiment, task) | {"data": fingerprint(task.dataset, task.fold)}
        known = Record.read(folder / task.folder).identity()
        found = {name: value for name, value in known.items() if name in wanted}
        if different := differing(found, wanted):
            changes = ", ".join(f"{name} {was!r} (now {now!r})" for name, (was, now) in different.items())
            raise StateError(
                f"{folder / task.folder} holds a finished run with {changes}: "
                "name another folder, or delete it to run it anew"
            )
    return missing


def _wanted(experiment: Experiment, task: Task) -> dict[str, Any]:
    """The identity that a task's record must have, but for the data; widths only where they are given."""
    model = experiment.model(task)
    config = {
        name: value
        for name, value in model.config.to_dict().items()
        if name not in WIDTHS or getattr(model, name) is not None
    }
    return {
        **experiment.protocol(task).model_dump(),
        **config,
        "preset": model.preset,
        "text_encoder": model.text_encoder_fingerprint(),
        "mmiln": provenance.code()["version"],
        "torch": release(torch.__version__),
    }
