"""Converts a data set of any format to a directory that opens in a moment, see `converted.py`."""

from __future__ import annotations

import json
import shutil
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mmiln.data.arrays import Ints
from mmiln.data.clean import Nonfinite, check, clean_nonfinite
from mmiln.data.dataset import Dataset
from mmiln.data.folds import split_by_video
from mmiln.data.formats.converted import (
    FORMAT,
    MANIFEST,
    UTTERANCES,
    File,
    Fingerprints,
    Manifest,
    Part,
    is_converted,
    label_file,
    labels_of,
    layout,
    open_split,
)
from mmiln.data.formats.csd import FOLDS, files_of
from mmiln.data.formats.npy import write_rows
from mmiln.data.formats.staging import Staging, staging
from mmiln.data.load import files_of_parts, load, read
from mmiln.data.split import Split, lengths_of
from mmiln.data.standardizer import FILE as STANDARDIZER
from mmiln.data.standardizer import Standardizer
from mmiln.data.target import Target
from mmiln.data.text_features import load_encoder, put_text_features
from mmiln.errors import DataError, MissingFileError
from mmiln.labels import LabelRange


def convert(
    source: str | Path,
    target: str | Path,
    *,
    nonfinite: Nonfinite = "zero",
    seed: int | None = None,
    labels: tuple[float, float] | None = None,
    clamp: bool = False,
    label: int | str | None = None,
    align: bool = False,
    text_bert: bool = True,
    text_features: str | Path | None = None,
    progress: bool = True,
) -> Dataset:
    """Write a data set as a directory that :func:`load` opens in a moment, without a copy.

    It holds the true frames alone, as float32, in ``.npy`` files with checksums. Large pickles are streamed.
    All written data are read again and compared with the source. The directory appears once it is complete;
    another call for the same source resumes an interrupted or killed conversion.

    Args:
        source: whatever :func:`load` reads.
        target: the directory, such as ``mosei.mmiln``; it must not exist.
        nonfinite: what becomes of NaN and infinities in true frames, as in :func:`load`.
        seed: splits a single part by video, as in :func:`load`.
        labels, clamp: the range of labels, as in :func:`load`.
        label: which of several is learned, ``target`` of :func:`load`.
        align: whether audio and vision are aligned by words; for folders of ``.csd`` files.
        text_bert: whether token ids are kept; without them any text encoder tokenizes ``raw_text`` itself.
        text_features: an encoder of transformers of any kind, by directory or hub name. The last layer that
            it computes of each ``raw_text`` is stored as ``text``, and ``text_bert`` is left out.
        progress: show bars, where the output is a terminal.

    Returns:
        The converted data set, opened.

    Raises:
        MissingFileError: there is no source, or no directory to put the target into.
        UnsafePickleError: a pickle asks for more than arrays and plain containers.
        DataError: the source's content is not as its format demands, the target exists, it can't be
            written, or what was written is not what was read.
        ConfigError: ``nonfinite`` or ``labels`` is not as described, ``text_features`` can't be computed, or
            ``align`` is given for another format.

    >>> import pickle, tempfile
    >>> part = {"id": ["a"], "audio": np.ones((1, 9, 2)), "audio_lengths": [4], "regression_labels": [1.0]}
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "small.pkl").write_bytes(pickle.dumps({"train": part}))
    >>> convert(folder / "small.pkl", folder / "small.mmiln").train.audio[0].shape
    (4, 2)
    """
    check(nonfinite)
    source, target = Path(source), Path(target)
    if target.exists():
        raise DataError(f"{target} exists: name another directory, or delete that")
    if not target.parent.is_dir():
        raise MissingFileError(f"expected an existing directory for {target.name}, got {target.parent}")
    if is_converted(source):
        raise DataError(f"{source} is a converted data set already")
    among = None if labels is None else LabelRange.checked(labels)
    encoder = None if text_features is None else load_encoder(text_features)
    dataset = read(source, test=True, target=Target(label, among, clamp), align=align)
    if seed is not None and len(dataset.splits) == 1:
        dataset = split_by_video(dataset, seed)
    clean_nonfinite(dataset, nonfinite)
    if not text_bert:
        for part, split in dataset.splits.items():
            if split.raw_text is None:
                raise DataError(f"expected raw_text to leave text_bert out, got {split.fields} in {part}")
            split.text_bert = None
        dataset.report.add("text_bert is left out: text encoders tokenize raw_text.")
    if text_features is not None and encoder is not None:
        put_text_features(dataset, text_features, *encoder, progress=progress)
    files = _source_files(source)
    how = {"format": FORMAT, "mmiln": version("mmiln"), "nonfinite": nonfinite, "seed": seed}
    how |= {"labels": among, "clamp": clamp, "label": label, "align": align}
    how |= {"text_bert": text_bert, "text_features": None if text_features is None else str(text_features)}
    made_of = how | {"source": {name: file.model_dump() for name, file in files.items()}}
    bar = partial(tqdm, disable=None if progress else True, dynamic_ncols=True)
    try:
        with staging(target, made_of) as stage:
            _write_splits(dataset, stage, bar)
            written = _compared(dataset, stage, bar)
            scaler = Standardizer.fit(written.train) if "train" in written.splits else None
            if scaler is not None:
                stage.write(STANDARDIZER, lambda path: scaler.save(path.parent))
            manifest = Manifest(
                mmiln=version("mmiln"),
                name=dataset.name,
                source=files,
                nonfinite=nonfinite,
                fields=written.fields,  # type: ignore[arg-type]
                widths=written.dims,
                label_range=written.label_range,
                parts=_parts(written, scaler),
                notes=dataset.report.notes,
                warnings=dataset.report.warnings,
                counts=dataset.report.counts,
                files=dict(sorted(stage.files.items())),
            )
            stage.finish(MANIFEST, manifest.model_dump(mode="json"))
    except OSError as error:
        raise DataError(
            f"{target} can't be written: {error}; once that is mended, the same call goes on where it stopped"
        ) from None
    return load(target)


def _source_files(source: Path) -> dict[str, File]:
    if source.is_file():
        return {source.name: File.of(source)}
    files = files_of(source)
    if files and (folds := source / FOLDS).is_file():
        files.append(folds)
    return {file.name: File.of(file) for file in files or files_of_parts(source).values()}


def _write_splits(dataset: Dataset, stage: Staging, bar: Any) -> None:
    """Writes the files that are not complete yet."""
    todo = {
        f"{part}/{name}": (split, name)
        for part, split in dataset.splits.items()
        for name in layout(split.fields, [*labels_of(split)])
        if f"{part}/{name}" not in stage.files
    }
    needed = sum(_size(split, name) for split, name in todo.values())
    if (free := shutil.disk_usage(stage.folder).free) < needed:
        raise DataError(
            f"{needed / 1e9:.2f} GB are needed in {stage.folder.parent}, where {free / 1e9:.2f} GB are free"
        )
    for path, (split, name) in bar(todo.items(), "writing", unit=" files"):
        stage.write(path, partial(_write, split, name))


def _size(split: Split, name: str) -> int:
    """Bytes of a file of sequences; the other files are small."""
    field = name.removesuffix(".npy")
    if field not in split.fields:
        return 0
    rows, width, dtype = _shape(split, field)
    return rows * width * np.dtype(dtype).itemsize


def _shape(split: Split, field: str) -> tuple[int, int, str]:
    """Rows, columns and type of a sequence's file."""
    rows = int(_lengths(split, field).sum())
    return (rows, 3, "<i8") if field == "text_bert" else (rows, split.dims[field], "<f4")


def _lengths(split: Split, field: str) -> Ints:
    return lengths_of(getattr(split, field), axis=1 if field == "text_bert" else 0)


def _write(split: Split, name: str, path: Path) -> None:
    """Writes a file of a split."""
    field = name.removesuffix(".npy").removesuffix("_offsets")
    if name == UTTERANCES:
        texts = {"id": split.id} | ({} if split.raw_text is None else {"raw_text": split.raw_text})
        path.write_text(json.dumps(texts, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    elif name in (of_labels := {label_file(key): values for key, values in labels_of(split).items()}):
        np.save(path, of_labels[name])
    elif name.endswith("_offsets.npy"):
        np.save(path, np.concatenate([[0], np.cumsum(_lengths(split, field))]))
    else:
        arrays = getattr(split, field)
        tokens = field == "text_bert"
        write_rows(path, *_shape(split, field), (array.T for array in arrays) if tokens else arrays)


def _compared(dataset: Dataset, stage: Staging, bar: Any) -> Dataset:
    """The data set as written, with every utterance compared with the source.

    Raises:
        DataError: One differs; the next call writes its file anew.
    """
    splits = {
        name: open_split(stage.folder / name, part.fields, [*labels_of(part)], part.label_range)
        for name, part in dataset.splits.items()
    }
    for part, split in splits.items():
        for key, values in labels_of(dataset.splits[part]).items():
            if not np.array_equal(values, labels_of(split)[key]):
                raise _differs(stage, part, label_file(key), "labels")
    todo = [(part, name) for part, split in splits.items() for name in ("id", *split.fields)]
    for part, name in bar(todo, "comparing", unit=" fields"):
        read_again, written = dataset.splits[part], splits[part]
        pairs = zip(getattr(read_again, name), getattr(written, name), strict=True)
        for utterance, (expected, got) in zip(read_again.id, pairs, strict=True):
            if not np.array_equal(expected, got):
                file = UTTERANCES if isinstance(got, str) else f"{name}.npy"
                raise _differs(stage, part, file, f"{name} of {utterance!r}")
    return Dataset(splits.get("train"), splits.get("valid"), splits.get("test"), name=dataset.name)


def _differs(stage: Staging, part: str, file: str, what: str) -> DataError:
    """The error of a file that is not as it was to be written, which is written anew by the next call."""
    stage.strike(f"{part}/{file}")
    return DataError(
        f"{part} {what} was written otherwise than it is read: the source was changed meanwhile, or memory "
        "or a disk fails; convert it again"
    )


def _parts(dataset: Dataset, scaler: Standardizer | None) -> dict[Any, Part]:
    """Fingerprints of each split, as it is and standardized."""
    plain = _fingerprints(dataset)
    standardized: dict[str, Any] = dict.fromkeys(plain, (None, None))
    if scaler is not None:
        scaled = {name: scaler.transform(split) for name, split in dataset.splits.items()}
        standardized = _fingerprints(
            Dataset(scaled["train"], scaled.get("valid"), scaled.get("test"), name=dataset.name)
        )
    return {
        name: Part(
            utterances=len(split),
            labels=[*labels_of(split)],
            split=Fingerprints(plain=plain[name][0], standardized=standardized[name][0]),
            dataset=Fingerprints(plain=plain[name][1], standardized=standardized[name][1]),
        )
        for name, split in dataset.splits.items()
    }


def _fingerprints(dataset: Dataset) -> dict[str, tuple[str, str]]:
    """Fingerprints of each split, and of the data set up to it."""
    up_to = dataset.fingerprints_up_to()
    return {name: (split.fingerprint(), up_to[name]) for name, split in dataset.splits.items()}
