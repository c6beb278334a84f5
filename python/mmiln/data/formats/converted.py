"""A converted data set: a directory of plain ``.npy`` files that is opened without being read.

Beside ``manifest.json`` and, where there is a train part, ``standardizer.safetensors`` there is a folder a
split, with ``utterances.json`` (ids, sentences), where there are labels ``labels.npy`` (N,) and, of one
modality, ``labels_audio.npy`` and so on, and for each sequence of arrays ``audio.npy`` (sum T, w) with
``audio_offsets.npy`` (N + 1,): utterance i has the rows from offset i up to offset i + 1. Tokens
(``text_bert.npy``) are rows of three: id, mask, segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from mmiln.data.arrays import Floats, Ints
from mmiln.data.clean import Nonfinite
from mmiln.data.dataset import Dataset, KnownDataset
from mmiln.data.findings import Findings
from mmiln.data.formats.npy import open_rows
from mmiln.data.known import Known
from mmiln.data.sequences import Ragged, Stored, StoredTokens
from mmiln.data.split import Split
from mmiln.data.standardizer import FILE as STANDARDIZER
from mmiln.data.standardizer import Standardizer
from mmiln.errors import ConfigError, DataError, MissingFileError
from mmiln.files import read_json, sha256
from mmiln.labels import MOSI, LabelRange
from mmiln.plain import Plain, faults

FORMAT: Final = 2  # 1 had a train part, labels in [-3, 3] and no others
MANIFEST: Final = "manifest.json"
UTTERANCES: Final = "utterances.json"

_Count = Annotated[int, pydantic.Field(ge=0)]


class File(Plain):
    """A file as it was when the data set was converted: its bytes and their SHA-256 (hex)."""

    size: _Count
    sha256: str

    @classmethod
    def of(cls, path: Path) -> File:
        """Size and checksum of a file, which is read completely."""
        return cls(size=path.stat().st_size, sha256=sha256(path))


class Fingerprints(Plain):
    """Fingerprints of a split, or of the data set up to it; None where it can't be standardized."""

    plain: str
    standardized: str | None


Labels = Literal["", "text", "audio", "vision", "weights"]


def _all_together() -> list[Labels]:
    return [""]


class Part(Plain):
    """A split: the modalities of which it has labels, "" for all together, and whether it has weights; its
    fingerprints, and those of the data set that ends with it.
    """

    utterances: Annotated[int, pydantic.Field(ge=1)]
    labels: list[Labels] = pydantic.Field(default_factory=_all_together)
    split: Fingerprints
    dataset: Fingerprints


class Manifest(Plain):
    """``manifest.json``: the source, the options and the results of a conversion."""

    format: Literal[1, 2] = FORMAT
    mmiln: str
    name: str
    source: dict[str, File]
    nonfinite: Nonfinite
    fields: list[Literal["text", "text_bert", "raw_text", "audio", "vision"]]
    widths: dict[str, _Count]
    parts: dict[Literal["train", "valid", "test"], Part]
    label_range: tuple[float, float] = MOSI
    notes: list[str]
    warnings: list[str] = pydantic.Field(default_factory=list)
    counts: dict[str, int]
    files: dict[str, File]

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of a converted data set; checks that its files exist in the recorded sizes.

        Raises:
            MissingFileError: A file is not there.
            DataError: A file or the manifest is damaged, or of a later format.
        """
        path = folder / MANIFEST
        try:
            content = read_json(path)
            if isinstance(content, dict) and type(found := content.get("format")) is int and found > FORMAT:
                raise DataError(
                    f"{path} is of format {found}, this mmiln reads format {FORMAT}: it was written by a "
                    "later mmiln, install that, or convert the source again"
                )
            manifest = cls.model_validate(content)
        except ConfigError as error:
            raise DataError(str(error)) from None
        except pydantic.ValidationError as error:
            raise DataError(f"{path} is damaged: {faults(error)[0]}") from None
        parts = manifest.parts
        expected = {f"{key}/{n}" for key, part in parts.items() for n in layout(manifest.fields, part.labels)}
        if not parts or manifest.files.keys() != expected | ({STANDARDIZER} if "train" in parts else set()):
            raise DataError(f"{path} is damaged: its parts and fields are not those of its files")
        for name, file in manifest.files.items():
            if not (folder / name).is_file():
                raise MissingFileError(f"{folder} lacks {name}: copy it again, or convert the source again")
            if (size := (folder / name).stat().st_size) != file.size:
                raise DataError(
                    f"{folder / name} has {size} bytes, expected {file.size}: it is cut short or was "
                    "changed; copy it again, or convert the source again"
                )
        return manifest


def layout(fields: Sequence[Any], labels: Sequence[Any]) -> list[str]:
    """The names of the files of a split with these fields and labels, in the order of writing."""
    ragged = [name for name in fields if name != "raw_text"]
    of_labels = [label_file(name) for name in labels]
    return [UTTERANCES, *of_labels, *(f"{name}{end}.npy" for name in ragged for end in ("_offsets", ""))]


def label_file(modality: str) -> str:
    """The name of the file with the labels of a modality, of all together (``""``), or with the weights."""
    if modality == "weights":
        return "weights.npy"
    return f"labels_{modality}.npy" if modality else "labels.npy"


def labels_of(split: Split) -> dict[Any, Floats]:
    """The labels of a split by modality, ``""`` for all together; ``weights`` where there are any."""
    given = {"": split.labels} | split.unimodal_labels | {"weights": split.weights}
    return {name: values for name, values in given.items() if values is not None}


def is_converted(path: Path) -> bool:
    """Whether ``path`` is a converted data set."""
    try:
        return (path / MANIFEST).is_file()
    except OSError:  # such as a name that is too long
        return False


def verify(path: str | Path) -> None:
    """Reads all files of a converted data set and compares them with their checksums.

    Raises:
        MissingFileError: There is no converted data set, or a file of it is not there.
        DataError: Files have changed since they were written.
    """
    folder = Path(path)
    if not is_converted(folder):
        raise MissingFileError(f"expected a converted data set, a folder with {MANIFEST}, got {str(path)!r}")
    files = Manifest.read(folder).files
    if damaged := [name for name, file in files.items() if File.of(folder / name) != file]:
        raise DataError(
            f"{folder}: {', '.join(damaged)} {'is' if len(damaged) == 1 else 'are'} not as written, by the "
            "checksum: copy the data set again, or convert the source again"
        )


def open_converted(folder: Path, *, nonfinite: Nonfinite | None, test: bool) -> Dataset:
    """The data set in a folder; its arrays are views of the files.

    Raises:
        MissingFileError: A file is not there.
        DataError: A file is damaged, or values that are not finite were replaced in another way than asked.
    """
    manifest = Manifest.read(folder)
    replaced = sum(count for name, count in manifest.counts.items() if name.endswith(".nonfinite"))
    if replaced and nonfinite not in (None, manifest.nonfinite):
        raise DataError(
            f"{folder} was converted with nonfinite={manifest.nonfinite!r}, by which {replaced} NaN or "
            f"infinite values were replaced; for {nonfinite!r} convert the source again"
        )
    parts = {name: part for name, part in manifest.parts.items() if test or name != "test"}
    among = LabelRange.checked(manifest.label_range)
    splits = {
        name: open_split(folder / name, manifest.fields, part.labels, among) for name, part in parts.items()
    }
    if not splits:
        raise DataError(f"{folder} holds a test part alone, and test=False leaves it unread")
    dataset = Dataset(splits.get("train"), splits.get("valid"), splits.get("test"), name=manifest.name)
    if dataset.dims != manifest.widths or any(len(splits[n]) != part.utterances for n, part in parts.items()):
        raise DataError(f"{folder / MANIFEST} is damaged: its widths and sizes are not those of the files")
    dataset.report = Findings(manifest.notes.copy(), manifest.counts.copy(), manifest.warnings.copy())
    for name, split in dataset.splits.items():
        known = parts[name].split  # type: ignore[index]
        split.known = Known(split.contents(), known.plain, known.standardized)
    up_to = parts[list(dataset.splits)[-1]].dataset  # type: ignore[index]
    scaler = Standardizer.load(folder) if "train" in parts else None
    dataset.known = KnownDataset(dataset.contents(), up_to.plain, up_to.standardized, scaler)
    return dataset


def open_split(folder: Path, fields: Sequence[Any], labels: Sequence[Any], among: LabelRange) -> Split:
    """A split from its folder, with labels in the range ``among``.

    Raises:
        DataError: A file is damaged.
    """
    try:
        said = read_json(folder / UTTERANCES)
    except ConfigError as error:
        raise DataError(str(error)) from None
    texts = ["id", *(name for name in fields if name == "raw_text")]
    lists = isinstance(said, dict) and all(isinstance(values, list) for values in said.values())
    if not lists or sorted(said) != texts:
        raise DataError(f"{folder / UTTERANCES} is damaged: expected lists of {' and '.join(texts)}")
    values: dict[str, Any] = {name: _sequence(folder, name) for name in fields if name != "raw_text"}
    scores: dict[str, Floats] = {
        name: np.array(_array(folder / label_file(name), np.float32, 1)) for name in labels
    }
    values |= {"labels": scores.pop("", None), "weights": scores.pop("weights", None)}
    values |= {"unimodal_labels": scores, "label_range": among}
    try:
        return Split(said["id"], raw_text=said.get("raw_text"), **values)
    except DataError as error:
        raise DataError(f"{folder} is damaged: {error}") from None


def _sequence(folder: Path, name: str) -> Ragged:
    offsets: Ints = np.array(_array(folder / f"{name}_offsets.npy", np.int64, 1))
    path = folder / f"{name}.npy"
    rows = _array(path, np.int64 if name == "text_bert" else np.float32, 2)
    fits = len(offsets) and offsets[0] == 0 and offsets[-1] == len(rows) and (np.diff(offsets) >= 1).all()
    if not fits or (name == "text_bert" and rows.shape[1] != 3):
        raise DataError(f"{path} is damaged: its {len(rows)} rows are not those of the offsets beside it")
    return (StoredTokens if name == "text_bert" else Stored)(path, offsets)


def _array(path: Path, dtype: npt.DTypeLike, axes: int) -> npt.NDArray[Any]:
    array = open_rows(path)
    if array.dtype != dtype or array.ndim != axes:
        raise DataError(f"{path}: expected {axes} axes of {np.dtype(dtype)}, got {array.shape} {array.dtype}")
    return array
