"""A data set as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from mmiln.data.arrays import Floats, Ints
from mmiln.data.names import MODALITIES
from mmiln.data.outliers import FAR, Bounds
from mmiln.data.sequences import Ragged
from mmiln.labels import LabelRange
from mmiln.pages import html

Row = tuple[str, ...]

LENGTHS: Final = ("split", "sequence", "mean", "median", "95 %", "max")
VALUES: Final = ("split", "frames", "smallest", "largest", f"beyond {FAR:g} spreads")
LABELS_TITLE: Final = "Labels, rounded"
LENGTHS_TITLE: Final = "True lengths"
VALUES_TITLE: Final = "Values of true frames"
_GRADES: Final = 10  # whole numbers that a table has room for


class Describable(Protocol):
    """The members of :class:`mmiln.data.Split` that a description reads."""

    labels: Floats | None
    label_range: LabelRange
    text: Sequence[Floats] | None
    audio: Sequence[Floats] | None
    vision: Sequence[Floats] | None

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
            _table(_label_header(self._splits), _labels(self._splits), LABELS_TITLE, names=2),
            _table(LENGTHS, _lengths(self._splits), LENGTHS_TITLE, names=2),
            *([_table(VALUES, rows, VALUES_TITLE, names=2)] if (rows := _values(self._splits)) else []),
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
        """The tables as HTML; values only of frames in memory, so that a cell shows at once."""
        frames = [getattr(split, modality) for split in self._splits.values() for modality in MODALITIES]
        stored = any(isinstance(sequence, Ragged) for sequence in frames)
        rows = [] if stored else _values(self._splits)
        values = html.table(VALUES, rows, VALUES_TITLE) if rows else ""
        notes = "".join(map(html.paragraph, self._notes))
        return html.paragraph(self._title) + tables(self._splits) + values + notes


def tables(splits: Mapping[str, Describable]) -> str:
    """Tables of the labels and lengths of splits, as HTML."""
    labels = html.table(_label_header(splits), _labels(splits), LABELS_TITLE)
    return labels + html.table(LENGTHS, _lengths(splits), LENGTHS_TITLE)


def _grades(splits: Mapping[str, Describable]) -> npt.NDArray[np.float64]:
    """The labels that others are rounded to: whole numbers where the range has few, else four steps."""
    low, high = next(iter(splits.values())).label_range
    whole = low == round(low) and high == round(high) and 3 <= high - low <= _GRADES
    return np.linspace(low, high, int(high - low) + 1 if whole else 5).round(9)


def _label_header(splits: Mapping[str, Describable]) -> Row:
    grades = _grades(splits)
    signed = grades[0] < 0
    return (
        "split",
        "utterances",
        *(f"{g:+.3g}" if signed and g else f"{g:.3g}" for g in grades),
        "mean",
    )


def _labels(splits: Mapping[str, Describable]) -> list[Row]:
    rows: list[Row] = []
    grades = _grades(splits)
    step = (grades[-1] - grades[0]) / (len(grades) - 1)
    whole, part = divmod(round(grades[0] / step, 6), 1)  # halves round to even, as those of accuracies do
    for name, split in splits.items():
        if split.labels is None:
            rows.append((name, str(len(split)), *[""] * len(grades), "no labels"))
            continue
        counts = np.bincount(
            np.rint(split.labels / step - part).astype(int) - int(whole), minlength=len(grades)
        )
        rows.append((name, str(len(split)), *map(str, counts), f"{split.labels.mean():.2f}"))
    return rows


def _lengths(splits: Mapping[str, Describable]) -> list[Row]:
    rows: list[Row] = []
    for name, split in splits.items():
        for sequence in split.sequences:
            lengths = split.lengths(sequence)
            middle = f"{lengths.mean():.1f}", f"{np.median(lengths):.0f}"
            rows.append((name, sequence, *middle, f"{np.percentile(lengths, 95):.0f}", str(lengths.max())))
    return rows


def _values(splits: Mapping[str, Describable]) -> list[Row]:
    """The range of each modality's values, and how many lie far from others of their column."""
    rows: list[Row] = []
    bounds: dict[str, Bounds] = {}
    for name, split in splits.items():
        for modality in MODALITIES:
            frames: Sequence[Floats] | None = getattr(split, modality)
            if frames is None:
                continue
            usual = bounds[modality] = bounds.get(modality) or Bounds.of(frames)
            lowest, highest, far = np.inf, -np.inf, 0
            for utterance in frames:
                lowest, highest = min(lowest, utterance.min()), max(highest, utterance.max())
                far += 0 if usual.hold(utterance) else int(usual.beyond(utterance).sum())
            rows.append((name, modality, f"{lowest:.4g}", f"{highest:.4g}", str(far)))
    return rows


def _table(header: Row, rows: list[Row], title: str, *, names: int) -> Table:
    table = Table(title=title, title_justify="left")
    for place, column in enumerate(header):
        table.add_column(column, justify="left" if place < names else "right")
    for row in rows:
        table.add_row(*row)
    return table
