"""A page on a set of predictions: one file of HTML that needs nothing else."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from .. import files, plotting
from ..results.metrics import Metrics
from ..results.predictions import Predictions
from . import html, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WORST: Final = 20  # utterances that are shown for their errors
DPI: Final = 144


@dataclass(frozen=True)
class Picture:
    """A plot as images in data URIs, for light and for dark pages."""

    caption: str
    light: str
    dark: str


@dataclass(frozen=True, eq=False, repr=False)
class PredictionReport:
    """Measures and plots where labels are known, the worst utterances, and all in a table to sort and filter.

    Attributes:
        predictions: Scores of N utterances.
        title: What the page is about.
        facts: More lines for the top, by name: the model, fingerprints.
        texts: What was said, N sentences, or ``None``.
        lengths: How long each is, ``(N,)``, in ``unit``, or ``None``.
        unit: Such as ``"tokens"``.
    """

    predictions: Predictions
    title: str
    facts: dict[str, str]
    texts: list[str] | None = None
    lengths: npt.NDArray[np.int64] | None = None
    unit: str = "tokens"

    def to_html(self) -> str:
        """The page."""
        rows, columns = self._rows()
        labelled = self.predictions.label is not None
        return render(
            "prediction_report.html",
            title=self.title,
            facts=self._facts(),
            measures=self._measures() if labelled else {},
            neutral=f"{self.predictions.label_range.restored(0.0):g}",
            pictures=self._pictures() if labelled else [],
            worst=sorted(rows, key=lambda row: -abs(row["error"]))[:WORST] if labelled else [],
            rows=rows,
            columns=columns,
        )

    def save(self, path: str | Path) -> None:
        """Writes the page, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self.to_html()
        files.write_text(path, text)

    def _facts(self) -> dict[str, str]:
        score = self.predictions.score
        return {
            "utterances": f"{len(score):,}",
            "predicted": f"mean {score.mean():+.2f}, {score.min():+.2f} to {score.max():+.2f}",
            **self.facts,
            "made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by mmiln {version('mmiln')}",
        }

    def _measures(self) -> dict[str, str]:
        assert self.predictions.label is not None
        measured = Metrics.of(self.predictions.label, self.predictions.score, self.predictions.label_range)
        return {
            f"{m.label} ({m.unit})" if m.unit else m.label: html.number(
                m.factor * getattr(measured, name), 2 if m.unit == "%" else 4
            )
            for name, m in measured.family.measures.items()
        }

    def _rows(self) -> tuple[list[dict[str, Any]], list[tuple[str, bool]]]:
        """One row an utterance, and the columns' names, each with whether it holds numbers."""
        count = len(self.predictions)
        values: dict[str, list[Any]] = {}
        if self.predictions.id is not None:
            values["id"] = self.predictions.id
        else:
            values["line"] = list(range(1, count + 1))
        score = self.predictions.score.astype(np.float64)
        values["predicted"] = score.tolist()
        sure = {name: values for name, values in self.predictions.columns().items() if name != "score"}
        values |= {name: column.tolist() for name, column in sure.items()}
        if self.predictions.label is not None:
            truth = self.predictions.label.astype(np.float64)
            values |= {"true": truth.tolist(), "error": (score - truth).tolist()}
        if self.texts is not None:
            values["text"] = self.texts
        rows = [{name: column[i] for name, column in values.items()} for i in range(count)]
        return rows, [(name, name not in ("id", "class", "text")) for name in values]

    def _pictures(self) -> list[Picture]:
        plots: dict[str, Callable[..., Axes]] = {
            "Predicted over true score": partial(plotting.predicted_against_true, self.predictions),
            "True and predicted classes": partial(plotting.confusion, self.predictions),
        }
        if self.lengths is not None:
            plots[f"Absolute error by length in {self.unit}"] = partial(
                plotting.error_by_length, self.predictions, self.lengths
            )
        return [
            Picture(caption, _image(draw, "default"), _image(draw, "dark_background"))
            for caption, draw in plots.items()
        ]


def _image(draw: Callable[..., Axes], style: str) -> str:
    """A PNG with a transparent background, as a data URI."""
    import matplotlib.style

    buffer = io.BytesIO()
    with matplotlib.style.context(style):
        figure = plotting.new_figure(width=5.0)
        draw(figure.subplots())
        figure.savefig(buffer, format="png", dpi=DPI, transparent=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
