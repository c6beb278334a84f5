"""Checkpoints on disk of all that a training run depends on: a resumed run gives the same bits.

A checkpoint is a directory ``checkpoint-<epoch>-<batch>`` with ``state.safetensors`` and ``state.json``. It
is written under a temporary name, synced and renamed; the last two are kept. Reading one runs no code.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
import pydantic
import torch
from filelock import FileLock, Timeout
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ..errors import CheckpointError, StateError
from ..files import read_json, read_safetensors, sha256, sync, write_safetensors, write_text
from ..plain import Plain

KEPT: Final = 2
TENSORS: Final = "state.safetensors"
DESCRIPTION: Final = "state.json"
WRITING: Final = ".writing"  # suffix of one that is being written

_NAME: Final = re.compile(r"checkpoint-\d{6}-\d{9}")
_LOADER, _TORCH = "random.loader", "random.torch"

_Word = Annotated[int, Field(ge=0, lt=2**32)]
_Count = Annotated[int, Field(ge=1, lt=2**31)]


class Random(Plain):
    """States of numpy's and Python's global generators.

    numpy does not validate a state, and would read beyond it.
    """

    numpy: tuple[
        Literal["MT19937"],
        Annotated[list[_Word], Field(min_length=624, max_length=624)],
        Annotated[int, Field(ge=0, le=624)],
        Literal[0, 1],
        float,
    ]
    python: tuple[
        Literal[3], Annotated[list[_Word], Field(min_length=625, max_length=625)], pydantic.FiniteFloat | None
    ]

    @field_validator("python")
    @classmethod
    def _place(cls, python: tuple[int, list[int], float | None]) -> tuple[int, list[int], float | None]:
        if python[1][-1] > 624:
            raise ValueError("the place is beyond the state")
        return python


class Position(Plain):
    """Where a run is, beside its tensors.

    Attributes:
        identity: Config, data and versions, which must be the same to resume.
        counters: The core's counters, as JSON.
        epoch: The epoch that is under way, from 1.
        batch: How many of its micro-batches are done.
        losses: The losses of those that were not skipped; ``sizes`` counts their utterances.
        seconds: The time spent on the epoch so far.
        history: The measures of the epochs before.
        best_epoch: The epoch with the best weights so far.
        rates: Learning rates and decays that are not as the run began.
        random: States of Python's and numpy's global generators when the epoch began.
    """

    format: Literal[1] = 1
    identity: dict[str, Any]
    counters: str
    epoch: Annotated[int, Field(ge=1, lt=10**6)]
    batch: Annotated[int, Field(ge=0, lt=10**9)]
    losses: list[list[float]]
    sizes: list[_Count]
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    history: dict[str, list[pydantic.FiniteFloat | None]]
    best_epoch: _Count | None
    rates: dict[str, pydantic.FiniteFloat] = Field(default_factory=dict)
    random: Random

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if len(self.losses) != len(self.sizes) or len(self.sizes) > self.batch:
            raise ValueError("losses, sizes and the number of micro-batches do not agree")
        if any(len(values) >= self.epoch for values in self.history.values()):
            raise ValueError("the history goes beyond the epoch")
        measured = self.history.get("valid_mae", [])
        if self.best_epoch is not None and None in (measured[self.best_epoch - 1 :] or [None])[:1]:
            raise ValueError("the best epoch was not measured")
        return self


class Streams:
    """States, at one moment, of the random generators that a loader may draw its order from.

    A user's loader may draw from the global generators of numpy and Python, so these are kept too.
    """

    def __init__(self, tensors: dict[str, Tensor], random_: Random) -> None:
        self.tensors = tensors
        self.random = random_

    @classmethod
    def now(cls, loader: Iterable[Any]) -> Streams:
        """The loader's own generator, and the global ones of torch, numpy and Python."""
        tensors = {_TORCH: torch.get_rng_state()}
        generator = getattr(loader, "generator", None)
        if isinstance(generator, torch.Generator):
            tensors[_LOADER] = generator.get_state()
        name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
        return cls(
            tensors,
            Random.model_validate(
                {
                    "numpy": (name, np.asarray(keys).tolist(), place, has_gauss, gauss),
                    "python": random.getstate(),
                }
            ),
        )

    def put_back(self, loader: Iterable[Any]) -> None:
        """Sets the generators to these states.

        Raises:
            CheckpointError: The states of torch's generators are missing or invalid.
        """
        generator = getattr(loader, "generator", None)
        try:
            torch.set_rng_state(self.tensors[_TORCH])
            if isinstance(generator, torch.Generator) and _LOADER in self.tensors:
                generator.set_state(self.tensors[_LOADER])
        except (KeyError, RuntimeError, TypeError) as error:
            raise CheckpointError(f"the checkpoint has no states of torch's generators: {error}") from None
        name, keys, place, has_gauss, gauss = self.random.numpy
        np.random.set_state((name, np.array(keys, np.uint32), place, has_gauss, gauss))  # noqa: NPY002
        version, internal, gauss_next = self.random.python
        random.setstate((version, tuple(internal), gauss_next))


class Checkpoints:
    """The checkpoints of one run in a folder.

    Args:
        folder: Holds nothing but checkpoints; one run at a time may use it.
        every: Seconds between two checkpoints, or ten times the time to write one if that is more; 0 writes
            one after every micro-batch.

    Use it as a context manager: entering deletes what a killed process left half-written.

    Raises:
        CheckpointError: The folder can't be written to.
        StateError: Another run uses it.
    """

    def __init__(self, folder: Path, every: float) -> None:
        self.folder = folder
        self.every = every
        self._last = time.monotonic()  # when the last one was written, or training began
        self._took = 0.0  # seconds to write it
        self._lock = FileLock(folder / ".lock", blocking=False)

    def __enter__(self) -> Checkpoints:
        with _as_checkpoint_error(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire()
                for path in self.folder.glob(f"*{WRITING}"):
                    shutil.rmtree(path)
            except Timeout:
                raise StateError(
                    f"another run keeps its checkpoints in {self.folder}: name another folder"
                ) from None
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def all(self) -> list[Path]:
        """Every checkpoint, the oldest first."""
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    @property
    def due(self) -> bool:
        """Whether the last one is old enough for another."""
        return time.monotonic() - self._last >= (max(self.every, 10 * self._took) if self.every else 0)

    def save(self, tensors: dict[str, Tensor], position: Position) -> None:
        """Writes a checkpoint and drops all but the last two.

        Where that fails, as on a full disk, a warning says why; the ones before stay, and training goes on.
        """
        begun = time.monotonic()
        try:
            with _as_checkpoint_error(self.folder):
                self._write(tensors, position)
                for path in self.all()[:-KEPT]:
                    shutil.rmtree(path)
        except CheckpointError as error:
            kept = ", ".join(path.name for path in self.all()) or "none yet"
            warnings.warn(
                f"{error}. Training goes on; checkpoints to resume from: {kept}",
                RuntimeWarning,
                stacklevel=2,
            )
        self._last = time.monotonic()
        self._took = self._last - begun

    def _write(self, tensors: dict[str, Tensor], position: Position) -> None:
        final = self.folder / f"checkpoint-{position.epoch:06d}-{position.batch:09d}"
        staging = final.with_name(f".{final.name}{WRITING}")
        staging.mkdir()
        try:
            write_safetensors(staging / TENSORS, tensors)
            description = position.model_dump(mode="json") | {"sha256": sha256(staging / TENSORS)}
            write_text(staging / DESCRIPTION, json.dumps(description))
            sync(staging)
            if final.exists():  # a damaged one, which was skipped
                shutil.rmtree(final)
            staging.rename(final)
            sync(self.folder)
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def latest(self) -> tuple[dict[str, Tensor], Position] | None:
        """The last whole checkpoint, if there is any; damaged ones are skipped with a warning.

        Raises:
            CheckpointError: There are checkpoints, and every one is damaged.
        """
        faults = []
        for path in reversed(self.all()):
            try:
                return _read(path)
            except CheckpointError as error:
                faults.append(str(error))
                warnings.warn(f"{error}: trying the one before", RuntimeWarning, stacklevel=2)
        if faults:
            raise CheckpointError(f"no checkpoint in {self.folder} is whole: {'; '.join(faults)}")
        return None


def _read(path: Path) -> tuple[dict[str, Tensor], Position]:
    try:
        description = read_json(path / DESCRIPTION)
        written = description.pop("sha256")
        if sha256(path / TENSORS) != written:
            raise CheckpointError(f"{path / TENSORS} is not what was written (its SHA-256 differs)")
        return read_safetensors(path / TENSORS), Position.model_validate(description)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is no whole checkpoint: {error}") from None


@contextmanager
def _as_checkpoint_error(folder: Path) -> Iterator[None]:
    """Raises errors of the file system as a :class:`CheckpointError` that names the folder."""
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, SafetensorError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"a checkpoint can't be written to {folder}: {error}") from error
