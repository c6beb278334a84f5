"""Every picture against the one that was looked at and found good.

Compared with `pytest --mpl`; without it, or with another matplotlib than drew the baselines, pictures are
only drawn. After a change that is meant:

    pytest --mpl-generate-path=tests/plotting/baseline tests/plotting/test_pictures.py

and look at them.
"""

import functools
import io
from pathlib import Path

import matplotlib
import matplotlib.style
import pytest
from matplotlib.figure import Figure

from mmiln import plotting
from support.plotting_examples import ODD, PICTURES, by_depth

MADE_WITH = "3.11.2"
TOLERANCE = 1.0  # root mean square of grey values: edges may be smoothed otherwise, nothing may move


def compared(test):
    """Held to its baseline by the matplotlib that drew that, otherwise only drawn."""
    if matplotlib.__version__ == MADE_WITH:
        return pytest.mark.mpl_image_compare(
            baseline_dir="baseline",
            style="default",
            tolerance=TOLERANCE,
            deterministic=True,
            savefig_kwargs={"dpi": 50},
        )(test)

    @functools.wraps(test)
    def drawn(*args, **kwargs):
        with matplotlib.style.context("default", after_reset=True):
            test(*args, **kwargs).savefig(io.BytesIO())

    return drawn


def test_the_matplotlib_of_the_lock_drew_the_baselines():
    """Otherwise CI compares nothing: look at the pictures, and draw the baselines anew."""
    lock = Path(__file__).parents[2] / "requirements.lock"
    assert f"matplotlib=={MADE_WITH}\n" in lock.read_text()


@pytest.mark.parametrize("name", PICTURES)
@compared
def test_picture(name):
    return PICTURES[name](None).figure


@pytest.mark.parametrize("name", ODD)
@compared
def test_odd_data(name):
    figure = Figure(figsize=(9, 6), layout="constrained")
    for ax, draw in zip(figure.subplots(2, 2).flat, ODD[name], strict=True):
        draw(ax)
    return figure


@compared
def test_depth():
    figure = plotting.new_figure(width=9.0)
    plotting.depth(by_depth(), figure.subplots(1, 2))
    return figure
