"""Zero mean and unit variance for each audio and vision column, learned from train alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from mmiln import files
from mmiln.data.arrays import Floats, single
from mmiln.data.sequences import Mapped, Ragged
from mmiln.data.split import Split
from mmiln.errors import DataError, DataWarning, MissingFileError

FILE: Final = "standardizer.safetensors"

_SCALED: Final = ("audio", "vision")
_CONSTANT: Final = 1e-8  # a standard deviation below this share of the column's largest value
LIMIT: Final = 1000.0  # deviations
_BOUNDED: Final = (
    "values of {} more than 1000 deviations from their column's mean in train were bounded there"
)
_BLOCK: Final = 1024  # utterances held in float64 at a time

Doubles = npt.NDArray[np.float64]


@dataclass(eq=False, repr=False)
class Standardizer:
    """``(x - mean) / std`` per column of audio and vision; constant columns become 0.

    A result beyond 1000 deviations, as of a column that hardly varies in train, becomes 1000, and
    :class:`mmiln.errors.DataWarning` says so.

    Attributes:
        mean: (w,) float64 by modality.
        std: (w,) float64 by modality, over all true frames; 0 marks a constant column.

    >>> split = Split(["a", "b"], [0, 1], audio=[np.zeros((1, 2)), np.array([[2.0, 0.0]])])
    >>> scaler = Standardizer.fit(split)
    >>> scaler.transform(split).audio[1].tolist(), scaler.constant
    ([[1.0, 0.0]], {'audio': 1})
    """

    mean: dict[str, Doubles]
    std: dict[str, Doubles]

    @classmethod
    def fit(cls, split: Split) -> Standardizer:
        """Learn means and deviations from the true frames of a split, which should be train.

        Raises DataError where a value is not finite.
        """
        mean: dict[str, Doubles] = {}
        std: dict[str, Doubles] = {}
        for name in _SCALED:
            if (frames := getattr(split, name)) is None:
                continue
            count = int(split.lengths(name).sum())
            with np.errstate(invalid="ignore"):  # infinities of both signs
                mean[name] = np.sum([b.sum(axis=0) for b in _blocks(frames)], axis=0) / count
            if not np.isfinite(mean[name]).all():
                raise DataError(_not_finite(name, split))
            squares = [_squares(b, mean[name]).sum(axis=0) for b in _blocks(frames)]
            deviation = np.sqrt(np.sum(squares, axis=0) / count)
            largest = np.max([np.abs(b, out=b).max(axis=0) for b in _blocks(frames)], axis=0)
            std[name] = np.where(deviation > _CONSTANT * largest, deviation, 0.0)
        return cls(mean, std)

    @property
    def constant(self) -> dict[str, int]:
        """The number of constant columns by modality, for modalities that have any."""
        counts = {name: int((std == 0).sum()) for name, std in self.std.items()}
        return {name: count for name, count in counts.items() if count}

    @overload
    def transform(self, split: Split) -> Split: ...
    @overload
    def transform(self, split: Mapping[str, Any]) -> dict[str, Any]: ...
    def transform(self, split: Split | Mapping[str, Any]) -> Split | dict[str, Any]:
        """A new split, or batch, with standardized audio and vision.

        Frames of a converted data set are scaled at each access; a modality that is absent stays so. A batch
        is a dictionary with arrays (..., w) or lists of arrays (T, w).

        Raises DataError where widths differ from the fitted ones or a value is NaN.
        """
        if isinstance(split, Mapping):
            return {
                name: self._of_batch(name, value) if name in _SCALED else value
                for name, value in split.items()
            }
        scaled, clamped = self.scaled(split)
        for note in clamped:
            warnings.warn(note, DataWarning, stacklevel=2)
        return scaled

    def scaled(self, split: Split) -> tuple[Split, list[str]]:
        """The result of :meth:`transform`, and what there is to say of results that were bounded."""
        fields: dict[str, Any] = {}
        notes = []
        for name in _SCALED:
            if not split.dims[name]:
                continue
            self._check_width(name, split.dims[name])
            frames = getattr(split, name)
            if isinstance(frames, Ragged):
                fields[name] = Mapped(frames, partial(self._at_access, name, split.id))
                continue
            parts = [self._scaled(name, split.id[i], each) for i, each in enumerate(frames)]
            fields[name] = [part for part, _ in parts]
            if far := sum(count for _, count in parts):
                ids = [split.id[i] for i, (_, count) in enumerate(parts) if count]
                notes.append(
                    f"{far} values of {name} are more than {LIMIT:g} deviations from their column's mean in "
                    f"train, and were bounded there, in {len(ids)} utterances such as {ids[0]!r}."
                )
        return replace(split, **fields), notes

    def _of_batch(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if isinstance(value, (list, tuple)):
            return [self._of_batch(name, each) for each in value]
        frames = single(value)
        self._check_width(name, frames.shape[-1])
        flat, far = self._scaled(name, "the batch", frames.reshape(-1, frames.shape[-1]))
        if far:
            warnings.warn(_BOUNDED.format(name), DataWarning, stacklevel=3)
        return flat.reshape(frames.shape)

    def _check_width(self, name: str, width: int) -> None:
        if width != (fitted := len(self.mean.get(name, ()))):
            raise DataError(f"expected {name} {fitted} wide, as fitted, got {width}")

    def _at_access(self, name: str, ids: list[str], position: int, frames: Floats) -> Floats:
        scaled, far = self._scaled(name, ids[position], frames)
        if far:
            warnings.warn(_BOUNDED.format(name), DataWarning, stacklevel=2)
        return scaled

    def _scaled(self, name: str, utterance: str, frames: Floats) -> tuple[Floats, int]:
        """Scaled frames, and the number of results that were bounded."""
        mean, std = self.mean[name], self.std[name]
        with np.errstate(over="ignore", invalid="ignore"):
            scale = np.divide(1.0, std, out=np.zeros_like(std), where=std > 0)
            scaled = (frames - mean) * scale
        far = int((np.abs(scaled) > LIMIT).sum())
        if far:
            np.clip(scaled, -LIMIT, LIMIT, out=scaled)
        if np.isnan(scaled).any():
            column = int(np.nonzero(np.isnan(scaled))[1][0])
            raise DataError(
                f"column {column} of {name} in {utterance!r} is not finite: mend that value, or read or "
                "convert its source with nonfinite='zero'"
            )
        return scaled.astype(np.float32), far

    def save(self, directory: str | Path) -> Path:
        """Write ``standardizer.safetensors``, whole or not at all, into a directory; returns its path."""
        path = Path(directory) / FILE
        if not path.parent.is_dir():
            raise MissingFileError(f"expected an existing directory, got {str(directory)!r}")
        arrays = {f"{name}.mean": value for name, value in self.mean.items()}
        arrays |= {f"{name}.std": value for name, value in self.std.items()}
        files.write(path, lambda temporary: save_file(arrays, temporary))
        return path

    @classmethod
    def load(cls, directory: str | Path) -> Standardizer:
        """Read what :meth:`save` wrote. Raises MissingFileError or DataError."""
        path = Path(directory) / FILE
        if not path.is_file():
            raise MissingFileError(f"expected {FILE} in {str(directory)!r}, but it is not there")
        try:
            arrays = load_file(path)
        except SafetensorError as error:
            raise DataError(f"{FILE} is damaged: {error}") from None
        names = [name for name in _SCALED if f"{name}.mean" in arrays]
        if set(arrays) != {f"{name}.{what}" for name in names for what in ("mean", "std")}:
            raise DataError(f"expected mean and std of audio and vision, got {sorted(arrays)}")
        for name, array in arrays.items():
            fits = array.ndim == 1 and array.shape == arrays[f"{name.partition('.')[0]}.mean"].shape
            if not fits or array.dtype != np.float64 or not np.isfinite(array).all():
                raise DataError(f"expected {name} to be a row of finite float64 numbers in {FILE}")
        mean = {name: arrays[f"{name}.mean"] for name in names}
        return cls(mean, {name: arrays[f"{name}.std"] for name in names})


def _not_finite(name: str, split: Split) -> str:
    """The message about the first value that is not finite."""
    every = enumerate(getattr(split, name))
    utterance, frames = next((i, frames) for i, frames in every if not np.isfinite(frames).all())
    frame, column = np.argwhere(~np.isfinite(frames))[0]
    return (
        f"expected finite {name} to standardize, got {frames[frame, column]} in frame {frame}, column "
        f"{column} of {split.id[utterance]!r}: mend it, or read or convert its source with nonfinite='zero'"
    )


def _squares(block: Doubles, mean: Doubles) -> Doubles:
    """Squared deviations from the mean, computed in the memory of the block."""
    np.subtract(block, mean, out=block)
    return np.square(block, out=block)


def _blocks(frames: Sequence[Floats]) -> Iterator[Doubles]:
    for at in range(0, len(frames), _BLOCK):
        yield np.concatenate(frames[at : at + _BLOCK], dtype=np.float64)
