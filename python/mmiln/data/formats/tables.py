"""Tables in CSV or Parquet: an utterance a row, with its sentence, label and part, and paths of features."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats, single
from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings, Read
from mmiln.data.formats import sniff
from mmiln.data.formats.npy import open_rows
from mmiln.data.formats.parts import dataset_of
from mmiln.data.formats.sniff import foreign
from mmiln.data.names import PARTS, SPLITS
from mmiln.data.target import Target
from mmiln.errors import DataError, MissingFileError

if TYPE_CHECKING:
    import pandas as pd

ENDINGS: Final = (".csv", ".tsv", ".parquet")
TEXT: Final = ("text", "raw_text", "sentence")  # names of the columns, in any case
LABEL: Final = ("label", "labels", "sentiment", "score")
PART: Final = ("split", "part", "mode")
WEIGHTS: Final = ("weight", "weights")
UNIMODAL: Final = {"label_t": "text", "label_a": "audio", "label_v": "vision"}  # of CH-SIMS
FEATURES: Final = ("audio", "vision")

_GROWTH: Final = 100  # bytes of content for each byte of a Parquet file, at most: sentences differ


def read_tables(tables: Mapping[str, Path], *, name: str, target: Target, test: bool) -> Dataset:
    """Build a data set from tables with a row for each utterance: of one, or of one for each part.

    Columns, in any case of letters: ``text`` (or raw_text, sentence); ``label`` (or labels, sentiment,
    score), without which the data can be predicted alone; ``split`` (or part, mode) with train, valid or
    test; ``id``, or ``video_id`` and ``clip_id``; ``weight`` (or weights) in the task loss; ``label_T``,
    ``label_A``, ``label_V`` as of CH-SIMS; ``audio`` and ``vision`` with paths of ``.npy`` files (T, width),
    relative to the table.

    Args:
        tables: files by the part that each holds. The rows of a single one may be of other parts, which a
            column names.
        name: of the data set.
        target: which labels are learned.
        test: whether the test part is wanted, where there are others.

    Raises:
        DataError: one is not such a table, a cell is not as expected, or a table's column of parts names
            another part than that of its file.
    """
    report = Findings()
    parts: dict[str, Read] = {}
    alone = len(tables) == 1
    for part, path in tables.items():
        found = _Table(path, part, "" if alone else f"{part} ", target, report).parts(test)
        if not alone and found.keys() - {part}:
            raise DataError(
                f"{path.name}: expected rows of {part} alone beside the other files, got also rows of "
                f"{', '.join(sorted(found.keys() - {part}))} by its column of parts"
            )
        parts |= found
    if not parts:
        raise DataError(f"{name}: expected at least one row of train, valid or test")
    complete = set(UNIMODAL.values()).intersection(
        *({*read.unimodal} if read.labels is not None else set() for read in parts.values())
    )
    lacking = {modality for read in parts.values() for modality in read.unimodal} - complete
    if lacking:
        columns = [column for column, modality in UNIMODAL.items() if modality in lacking]
        report.warn(f"{', '.join(columns)} were left out: not every part has these and labels.")
    for read in parts.values():
        read.unimodal = {modality: read.unimodal[modality] for modality in complete}
    return dataset_of(parts, name, target, report)


class _Table:
    """Reads one table; methods are in the order of use."""

    def __init__(self, path: Path, part: str, prefix: str, target: Target, report: Findings) -> None:
        self._path = path
        self._part = part  # of all rows, where no column tells
        self._prefix = prefix  # of row numbers as ids, which are to differ between tables
        self._target = target
        self._report = report
        if path.suffix.lower() == ".parquet":
            self._frame = read_parquet(path)
        else:
            data = path.read_bytes()
            self._frame = read_csv(path, data)
            if (between := separator(data)) != ",":
                report.add(f"{path.name}: cells are separated by {between!r}, as its header has no comma.")
        self._columns = {str(name).strip().lower(): place for place, name in enumerate(self._frame.columns)}
        if len(self._columns) < self._frame.shape[1]:
            raise self._error(f"expected columns of different names, got {self._there()}")
        self._read: set[str] = set()

    def _error(self, message: str) -> DataError:
        return DataError(f"{self._path.name}: {message}")

    def _there(self) -> str:
        return ", ".join(map(repr, map(str, self._frame.columns)))

    def _column(self, *names: str) -> str | None:
        """The one of these columns that the table has."""
        found = [name for name in names if name in self._columns]
        self._read |= {*found}
        if len(found) > 1:
            raise self._error(
                f"expected one of the columns {' and '.join(found)}: rename or delete the others"
            )
        return found[0] if found else None

    def _label(self) -> str | None:
        wanted = self._target.column
        if wanted is not None:
            if not isinstance(wanted, str) or wanted.lower() not in self._columns:
                raise self._error(
                    f"expected target= to be one of the columns {self._there()}, got {wanted!r}"
                )
            return self._column(wanted.lower())
        found = [name for name in LABEL if name in self._columns]
        if len(found) > 1:
            raise self._error(f"which column holds the labels, {' or '.join(found)}? Name it by target=")
        return self._column(*found)

    def parts(self, test: bool) -> dict[str, Read]:
        parts_of = self._parts()
        label, text = self._label(), self._column(*TEXT)
        features = [name for name in FEATURES if self._column(name)]
        weights = self._column(*WEIGHTS)
        unimodal = {name: modality for name, modality in UNIMODAL.items() if self._column(name)}
        if text is None and not features:
            raise self._error(f"expected a column {', '.join(TEXT)}, audio or vision, got {self._there()}")
        ids = self._ids()
        parts = {}
        for part in PARTS:
            rows = [row for row, its in enumerate(parts_of) if its == part]
            if not rows or (part == "test" and not test and len({*parts_of} - {None}) > 1):
                continue
            fields: dict[str, Any] = {name: self._features(name, rows) for name in features}
            if text is not None:
                fields["raw_text"] = self._sentences(text, part, rows)
            if weights is not None:
                fields["weights"] = self._numbers(weights, rows)
            human = {modality: self._numbers(name, rows) for name, modality in unimodal.items()}
            parts[part] = Read(
                [ids[row] for row in rows],
                fields,
                self._numbers(label, rows) if label else None,
                {modality: values for modality, values in human.items() if values is not None},
            )
        columns = ", ".join(sorted(self._read))
        self._report.notes.insert(0, f"Read from the table {self._path.name} by its columns {columns}.")
        if unread := [name for name in self._columns if name not in self._read]:
            self._report.add(f"{self._path.name}: columns left unread: {', '.join(unread)}.")
        return parts

    def _parts(self) -> list[str | None]:
        """The part of each row; None for rows that are left out."""
        column = self._column(*PART)
        if column is None:
            return [self._part] * len(self._frame)
        cells = self._cells(column)
        found = [SPLITS.get(cell.lower()) for cell in cells]
        if other := sorted({cell for cell, part in zip(cells, found, strict=True) if part is None}):
            count = found.count(None)
            self._report.warn(
                f"{count} rows were left out, as their {column} is none of train, valid and test: "
                f"{', '.join(map(repr, other[:5]))}.",
                {f"{column}.unknown": count},
            )
        return found

    def _cells(self, column: str) -> list[str]:
        """A column as text; missing cells are empty."""
        values = self._frame.iloc[:, self._columns[column]]
        pairs = zip(values.tolist(), values.isna().tolist(), strict=True)
        return ["" if missing else str(value).strip() for value, missing in pairs]

    def _sentences(self, column: str, part: str, rows: list[int]) -> list[str]:
        cells = self._cells(column)
        texts = [cells[row] for row in rows]
        if blank := texts.count(""):
            first = rows[texts.index("")] + 1
            self._report.warn(
                f"{part}: {blank} rows have an empty sentence, the first is row {first}.",
                {f"{part}.raw_text.empty": blank},
            )
        return texts

    def _ids(self) -> list[str]:
        if column := self._column("id"):
            return self._cells(column)
        rows = [f"{self._prefix}{row + 1}" for row in range(len(self._frame))]
        if video := self._column("video_id"):
            clips = self._cells(clip) if (clip := self._column("clip_id")) else rows
            return ["$_$".join(pair) for pair in zip(self._cells(video), clips, strict=True)]
        return rows

    def _numbers(self, column: str, rows: list[int]) -> npt.NDArray[np.float64] | None:
        """A column's numbers, or None where all of its cells are empty."""
        import pandas as pd

        cells = self._cells(column)
        given = [cells[row] for row in rows]
        if not any(given):
            return None
        values = pd.to_numeric(pd.Series(given, dtype=str), errors="coerce").to_numpy(np.float64)
        wrong = np.flatnonzero(~np.isfinite(values))
        if len(wrong):
            row = rows[wrong[0]]
            raise self._error(
                f"expected a number in the column {column} of every row, got {cells[row]!r:.80} in row "
                f"{row + 1}, and {len(wrong)} such rows in all"
            )
        return values

    def _features(self, column: str, rows: list[int]) -> list[Floats]:
        cells = self._cells(column)
        return [self._frames(column, row, cells[row]) for row in rows]

    def _frames(self, column: str, row: int, cell: str) -> Floats:
        path = self._path.parent / cell
        try:
            there = bool(cell) and path.is_file()
        except (OSError, ValueError):  # such as a name that is too long
            there = False
        if not there:
            raise MissingFileError(
                f"{self._path.name}: expected the path of a .npy file in the column {column}, relative to "
                f"the table, got {cell!r:.80} in row {row + 1}"
            )
        return single(open_rows(path)).copy()  # not a map of each file


def separator(data: bytes) -> str:
    """What separates the cells of a CSV file: a comma; where its header has none, a tab or a semicolon."""
    header = data.partition(b"\n")[0]
    return next((sign for sign in ",\t;" if sign.encode() in header), ",")


def read_csv(path: Path, data: bytes) -> pd.DataFrame:
    """The content of a CSV file in UTF-8 with a header, its cells as text.

    Raises:
        DataError: It is none.
    """
    import pandas as pd

    if data and (other := foreign(path, sniff.TEXT)):
        raise DataError(f"{path} is not a CSV file, but {other}")
    try:
        frame = pd.read_csv(
            io.BytesIO(data), sep=separator(data), dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except ValueError as error:  # the base class of pandas' own errors and of decoding errors
        raise DataError(f"{path} can't be read as CSV in UTF-8 with a header: {error}") from error
    if not isinstance(frame.index, pd.RangeIndex):  # pandas turns surplus cells into an index
        raise DataError(
            f"{path} has rows with more cells than the header has names: a sentence with a comma in it "
            "must stand in double quotes"
        )
    return frame.fillna("")  # rows that end early


def read_parquet(path: Path) -> pd.DataFrame:
    """A table in Parquet.

    Raises:
        DataError: It is none, it claims a content that does not fit its size, or pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path.name} needs pyarrow to be read: pip install 'mmiln[parquet]'") from None
    if other := foreign(path, sniff.PARQUET):
        raise DataError(f"{path.name} is not a table in Parquet, but {other}")
    size = path.stat().st_size
    try:
        file = parquet.ParquetFile(path)
        claimed = sum(file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
        if file.metadata.num_rows > size or claimed > _GROWTH * size:
            raise DataError(
                f"{path.name} claims {file.metadata.num_rows} rows of {claimed} bytes, and has {size} bytes"
            )
        content = file.read()
        content.validate(full=True)  # text that is not UTF-8 would be met when a cell is read
        frame: pd.DataFrame = content.to_pandas(ignore_metadata=True)
    except DataError:
        raise
    # What pyarrow raises for damaged files beside its own errors, as fuzzing found.
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, MemoryError, NotImplementedError) as error:
        raise DataError(f"{path.name} can't be read as a table in Parquet: {error}") from None
    return frame
