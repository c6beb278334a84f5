"""What pictures share: colours, figures, names at the ends of lines, and heat maps."""

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

# Colour-blind safe (Okabe and Ito 2008), without the yellow that is hard to see on white.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
PURPLE, AMBER, SKY = "#CC79A7", "#E69F00", "#56B4E9"
COLOURS: Final = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY)
GREY: Final = "#808080"  # for lines to go by: visible on white and on black
MODALITY_COLOURS: Final = {"multimodal": BLUE, "audio": ORANGE, "vision": GREEN}
COLOUR_MAP: Final = "cividis"  # as good for colour-blind readers (Nuñez et al. 2018)

BOUND: Final = 3  # of the labels
POINTS: Final = "points"  # of sentiment
LETTER: Final = 0.035  # room for a letter of a name at the end of a line, in widths of what is drawn
GAP: Final = 0.08  # between two such names, in heights of the axes


def new_figure(width: float = 6.4, height: float = 4.0) -> Figure:
    """An empty figure, of notebook size by default, in inches, that no window manager knows of.

    In a notebook it shows itself, whether or not pyplot's figures do.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure._repr_png_ = partial(png, figure)  # type: ignore[attr-defined]
    return figure


def png(figure: Figure) -> bytes:
    """A picture of a figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def axes_or_new(ax: Axes | None, width: float = 6.4, height: float = 4.0) -> Axes:
    """``ax``, or the only axes of a new figure."""
    return new_figure(width, height).subplots() if ax is None else ax


def name_ends(ax: Axes, lines: Sequence[Line2D]) -> None:
    """Writes each line's label beside its last point, in its colour: a legend that hides nothing.

    Comes last: labels are placed by the limits that the axes have now.
    """
    from scipy.optimize import isotonic_regression

    left, right = ax.get_xlim()
    room = LETTER * (1 + max(len(str(line.get_label())) for line in lines))
    ax.set_xlim(left, right + room * (right - left))
    ax.set_ylim(ax.get_ylim())
    points = [np.array([line.get_xdata(), line.get_ydata()]) for line in lines]
    ends = np.array([each[:, np.isfinite(each[1])][:, -1] for each in points])
    x, heights = (ax.transScale + ax.transLimits).transform(ends).T  # in sizes of the axes
    # The least movement that keeps the order and a gap between neighbours.
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


def heat_map(ax: Axes, values: Floats, rows: Sequence[str], top: float) -> AxesImage:
    """Cells ``(R, C)`` coloured from 0 to ``top``, rows named; NaN stays empty."""
    # Sharp while there is a pixel for every column; then averaged, so that none is left out.
    sharp = "nearest" if values.shape[1] <= ax.get_window_extent().width else None
    image = ax.imshow(values, cmap=COLOUR_MAP, vmin=0, vmax=top, aspect="auto", interpolation=sharp)
    # What is said in words is no mathematics, dollar signs or not.
    ax.set_yticks(range(len(rows)), rows, fontsize=_font(ax, "x-small", len(rows)), parse_math=False)
    return image


def write_cells(ax: Axes, image: AxesImage, values: Floats, texts: Sequence[Sequence[str]]) -> None:
    """Writes into the cells of a heat map of these values, black on light and white on dark."""
    lines = [text.split("\n") for row in texts for text in row]
    letters = max(len(line) for text in lines for line in text)
    size = _font(ax, "small", len(texts) * max(map(len, lines)), len(texts[0]) * letters)
    colours = image.to_rgba(values)
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            light = colours[i, j, :3] @ (0.299, 0.587, 0.114) > 0.5
            ax.text(j, i, text, ha="center", va="center", fontsize=size, color="black" if light else "white")


def _font(ax: Axes, size: str, lines: int, letters: int = 1) -> float:
    """A size of the user's font in points, or what fits so many lines and letters into the axes."""
    from matplotlib.font_manager import FontProperties

    box = ax.get_window_extent()
    fits = min(0.8 * box.height / lines, 1.4 * box.width / letters) * 72 / ax.figure.dpi
    return min(FontProperties(size=size).get_size_in_points(), fits)
