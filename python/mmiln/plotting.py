"""Pictures of training, with matplotlib. Every function takes ``ax`` and returns it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import StateError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .history import History

# Colour-blind safe (Okabe and Ito 2008).
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def new_figure(width: float = 6.4) -> Figure:
    """An empty figure of notebook size, its width in inches, that no window manager knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 4.0), layout="constrained")


def learning_curve(history: History, ax: Axes | None = None) -> Axes:
    """Training loss by epoch and, on an axis of its own, the validation MAE with the best epoch marked.

    Raises:
        StateError: The history holds no epoch.
    """
    if not history.epochs:
        raise StateError("there is no epoch to draw: fit the model first")
    from matplotlib.ticker import MaxNLocator

    ax = new_figure().subplots() if ax is None else ax
    epochs = range(1, history.epochs + 1)
    ax.plot(epochs, history["train_total"], color=BLUE, marker="o", markersize=3, label="training loss")
    ax.set_xlabel("epoch")
    ax.set_ylabel("training loss", color=BLUE)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    lines = list(ax.get_lines())
    if "valid_mae" in history:
        right = ax.twinx()
        right.plot(
            epochs, history["valid_mae"], color=ORANGE, marker="s", markersize=3, label="validation MAE"
        )
        right.set_ylabel("validation MAE (sentiment points)", color=ORANGE)
        if history.best_epoch is not None:
            right.axvline(history.best_epoch, color=GREEN, linestyle="--", linewidth=1, label="best epoch")
        lines += right.get_lines()
    labels = [str(line.get_label()) for line in lines]
    ax.legend(lines, labels, frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def depth(
    lines: Mapping[str, Mapping[int, Mapping[str, Sequence[float]]]], axes: Sequence[Axes]
) -> Sequence[Axes]:
    """Figure 4 of the paper: measures over the number of fusion layers, mean and deviation over seeds.

    Args:
        lines: Values of all seeds by line, number of layers and measure.
        axes: Two panels: the MAE; Acc-2 as has0 and non0.
    """
    panels = {
        "MAE (sentiment points)": {"": "mae"},
        "Acc-2 (%)": {", has0": "has0_acc2", ", non0": "non0_acc2"},
    }
    for ax, (title, measures) in zip(axes, panels.items(), strict=True):
        for colour, (name, points) in zip(
            itertools.cycle((BLUE, ORANGE, GREEN)), lines.items(), strict=False
        ):
            for marker, (suffix, measure) in zip("os", measures.items(), strict=False):
                depths = sorted(points)
                scale = 1 if measure == "mae" else 100
                values = [scale * np.asarray(points[n][measure]) for n in depths]
                ax.errorbar(
                    [n + (0.1 if marker == "s" else 0.0) for n in depths],  # bars beside each other
                    [seeds.mean() for seeds in values],
                    yerr=[seeds.std(ddof=1) if len(seeds) > 1 else 0.0 for seeds in values],
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linestyle="-" if marker == "o" else "--",
                    capsize=3,
                    label=name + suffix,
                )
        ax.set_xlabel("fusion layers")
        ax.set_ylabel(title)
        ax.set_xticks(sorted({n for points in lines.values() for n in points}))
        ax.legend(frameon=False)
    return axes
