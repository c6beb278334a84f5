"""A data set as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from mmiln.data.arrays import Floats, Ints
from mmiln.pages import html

Row = tuple[str, ...]

LABELS: Final = ("split", "utterances", "-3", "-2", "-1", "0", "+1", "+2", "+3", "mean")
LENGTHS: Final = ("split", "sequence", "mean", "median", "95 %", "max")
LABELS_TITLE: Final = "Labels, rounded"
LENGTHS_TITLE: Final = "True lengths"


class Describable(Protocol):
    """The members of :class:`mmiln.data.Split` that a description reads."""

    labels: Floats | None

    def __len__(self) -> int: ...
    @property
    def sequences(self) -> list[str]: ...  # noqa: D102
    def lengths(self, modality: str) -> Ints: ...  # noqa: D102


class Description:
    """The result of :meth:`Dataset.describe`: tables as plain text, through rich or in a notebook."""

    def __init__(self, title: str, splits: Mapping[str, Describable], notes: Sequence[str]) -> None:
        self._title = title
        self._splits = splits
        self._notes = notes

    def __rich__(self) -> Group:
        parts: list[Table | Text] = [
            Text(self._title),
            _table(LABELS, _labels(self._splits), LABELS_TITLE, names=2),
            _table(LENGTHS, _lengths(self._splits), LENGTHS_TITLE, names=2),
            *map(Text, self._notes),
        ]
        return Group(*parts)

    def __str__(self) -> str:
        console = Console(width=100, color_system=None, force_jupyter=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The tables as HTML."""
        return html.paragraph(self._title) + tables(self._splits) + "".join(map(html.paragraph, self._notes))


def tables(splits: Mapping[str, Describable]) -> str:
    """Tables of the labels and lengths of splits, as HTML."""
    return html.table(LABELS, _labels(splits), LABELS_TITLE) + html.table(
        LENGTHS, _lengths(splits), LENGTHS_TITLE
    )


def _labels(splits: Mapping[str, Describable]) -> list[Row]:
    rows: list[Row] = []
    for name, split in splits.items():
        if split.labels is None:
            rows.append((name, str(len(split)), *[""] * 7, "no labels"))
            continue
        grades = np.bincount(np.rint(split.labels).astype(int) + 3, minlength=7)
        rows.append((name, str(len(split)), *map(str, grades), f"{split.labels.mean():.2f}"))
    return rows


def _lengths(splits: Mapping[str, Describable]) -> list[Row]:
    rows: list[Row] = []
    for name, split in splits.items():
        for sequence in split.sequences:
            lengths = split.lengths(sequence)
            middle = f"{lengths.mean():.1f}", f"{np.median(lengths):.0f}"
            rows.append((name, sequence, *middle, f"{np.percentile(lengths, 95):.0f}", str(lengths.max())))
    return rows


def _table(header: Row, rows: list[Row], title: str, *, names: int) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(header):
        table.add_column(column, justify="left" if place < names else "right")
    for row in rows:
        table.add_row(*row)
    return table
