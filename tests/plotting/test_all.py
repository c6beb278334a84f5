"""Properties of every plot: it draws on the given axes, changes nothing else, and is legible."""

import subprocess
import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from support.plotting_examples import PICTURES

IMPORT_AND_DRAW = """
import sys
import mmiln.plotting
assert "matplotlib" not in sys.modules
mmiln.plotting.loss_parts(mmiln.History(train_total=[2.0, 1.0])).figure.savefig("loss.png")
assert "matplotlib.pyplot" not in sys.modules
"""


def everyone(ax):
    """``ax``, its panels, and what else lies on its figure: colour bars, right sides."""
    for each in ax.figure.axes:
        yield each
        yield from each.child_axes


def readable(figure, axes):
    """The boxes, in pixels, of all text that is shown."""
    figure.draw_without_rendering()
    texts = []
    for ax in axes:
        texts += ax.texts
        if legend := ax.get_legend():
            texts += legend.get_texts()
        texts.append(ax.title)
        if ax.axison:
            for axis in (ax.xaxis, ax.yaxis):
                low, high = sorted(axis.get_view_interval())
                ticks = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
                texts += [
                    axis.label,
                    axis.offsetText,
                    *(t for tick in ticks for t in (tick.label1, tick.label2)),
                ]
    shown = [text for text in texts if text.get_visible() and text.get_text()]
    # An annotation's own extent has its arrow in it.
    return shown, np.array([Text.get_window_extent(text).extents for text in shown])


def overlapping(boxes):
    """Pairs of boxes that share more than a pixel in both directions."""
    low, high = boxes[:, None, :2], boxes[:, None, 2:]
    shared = np.minimum(high, high.swapaxes(0, 1)) - np.maximum(low, low.swapaxes(0, 1))
    return np.argwhere(np.triu((shared > 1).all(axis=-1), 1))


@pytest.mark.parametrize("name", PICTURES)
def test_it_draws_on_the_axes_given_and_nowhere_else(name):
    figure = Figure(layout="constrained")
    mine, other = figure.subplots(1, 2)
    before = dict(matplotlib.rcParams)
    assert PICTURES[name](mine) is mine
    assert other.has_data() is False
    assert dict(matplotlib.rcParams) == before


def test_by_default_it_draws_on_a_figure_that_pyplot_does_not_know():
    ax = PICTURES["gates"](None)
    assert isinstance(ax, Axes)
    assert ax in ax.figure.axes
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    ("size", "layout"), [((6.4, 4), "constrained"), ((3.2, 2.4), "constrained"), ((6.4, 4), None)]
)
def test_all_text_is_whole_and_none_lies_on_another(name, size, layout):
    with matplotlib.style.context("default", after_reset=True):
        figure = Figure(figsize=size, layout=layout)
        ax = PICTURES[name](figure.subplots())
        if layout is not None:
            ax.set_title("of the user's")
        texts, boxes = readable(figure, everyone(ax))
    assert len(texts) > 5
    width, height = figure.bbox.size
    outside = (boxes[:, :2] < -1).any(axis=1) | (boxes[:, 2:] > (width + 1, height + 1)).any(axis=1)
    assert [texts[i].get_text() for i in np.flatnonzero(outside)] == []
    assert [(texts[i].get_text(), texts[j].get_text()) for i, j in overlapping(boxes)] == []


def test_overlaps_would_be_seen():
    figure = Figure(figsize=(3, 2))
    ax = figure.subplots()
    ax.text(0.5, 0.5, "one")
    ax.text(0.52, 0.5, "two")
    texts, boxes = readable(figure, [ax])
    assert [(texts[i].get_text(), texts[j].get_text()) for i, j in overlapping(boxes)] == [("one", "two")]


def test_fonts_and_backgrounds_are_the_users():
    with matplotlib.style.context(["dark_background", {"font.size": 6}], after_reset=True):
        figure = Figure(layout="constrained")
        ax = PICTURES["gates"](figure.subplots())
        figure.draw_without_rendering()
    assert ax.xaxis.label.get_color() == "white"
    assert ax.xaxis.label.get_size() == 6
    assert {line.get_color() for line in ax.get_lines()} == {(0.0, 0.0, 0.0, 1.0)}  # between layers
    assert max(label.get_size() for label in ax.get_yticklabels()) < 6


def test_pyplot_is_not_imported(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_AND_DRAW], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "loss.png").stat().st_size > 1000
