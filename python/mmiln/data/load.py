"""Loads a :class:`Dataset` from a path of any known format."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mmiln.data.clean import Nonfinite, check, clean_nonfinite
from mmiln.data.dataset import Dataset, standardized
from mmiln.data.folds import split_by_video
from mmiln.data.formats.converted import is_converted, open_converted
from mmiln.data.formats.csd import ENDING as CSD
from mmiln.data.formats.csd import files_of, read_csd
from mmiln.data.formats.misa import read_misa
from mmiln.data.formats.mmsa import read_mmsa
from mmiln.data.formats.tables import ENDINGS as TABLES
from mmiln.data.formats.tables import read_tables
from mmiln.data.formats.unpickle import load_pickle
from mmiln.data.names import PARTS, SPLITS, part_of
from mmiln.data.sequences import Padded
from mmiln.data.target import Target
from mmiln.errors import ConfigError, DataError, DataWarning, MissingFileError
from mmiln.labels import LabelRange

MMSA: Final = "a dictionary of splits, as of MMSA"
MISA: Final = "lists of samples, as of MISA, MMIM, BBFN and MAG-BERT"


def load(
    path: str | Path,
    *,
    standardize: bool = False,
    nonfinite: Nonfinite | None = None,
    seed: int | None = None,
    test: bool = True,
    labels: tuple[float, float] | None = None,
    clamp: bool = False,
    target: int | str | None = None,
) -> Dataset:
    """Read a data set: a pickle of MMSA's, MISA's or MAG-BERT's format, a table in CSV or Parquet, a folder
    of MISA's parts or of a table for each part, a folder of computational sequences (see :func:`load_csd`),
    or what :func:`convert` made of one of them.

    No code of a pickle is run (see ``mmiln.data.formats.unpickle.load_pickle``). True frames are read
    into memory; those of a converted data set stay in its files, and are read at each access. What was
    guessed, left out, cut or clamped is in the data set's ``report``, and
    :class:`mmiln.errors.DataWarning` warns of it.

    Args:
        path: a file, or a folder: with ``train.pkl``, ``dev.pkl`` (or ``valid.pkl``), ``test.pkl``, or
            with ``.csv`` or ``.parquet`` in place of ``.pkl``; with ``.csd`` files; or a converted one.
        standardize: scale audio and vision columns to mean 0 and variance 1, learned from train.
        nonfinite: replaces NaN and infinities in true frames by ``"zero"`` or ``"mean"`` (of the column in
            train), or refuses them (``"raise"``); None for zero, or for the conversion's own choice.
        seed: splits a data set of one part alone by video, about 6 : 2 : 2 in utterances, as this seed
            determines; None leaves it whole, as it is to be predicted or measured.
        test: whether to read the test part; if not, its file (in a folder) is not opened, and its
            utterances (in one file of all parts) are dropped unseen.
        labels: the lowest and the highest label that is possible, such as ``(1, 5)``; scores, measures and
            plots are in this unit. None for [-3, 3], or [-1, 1] where all labels lie in it.
        clamp: whether labels beyond the range become its nearest end, as for some of CMU-MOSEI's.
        target: the label to learn, where there are several: the number of a column, or the name of a
            field.

    Raises:
        MissingFileError: nothing is there, or the folder has no part.
        UnsafePickleError: a pickle asks for more than arrays and plain containers.
        DataError: the content is not as the format demands, or non-finite values were replaced or labels
            read in another way when it was converted.
        ConfigError: ``nonfinite`` or ``labels`` is not as described.
    """
    if nonfinite is not None:
        check(nonfinite)
    chosen = Target(target, None if labels is None else LabelRange.checked(labels), clamp)
    if is_converted(path := Path(path)):
        dataset = open_converted(path, nonfinite=nonfinite, test=test)
        if chosen.range not in (None, dataset.label_range) or target is not None:
            raise DataError(
                f"{path} was converted with labels in {dataset.label_range}: to read others, convert the "
                "source again with labels= and label="
            )
    else:
        dataset = read(path, test=test, target=chosen)
        _into_memory(dataset)
        clean_nonfinite(dataset, nonfinite or "zero")
    return _finished(dataset, standardize, seed, test)


def load_csd(
    folder: str | Path,
    *,
    words: str | None = None,
    text: str | None = None,
    audio: str | None = None,
    vision: str | None = None,
    labels: str | None = None,
    align: bool = False,
    folds: Mapping[str, Sequence[str]] | None = None,
    target: int | str | None = None,
    label_range: tuple[float, float] | None = None,
    clamp: bool = False,
    standardize: bool = False,
    nonfinite: Nonfinite = "zero",
    seed: int | None = None,
    test: bool = True,
) -> Dataset:
    """Read computational sequences of the CMU-MultimodalSDK: a folder of ``.csd`` files.

    Each segment of the labels is an utterance with the words and frames that overlap with it, or, aligned by
    words, with one frame for each word: the mean of the frames, weighted by their overlap with the word, or
    the nearest frame where none overlaps. :func:`load` reads such a folder with the defaults.

    Args:
        folder: the folder. ``folds.json`` in it, if any, has the videos of train, valid and test.
        words, text, audio, vision, labels: files for these, such as ``"CMU_MOSI_COVAREP.csd"``, where their
            names and contents do not tell, or several fit. Text is vectors of words, such as GloVe.
        align: whether audio and vision are aligned by words.
        folds: videos by train, valid and test; None for the standard folds of CMU-MOSI or CMU-MOSEI.
        target: the column of the labels, by number or as sentiment, happy, sad, anger, surprise, disgust,
            fear; None for the sentiment.
        label_range, clamp: the range of labels, ``labels`` and ``clamp`` of :func:`load`.
        standardize, nonfinite, seed, test: as in :func:`load`.

    Raises:
        MissingFileError: the folder has no such files.
        DataError: a file is damaged, several may be the same modality, or h5py is not installed.
        ConfigError: a name is that of no file, or ``nonfinite`` or ``label_range`` is not as described.
    """
    check(nonfinite)
    if not Path(folder).is_dir() or not files_of(Path(folder)):
        raise MissingFileError(f"expected a folder with {CSD} files, got {str(folder)!r}")
    chosen = {"words": words, "text": text, "audio": audio, "vision": vision, "labels": labels}
    among = None if label_range is None else LabelRange.checked(label_range)
    of_labels = Target(target, among, clamp)
    dataset = read_csd(Path(folder), chosen=chosen, align=align, folds=folds, target=of_labels, test=test)
    clean_nonfinite(dataset, nonfinite)
    return _finished(dataset, standardize, seed, test)


def _finished(dataset: Dataset, standardize: bool, seed: int | None, test: bool) -> Dataset:
    """The data set, split and scaled where that is wanted; warns of what was found."""
    if seed is not None and len(dataset.splits) == 1:
        dataset = split_by_video(dataset, seed)
    for missing in [name for name in PARTS if name not in dataset.splits and (test or name != "test")]:
        dataset.report.add(f"There is no {missing} part.")
    if standardize:
        standardized(dataset)
    for warning in dataset.report.warnings:
        warnings.warn(f"{dataset.name}: {warning}", DataWarning, stacklevel=3)
    return dataset


def _into_memory(dataset: Dataset) -> None:
    for split in dataset.splits.values():
        for name in split.fields:
            if isinstance(padded := getattr(split, name), Padded):
                setattr(split, name, padded.read())


def read(path: Path, *, test: bool, target: Target, align: bool = False) -> Dataset:
    """The data set before cleaning; padded arrays stay in the file where it is mapped."""
    try:
        folder = path.is_dir()
    except OSError as error:  # such as a name that is too long
        raise MissingFileError(f"expected a data set, but there is none: {error}") from None
    sequences = folder and files_of(path)
    if align and not sequences:
        raise ConfigError(
            f"align=True is for folders of {CSD} files, which have times of words; got {str(path)!r}"
        )
    if sequences:
        return read_csd(path, chosen={}, align=align, folds=None, target=target, test=test)
    if not folder:
        return _file(path, test, target)
    files = files_of_parts(path)
    if not test and len(files) > 1:
        files.pop("test", None)
    if any(file.suffix.lower() in TABLES for file in files.values()):
        return read_tables(files, name=path.name, target=target, test=test)
    return _said(MISA, read_misa(_lists(files), name=path.name, target=target))


def _said(form: str, dataset: Dataset) -> Dataset:
    """The data set, whose report begins with the format that it was read from."""
    dataset.report.notes.insert(0, f"Read from {form}.")
    return dataset


def files_of_parts(folder: Path) -> dict[str, Path]:
    """The files of a folder by the part that each holds: pickles, or tables.

    Raises:
        DataError: Two files may be the same part, or there are both pickles and tables.
        MissingFileError: There is none.
    """
    entries = sorted(folder.iterdir())
    parts: dict[str, Path] = {}
    for file in entries:
        part = SPLITS.get(file.stem.strip().lower())
        if part is None or file.suffix.lower() not in (".pkl", *TABLES):
            continue
        if part in parts:
            raise DataError(
                f"expected one file for the {part} part, got both {parts[part].name} and {file.name}"
            )
        parts[part] = file
    if len({file.suffix.lower() == ".pkl" for file in parts.values()}) > 1:
        names = ", ".join(file.name for file in parts.values())
        raise DataError(f"expected pickles or tables in {str(folder)!r}, got both: {names}")
    if not parts:
        raise MissingFileError(
            "expected train.pkl, dev.pkl (or valid.pkl) or test.pkl, tables of such names in .csv or "
            f".parquet, or {CSD} files, in {str(folder)!r}, got {[entry.name for entry in entries][:10]}"
        )
    return {part: parts[part] for part in PARTS if part in parts}


def _lists(files: Mapping[str, Path]) -> dict[str, Sequence[Any]]:
    parts: dict[str, Sequence[Any]] = {}
    for part, file in files.items():
        parts[part] = load_pickle(file)
        if not isinstance(parts[part], list):
            raise DataError(
                f"expected {file.name} to be a list of samples as of MISA, got a "
                f"{type(parts[part]).__name__}; name a file of MMSA's format itself"
            )
    return parts


def _file(path: Path, test: bool, target: Target) -> Dataset:
    if not path.exists():
        raise MissingFileError(f"expected a data set, but there is none at {str(path)!r}")
    if path.suffix.lower() in TABLES:
        return read_tables({part_of(path.stem): path}, name=path.stem, target=target, test=test)
    content = load_pickle(path)
    if isinstance(content, list):
        return _said(MISA, read_misa({part_of(path.stem): content}, name=path.stem, target=target))
    if not isinstance(content, dict):
        raise DataError(f"{path.name}: expected {MMSA}, or {MISA}; got a {type(content).__name__}")
    parts = {part: key for key in content if (part := SPLITS.get(str(key).strip().lower()))}
    if not test and len(parts) > 1:
        content.pop(parts.pop("test", None), None)
    if parts and all(isinstance(content[key], list) for key in parts.values()):
        lists = {part: content[key] for part, key in parts.items()}
        return _said(MISA, read_misa(lists, name=path.stem, target=target))
    return _said(MMSA, read_mmsa(content, name=path.stem, target=target))
