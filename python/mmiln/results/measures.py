"""The field's measures: their titles in tables, their units, and whether higher is better."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple


class Measure(NamedTuple):
    """How a measure of :class:`mmiln.Metrics` is shown and compared.

    Attributes:
        title: Such as ``Acc-2``, which the papers give by two conventions as "has0 / non0".
        convention: ``has0`` or ``non0`` where there are both.
        unit: The unit of a value times ``factor``.
        factor: 100 for a share in [0, 1], which tables show in per cent.
        decimals: Digits after the point in the papers' tables.
        rises: Whether a higher value is better.
    """

    title: str
    convention: str = ""
    unit: str = "%"
    factor: int = 100
    decimals: int = 2
    rises: bool = True

    @property
    def label(self) -> str:
        """Title and convention."""
        return f"{self.title} {self.convention}".rstrip()

    def text(self, value: float) -> str:
        """A value as text, a share in per cent."""
        return f"{value:.2%}" if self.unit == "%" else f"{value:.4f}"


MEASURES: Final = {
    "mae": Measure("MAE", unit="sentiment points", factor=1, decimals=3, rises=False),
    "corr": Measure("Corr", unit="", factor=1, decimals=3),
    "has0_acc2": Measure("Acc-2", "has0"),
    "non0_acc2": Measure("Acc-2", "non0"),
    "has0_f1": Measure("F1", "has0"),
    "non0_f1": Measure("F1", "non0"),
    "acc7": Measure("Acc-7"),
    "acc5": Measure("Acc-5"),
}
#: Headings of a table's columns, by title.
HEADINGS: Final = {m.title: f"{m.title} (%)" if m.unit == "%" else m.title for m in MEASURES.values()}
PAPER: Final = ("MAE", "Corr", "Acc-2", "F1", "Acc-7")  # titles in the paper's tables


def cells(text: Callable[[str, Measure], str], titles: Iterable[str] = HEADINGS) -> dict[str, str]:
    """The texts of each title's measures, as "has0 / non0" where there are both."""
    return {
        title: " / ".join(text(name, m) for name, m in MEASURES.items() if m.title == title)
        for title in titles
    }
