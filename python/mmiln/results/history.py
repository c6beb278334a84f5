"""What training measured, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from ..config import is_rate
from ..errors import StateError
from ..pages import html
from .measures import MEASURES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


#: The measure that chooses the epoch where no other is asked for.
BEST_BY: Final = "valid_mae"


class History(dict[str, list[float]]):
    """A dictionary of lists, one value an epoch: ``train_total``, ``valid_mae``, ``seconds`` and so on.

    Attributes:
        best_epoch: The epoch (from 1) whose weights are the result; ``None`` without a validation set, where
            it is the last.
        monitor: The measure that chose it, such as ``valid_mae``; ``None`` without a validation set.

    >>> history = History({"train_total": [2.0, 1.5], "valid_mae": [1.2, 1.1]})
    >>> history.to_frame().loc[2].to_dict()
    {'train_total': 1.5, 'valid_mae': 1.1}
    """

    best_epoch: int | None = None
    monitor: str | None = None

    def append(self, logs: dict[str, float]) -> None:
        """Adds one epoch; NaN stands for values that it, or those before, did not measure."""
        before = self.epochs
        for name in [*self, *(name for name in logs if name not in self)]:
            self.setdefault(name, [math.nan] * before).append(logs.get(name, math.nan))

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(next(iter(self.values()), []))

    def to_frame(self) -> pd.DataFrame:
        """The same as a pandas frame, indexed by epoch from 1."""
        import pandas as pd

        return pd.DataFrame(dict(self), index=pd.RangeIndex(1, self.epochs + 1, name="epoch"))

    def plot(self, axes: Axes | Sequence[Axes] | None = None) -> list[Axes]:
        """Draws the parts of the loss with the validation MAE, which chooses the epoch; the other measures on
        validation; and how far pseudo-labels are from the true labels, and from those that people gave to
        each modality.

        What was not measured has no panel.

        Args:
            axes: As many as there are panels to draw; by default a new figure, two panels wide.

        Returns:
            The axes, one a panel.

        Raises:
            StateError: The history holds no epoch, or the number of ``axes`` is not that of the panels.
        """
        from .. import plotting

        panels = {
            "train_": (plotting.loss_parts, "Losses"),
            "valid_": (plotting.validation_metrics, "Measures on validation"),
            "pseudo_shift_": (plotting.pseudo_label_shift, "Pseudo-labels from true labels"),
            "pseudo_mae_": (plotting.pseudo_labels_against_human, "Pseudo-labels against people's"),
        }
        drawn = [panel for prefix, panel in panels.items() if any(name.startswith(prefix) for name in self)]
        if not drawn:
            raise StateError("there is no epoch to draw: fit the model first")
        if axes is None:
            columns, rows = min(len(drawn), 2), (len(drawn) + 1) // 2
            figure = plotting.new_figure(5.2 * columns, 3.6 * rows)
            panel_axes = [figure.add_subplot(rows, columns, place) for place in range(1, len(drawn) + 1)]
        else:
            panel_axes = np.ravel(axes).tolist()  # type: ignore[arg-type]
        if len(panel_axes) != len(drawn):
            names = ", ".join(draw.__name__ for draw, _ in drawn)
            raise StateError(
                f"this history has {len(drawn)} panels to draw ({names}), got {len(panel_axes)} axes"
            )
        for (draw, title), ax in zip(drawn, panel_axes, strict=True):
            draw(self, ax).set_title(title)
        return _Shown(panel_axes) if axes is None else panel_axes

    @property
    def _best(self) -> str:
        """What ``best_epoch`` is."""
        return "best epoch" if self.monitor in (None, BEST_BY) else f"best epoch by {self.monitor}"

    def __repr__(self) -> str:
        if not self.epochs:
            return "History(no epoch)"
        best = "" if self.best_epoch is None else f", {self._best} {self.best_epoch}"
        last = ", ".join(f"{name} {_text(name, values[-1])}" for name, values in self.items())
        return f"History({self.epochs} epochs{best}; last: {last})"

    def _repr_html_(self) -> str:
        """Loss and validation MAE as curves; the values of the best epoch and of the last."""
        if not self.epochs:
            return html.code(self)
        shown = {"training loss": "train_total", "validation MAE": "valid_mae"}
        curves = {label: self[name] for label, name in shown.items() if name in self}
        columns = {f"last epoch, {self.epochs}": self.epochs}
        if self.best_epoch == self.epochs:
            columns = {f"{self._best.replace('epoch', 'and last epoch')}, {self.epochs}": self.epochs}
        elif self.best_epoch is not None:
            columns = {f"{self._best}, {self.best_epoch}": self.best_epoch} | columns
        shares = {f"valid_{name}" for name, measure in MEASURES.items() if measure.unit == "%"}
        rows = []
        for name, values in self.items():
            title, factor = (f"{name} (%)", 100) if name in shares else (name, 1)
            cells = (_cell(name, factor * values[e - 1], 2 if factor == 100 else 4) for e in columns.values())
            rows.append((title, *cells))
        drawn = html.chart(curves, self.best_epoch) if curves else ""
        return f"<div>{drawn}{html.table(['', *columns], rows)}</div>"


def _text(name: str, value: float) -> str:
    """A value of a history as text, an accuracy or F1 in per cent."""
    measure = MEASURES.get(name.removeprefix("valid_"))
    return _cell(name, value, 4) if measure is None else measure.text(value)


def _cell(name: str, value: float, digits: int) -> str:
    """A number as text; learning rates and decays may be small."""
    return f"{value:.3g}" if is_rate(name) and math.isfinite(value) else html.number(value, digits)


class _Shown(list["Axes"]):
    """The axes of one new figure, which a notebook shows in their place."""

    def _repr_png_(self) -> bytes:
        png: bytes = self[0].figure._repr_png_()  # type: ignore[union-attr]
        return png
