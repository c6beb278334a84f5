"""Shared parts of plots: colours, figures, names at the ends of lines, and heat maps."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from .checks import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from matplotlib.lines import Line2D

# Colour-blind safe (Okabe and Ito 2008), without the yellow, which is hard to see on white.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, AMBER, SKY, OLIVE = "#CC79A7", "#E69F00", "#56B4E9", "#8F8F00"
COLOURS: Final = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, OLIVE)
GREY: Final = "#808080"  # for reference lines: visible on white and on black
MODALITY_COLOURS: Final = {"multimodal": BLUE, "audio": ORANGE, "vision": GREEN}
COLOUR_MAP: Final = "cividis"  # readable for colour-blind people too (Nuñez et al. 2018)

FEWEST: Final = 3  # utterances that are drawn as points or counts; fewer are written
POINTS: Final = "points"  # unit of sentiment
LETTER: Final = 0.035  # room for a letter of a name at the end of a line, relative to the data's width
GAP: Final = 0.08  # distance of two such names, relative to the height of the axes


def new_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """An empty figure that pyplot does not manage; sizes are in inches, by default for a notebook.

    A notebook displays it, whether or not it displays pyplot's figures.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure._repr_png_ = partial(png, figure)  # type: ignore[attr-defined]
    return figure


def png(figure: Figure) -> bytes:
    """A figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def axes_or_new(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """``ax``, or the only axes of a new figure."""
    return new_figure(width, height).subplots() if ax is None else ax


def name_ends(ax: Axes, lines: Sequence[Line2D]) -> None:
    """Writes each line's label beside its last point, in its colour, as a legend that hides no data.

    Call it last, as it places labels by the current limits of the axes.
    """
    from scipy.optimize import isotonic_regression

    left, right = ax.get_xlim()
    room = LETTER * (1 + max(len(str(line.get_label())) for line in lines))
    ax.set_xlim(left, right + room * (right - left))
    ax.set_ylim(ax.get_ylim())
    points = [np.array([line.get_xdata(), line.get_ydata()]) for line in lines]
    ends = np.array([each[:, np.isfinite(each[1])][:, -1] for each in points])
    x, heights = (ax.transScale + ax.transLimits).transform(ends).T  # in fractions of the axes
    # Moves labels as little as keeps their order and a gap between neighbours.
    order = np.argsort(heights, kind="stable")
    steps = GAP * np.arange(len(lines))
    placed = isotonic_regression(heights[order] - steps).x
    placed = np.clip(placed, 0.05, 0.95 - steps[-1]) + steps
    for i, height in zip(order, placed, strict=True):
        ax.annotate(
            str(lines[i].get_label()),
            xy=ends[i],
            xytext=(x.max() + 0.03, height),
            textcoords="axes fraction",
            color=lines[i].get_color(),
            fontsize="small",
            va="center",
            arrowprops={
                "arrowstyle": "-",
                "color": lines[i].get_color(),
                "linewidth": 0.6,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )


def heat_map(
    ax: Axes, values: Floats, rows: Sequence[str], low: float, high: float, colours: str = COLOUR_MAP
) -> AxesImage:
    """Cells ``(R, C)`` coloured from ``low`` to ``high``, rows named; NaN stays empty."""
    # Sharp where every column has a pixel; else averaged, so that no column is left out.
    sharp = "nearest" if values.shape[1] <= ax.get_window_extent().width else None
    image = ax.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation=sharp)
    # Dollar signs in tokens must not start mathematics.
    ax.set_yticks(range(len(rows)), rows, fontsize=_font(ax, "x-small", len(rows)), parse_math=False)
    return image


def write_cells(ax: Axes, image: AxesImage, values: Floats, texts: Sequence[Sequence[str]]) -> None:
    """Writes texts into the cells of a heat map, black on light and white on dark; NaN has no colour."""
    lines = [text.split("\n") for row in texts for text in row]
    letters = max(len(line) for text in lines for line in text)
    size = _font(ax, "small", len(texts) * max(map(len, lines)), len(texts[0]) * letters)
    colours = image.to_rgba(values)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            light = colours[i, j, :3] @ (0.299, 0.587, 0.114) > 0.5
            colour = GREY if np.isnan(values[i, j]) else "black" if light else "white"
            ax.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)


def write_instead(ax: Axes, text: str) -> Axes:
    """Writes a text in the place of a plot."""
    ax.axis("off")
    ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", fontsize="small")
    return ax


def _font(ax: Axes, size: str, lines: int, letters: int = 1) -> float:
    """The size of the user's font in points, or the largest that fits so many lines and letters."""
    from matplotlib.font_manager import FontProperties

    box = ax.get_window_extent()
    fits = min(0.8 * box.height / lines, 1.4 * box.width / letters) * 72 / ax.figure.dpi
    return min(FontProperties(size=size).get_size_in_points(), fits)
