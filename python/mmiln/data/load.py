"""Loads a :class:`Dataset` from a path of any known format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from mmiln.data.clean import Nonfinite, check, clean_nonfinite
from mmiln.data.dataset import Dataset, standardized
from mmiln.data.formats.converted import is_converted, open_converted
from mmiln.data.formats.misa import read_misa
from mmiln.data.formats.mmsa import SPLITS, read_mmsa
from mmiln.data.formats.unpickle import load_pickle
from mmiln.data.sequences import Padded
from mmiln.errors import DataError, MissingFileError

_FORMATS: Final = (
    "a dictionary {train: {audio: ..., ...}, ...} as of MMSA, or a list of samples as of MISA, MMIM and BBFN"
)


def load(
    path: str | Path,
    *,
    standardize: bool = False,
    nonfinite: Nonfinite | None = None,
    seed: int = 0,
    test: bool = True,
) -> Dataset:
    """Read a data set: a pickle of MMSA's or MISA's format, a folder of MISA's parts, or what
    :func:`convert` made of one of them.

    No code of a pickle is run (see ``mmiln.data.formats.unpickle.load_pickle``). True frames are read
    into memory; those of a converted data set stay in its files, and are read at each access.

    Args:
        path: a file, or a folder: with ``train.pkl``, ``dev.pkl`` (or ``valid.pkl``), ``test.pkl``, or a
            converted one.
        standardize: scale audio and vision columns to mean 0 and variance 1, learned from train.
        nonfinite: replaces NaN and infinities in true frames by ``"zero"`` or ``"mean"`` (of the column in
            train), or refuses them (``"raise"``); None for zero, or for the conversion's own choice.
        seed: for the split by video of a single part in MISA's format; converted data sets are split already.
        test: whether to read the test part; if not, its file (in a folder) is not opened, and its
            utterances (in one file of all parts) are dropped unseen.

    Raises:
        MissingFileError: nothing is there, or the folder has no part.
        UnsafePickleError: a pickle asks for more than arrays and plain containers.
        DataError: the content is not as the format demands, or non-finite values were replaced in
            another way when it was converted.
        ConfigError: ``nonfinite`` is unknown.
    """
    if nonfinite is not None:
        check(nonfinite)
    if is_converted(path := Path(path)):
        dataset = open_converted(path, nonfinite=nonfinite, test=test)
    else:
        dataset = read(path, seed=seed, test=test)
        _into_memory(dataset)
        clean_nonfinite(dataset, nonfinite or "zero")
    if standardize:
        standardized(dataset)
    return dataset


def _into_memory(dataset: Dataset) -> None:
    for split in dataset.splits.values():
        for name in split.fields:
            if isinstance(padded := getattr(split, name), Padded):
                setattr(split, name, padded.read())


def read(path: Path, *, seed: int, test: bool) -> Dataset:
    """The data set before cleaning; padded arrays stay in the file where it is mapped."""
    try:
        folder = path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise MissingFileError(f"expected a data set, but there is none: {error}") from None
    if folder:
        dataset = read_misa(_folder(path, test), name=path.name, seed=seed)
    else:
        dataset = _file(path, seed, test)
    if not test:
        dataset.test = None  # a single part was split by video
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
