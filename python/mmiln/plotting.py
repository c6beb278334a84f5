"""Pictures of training, with matplotlib. Every function takes ``ax`` and returns it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import StateError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .history import History

# Colour-blind safe (Okabe and Ito 2008).
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def new_figure() -> Figure:
    """An empty figure of notebook size that no window manager knows of."""
    from matplotlib.figure import Figure

    return Figure(figsize=(6.4, 4.0), layout="constrained")


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
