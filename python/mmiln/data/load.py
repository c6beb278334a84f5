"""One way in: a path of any known format becomes a Dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mmiln.data.clean import Nonfinite, clean_nonfinite
from mmiln.data.dataset import Dataset
from mmiln.data.misa import read_misa
from mmiln.data.mmsa import SPLITS, read_mmsa
from mmiln.data.sequences import Padded
from mmiln.data.standardizer import standardized
from mmiln.data.unpickle import load_pickle
from mmiln.errors import DataError, MissingFileError

_FORMATS: Final = (
    "a dictionary {train: {audio: ..., ...}, ...} as of MMSA, or a list of samples as of MISA, MMIM and BBFN"
)


def load(
    path: str | Path,
    *,
    standardize: bool = False,
    nonfinite: Nonfinite = "zero",
    seed: int = 0,
    test: bool = True,
) -> Dataset:
    """Read a data set: a pickle of MMSA's or MISA's format, or a folder of MISA's parts.

    No code of a pickle is run (see :func:`mmiln.data.unpickle.load_pickle`).

    Args:
        path: a file, or a folder with ``train.pkl``, ``dev.pkl`` (or ``valid.pkl``), ``test.pkl``.
        standardize: scale audio and vision columns to mean 0 and variance 1, learned from train.
        nonfinite: what becomes of NaN and infinities in true frames: ``"zero"``, ``"mean"`` (of the
            column in train) or ``"raise"``.
        seed: for the split by video of a single part in MISA's format.
        test: whether to read the test part too; without, its file (of a folder) is not opened, and its
            utterances (of one file of all parts) are dropped unseen.

    Raises:
        MissingFileError: nothing is there, or the folder has no part.
        UnsafePickleError: a pickle asks for more than arrays and plain containers.
        DataError: the content is not as the format demands.
        ConfigError: ``nonfinite`` is unknown.
    """
    dataset = read(Path(path), seed=seed, test=test)
    for split in dataset.splits.values():
        for name in split.fields:
            if isinstance(padded := getattr(split, name), Padded):
                setattr(split, name, padded.read())
    clean_nonfinite(dataset, nonfinite)
    if standardize:
        standardized(dataset)
    return dataset


def read(path: Path, *, seed: int, test: bool) -> Dataset:
    """The data set as it is, padded arrays left in the file where that is mapped."""
    try:
        folder = path.is_dir()
    except OSError as error:  # as of a name that is too long
        raise MissingFileError(f"expected a data set, but there is none: {error}") from None
    if folder:
        dataset = read_misa(_folder(path, test), name=path.name, seed=seed)
    else:
        dataset = _file(path, seed, test)
    if not test:
        dataset.test = None  # of a single part that was split by video
    return dataset


def _folder(path: Path, test: bool) -> dict[str, Sequence[Any]]:
    parts: dict[str, Sequence[Any]] = {}
    for stem, split in SPLITS.items():
        if not (file := path / f"{stem}.pkl").is_file() or (split == "test" and not test):
            continue
        if split in parts:
            raise DataError("expected one validation part, got both valid.pkl and dev.pkl")
        parts[split] = load_pickle(file)
        if not isinstance(parts[split], list):
            raise DataError(
                f"expected {file.name} to be a list of samples as of MISA, got a "
                f"{type(parts[split]).__name__}; name a file of MMSA's format itself"
            )
    if not parts:
        found = sorted(entry.name for entry in path.iterdir())[:10]
        raise MissingFileError(
            f"expected train.pkl, dev.pkl (or valid.pkl) or test.pkl in {str(path)!r}, got {found}"
        )
    return parts


def _file(path: Path, seed: int, test: bool) -> Dataset:
    if not path.exists():
        raise MissingFileError(f"expected a data set, but there is none at {str(path)!r}")
    content = load_pickle(path)
    if isinstance(content, list):
        return read_misa({SPLITS.get(path.stem, "train"): content}, name=path.stem, seed=seed)
    if not isinstance(content, dict):
        raise DataError(f"{path.name}: expected {_FORMATS}; got a {type(content).__name__}")
    if not test:
        content = {key: value for key, value in content.items() if SPLITS.get(key) != "test"}
    parts = {SPLITS[key]: value for key, value in content.items() if key in SPLITS}
    if parts and all(isinstance(value, list) for value in parts.values()):
        return read_misa(parts, name=path.stem, seed=seed)
    return read_mmsa(content, name=path.stem)
