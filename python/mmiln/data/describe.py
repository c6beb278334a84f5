"""A data set as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from mmiln.data.dataset import Dataset


class Description:
    """What :meth:`Dataset.describe` returns: prints as tables, plainly or through rich."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __rich__(self) -> Group:
        dataset = self._dataset
        widths = ", ".join(f"{name} {width}" for name, width in dataset.dims.items() if width)
        parts: list[Table | Text] = [
            Text(f"{dataset.name}: {', '.join(dataset.train.fields)}"),
            self._labels(),
            self._lengths(),
            Text(f"Widths: {widths or 'no features'}"),
        ]
        parts += [Text(f"- {note}") for note in dataset.report.notes]
        return Group(*parts)

    def __str__(self) -> str:
        console = Console(width=100, color_system=None, record=False)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    def __repr__(self) -> str:
        return str(self)

    def _labels(self) -> Table:
        table = Table("split", "utterances", title="Labels, rounded", title_justify="left")
        for grade in range(-3, 4):
            table.add_column(f"{grade:+d}" if grade else "0", justify="right")
        table.add_column("mean", justify="right")
        for name, split in self._dataset.splits.items():
            grades = np.bincount(np.rint(split.labels).astype(int) + 3, minlength=7)
            table.add_row(name, str(len(split)), *map(str, grades), f"{split.labels.mean():.2f}")
        return table

    def _lengths(self) -> Table:
        table = Table("split", "sequence", title="True lengths", title_justify="left")
        for column in ("mean", "median", "95 %", "max"):
            table.add_column(column, justify="right")
        for name, split in self._dataset.splits.items():
            for sequence in split.sequences:
                lengths = split.lengths(sequence)
                table.add_row(
                    name,
                    sequence,
                    f"{lengths.mean():.1f}",
                    f"{np.median(lengths):.0f}",
                    f"{np.percentile(lengths, 95):.0f}",
                    str(lengths.max()),
                )
        return table
