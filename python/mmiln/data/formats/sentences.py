"""Sentences to be scored: a column of a CSV file, or lines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mmiln.data.batching import Batch
from mmiln.data.formats.tables import TEXT, read_csv
from mmiln.errors import DataError, MissingFileError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Sentences:
    """A table, one of whose columns holds sentences.

    Attributes:
        frame: All cells, as text.
        column: Name of the column with the sentences.
        fingerprint: SHA-256 (hex) of what was read.
    """

    frame: pd.DataFrame
    column: str
    fingerprint: str

    def __post_init__(self) -> None:
        blank = [at for at, text in enumerate(self.texts, 1) if not text.strip()]
        if not self.texts:
            raise DataError("expected at least one sentence, got none")
        if blank:
            raise DataError(
                f"expected a sentence in every row, got {len(blank)} without, the first is row {blank[0]}: "
                "leave them out"
            )

    @classmethod
    def of_csv(cls, path: str | Path, column: str | None = None) -> Sentences:
        """Reads a CSV file in UTF-8 with a header.

        Args:
            path: The file.
            column: Name of the column with the sentences; by default ``text``, ``raw_text`` or ``sentence``.

        Raises:
            MissingFileError: There is no such file.
            DataError: It is no CSV, has no such column, or a row without a sentence.
        """
        path = Path(path)
        if not path.is_file():
            raise MissingFileError(f"there is no file {path}")
        data = path.read_bytes()
        frame = read_csv(path, data)
        return cls(frame, _column(path, [str(name) for name in frame.columns], column), _digest(data))

    @classmethod
    def of_lines(cls, data: bytes) -> Sentences:
        """One sentence a line, in UTF-8; the column is ``text``.

        Raises:
            DataError: It is not UTF-8, or a line is blank.
        """
        import pandas as pd

        try:
            lines = data.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"expected sentences in UTF-8: {error}") from None
        return cls(pd.DataFrame({"text": pd.Series(lines, dtype=str)}), "text", _digest(data))

    @property
    def texts(self) -> list[str]:
        """The sentences."""
        return [str(text) for text in self.frame[self.column]]

    def batches(self, size: int) -> Iterator[Batch]:
        """Batches of ``raw_text``, in order."""
        texts = self.texts
        for at in range(0, len(texts), size):
            yield {"raw_text": texts[at : at + size]}


def _column(path: Path, columns: list[str], wanted: str | None) -> str:
    there = ", ".join(map(repr, columns))
    if wanted is not None:
        if wanted not in columns:
            raise DataError(f"{path} has no column {wanted!r}, but {there}")
        return wanted
    found = [name for name in TEXT if name in columns]
    if len(found) != 1:
        raise DataError(
            f"{path} has the columns {there}; which of them holds the sentences? Name it by --column"
        )
    return found[0]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
