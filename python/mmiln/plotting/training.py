"""Plots of training, epoch by epoch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DataError, StateError
from ..results.measures import AGAINST_HUMAN, MEASURES
from .checks import finite
from .style import (
    AMBER,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    MODALITY_COLOURS,
    OLIVE,
    ORANGE,
    POINTS,
    PURPLE,
    SKY,
    axes_or_new,
    name_ends,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKS: Final = 8  # largest number of labelled epochs
# Hollow markers of the right axis, through which the lines under them stay visible.
HOLLOW: Final[dict[str, Any]] = {"marker": "s", "markersize": 5, "markerfacecolor": "none"}
FEW: Final = 2  # epochs that are hardly a line, and have larger markers
# Colour and line style by measure.
STYLES: Final = {
    "corr": (BLUE, "-"),
    "has0_acc2": (ORANGE, "-"),
    "non0_acc2": (AMBER, "--"),
    "has0_f1": (GREEN, "-"),
    "non0_f1": (OLIVE, "--"),
    "acc5": (SKY, "-"),
    "acc7": (PURPLE, "-"),
    "acc2": (ORANGE, "-"),
    "acc3": (PURPLE, "-"),
    "f1": (GREEN, "-"),
}
VALIDATION: Final = {
    f"valid_{name}": (MEASURES[name].label + ("" if MEASURES[name].unit else " × 100"), *style)
    for name, style in STYLES.items()
}
ERROR: Final = "valid_mae"
SHIFTS: Final = {f"pseudo_shift_{name}": (name, MODALITY_COLOURS[name], "-") for name in ("audio", "vision")}
HUMAN: Final = {
    name: (title, colour, "-" if title.startswith("MAE") else "--")
    for (name, title), colour in zip(AGAINST_HUMAN.items(), (ORANGE, GREEN, AMBER, SKY), strict=True)
}


class Curves(Protocol):
    """The part of :class:`mmiln.History` that plots read: lists by name, with one value an epoch."""

    best_epoch: int | None
    monitor: str | None

    @property
    def epochs(self) -> int: ...  # noqa: D102
    def __iter__(self) -> Iterator[str]: ...
    def __contains__(self, name: object, /) -> bool: ...
    def __getitem__(self, name: str, /) -> list[float]: ...


def learning_curve(history: Curves, ax: Axes | None = None) -> Axes:
    """Training loss and validation MAE by epoch, with a star where the MAE chose the epoch.

    The axis is logarithmic where all values are positive and a factor of ten apart.

    Raises:
        StateError: The history holds no epoch, or no training loss.
    """
    _values(history, ["train_total"], "training loss train_total")
    return _draw_losses(axes_or_new(ax), history, {"train_total": ("training loss", BLUE, "-")})


def loss_parts(history: Curves, ax: Axes | None = None) -> Axes:
    """Every training loss by epoch (its mean over utterances, before its weight in the total), and the
    validation MAE, with a star where it chose the epoch.

    The axis is logarithmic where all values are positive and a factor of ten apart.

    Raises:
        StateError: The history holds no epoch, or no training loss.
    """
    losses = [name for name in history if name.startswith("train_")]
    _values(history, losses, "training loss train_*")
    others = [colour for colour in COLOURS if colour != ORANGE]  # that of the validation MAE
    styles = {name: (name.removeprefix("train_"), c, "-") for name, c in zip(losses, cycle(others))}
    return _draw_losses(axes_or_new(ax), history, styles)


def validation_metrics(history: Curves, ax: Axes | None = None) -> Axes:
    """Every accuracy and F1 of the dataset's family on validation, in per cent, and the correlation × 100,
    with a star where one of them chose the epoch.

    A measure that is NaN in an epoch, as the correlation of constant scores is, leaves a gap.

    Raises:
        StateError: The history holds no epoch, or was made without a validation set.
    """
    _values(history, list(VALIDATION), "measure valid_*: fit with a validation set")
    ax = axes_or_new(ax)
    _draw(ax, history, VALIDATION, factor=100)
    ax.set_ylabel("validation (%)")
    return ax


def pseudo_label_shift(history: Curves, ax: Axes | None = None) -> Axes:
    """How far ULGM moved the labels of audio and vision from the true ones by the end of each epoch.

    Drawn is the mean of abs(y_s - y_m) over the training utterances, in sentiment points.

    Raises:
        StateError: The history holds no epoch, or is of a model without pseudo-labels.
    """
    _values(history, list(SHIFTS), "pseudo_shift_*: the model keeps no pseudo-labels")
    ax = axes_or_new(ax)
    _draw(ax, history, SHIFTS, bottom=0)
    ax.set_ylabel(f"mean |$y_s - y_m$| ({POINTS})")
    return ax


def pseudo_labels_against_human(history: Curves, ax: Axes | None = None) -> Axes:
    """How near ULGM's labels of audio and vision are to those that people gave, by the end of each epoch.

    Drawn are the mean absolute error over the training utterances, in sentiment points, and the Pearson
    correlation.

    Raises:
        StateError: The history holds no epoch, or is of data without labels of audio and vision by people.
    """
    _values(history, list(HUMAN), "pseudo_mae_*: the data have no labels of single modalities")
    ax = axes_or_new(ax)
    _draw(ax, history, HUMAN)
    ax.set_ylabel(f"$y_s$ to human labels ({POINTS} or r)")
    return ax


def mrm_losses(history: Curves, ax: Axes | None = None) -> Axes:
    """Both losses of MRM by epoch, unweighted, each on an axis of its own.

    On the left the CMD between the control vectors of both text-led streams, ``train_sim``; on the right the
    orthogonality of the control vectors of a text-led stream and its source, ``train_diff``.

    Raises:
        StateError: The history holds no epoch, or not both losses.
    """
    for name in ("train_sim", "train_diff"):
        _values(history, [name], f"training loss {name}")
    ax = axes_or_new(ax)
    epochs = range(1, history.epochs + 1)
    right = ax.twinx()
    ax.plot(epochs, history["train_sim"], color=ORANGE, marker="o", markersize=3, label="sim")
    ax.set_ylabel("CMD (sim)", color=ORANGE)
    right.plot(epochs, history["train_diff"], color=GREEN, label="diff", **HOLLOW)
    right.set_ylabel("orthogonality (diff)", color=GREEN)
    right.ticklabel_format(axis="y", scilimits=(-1, 3))
    _number_epochs(ax, history)
    return ax


def pseudo_label_drift(
    snapshots: Mapping[str, Sequence[npt.ArrayLike]], label: npt.ArrayLike, ax: Axes | None = None
) -> Axes:
    """The distribution of pseudo-labels minus true labels, y_s - y_m, at the end of each epoch.

    For each modality and epoch a thin bar from the 5 % to the 95 % quantile, a thick one over the middle
    half, and the median.

    Args:
        snapshots: By modality one array ``(N,)`` an epoch, as the callback ``PseudoLabels`` keeps them in
            ``labels_``.
        label: True scores ``(N,)`` of the same utterances.
        ax: Where to draw.

    Raises:
        DataError: There is no epoch, arrays are of different lengths, or a value is not finite.
    """
    truth = finite("label", label, None)
    if not any(len(arrays) for arrays in snapshots.values()):
        raise DataError("there is no snapshot of pseudo-labels to draw: fit with the callback PseudoLabels")
    if unknown := set(snapshots) - set(MODALITY_COLOURS):
        raise DataError(f"pseudo-labels are of audio and vision, got {', '.join(sorted(unknown))}")
    drifts = {
        modality: np.array(
            [
                finite(f"pseudo-labels of {modality} after epoch {epoch}", array, len(truth)) - truth
                for epoch, array in enumerate(arrays, 1)
            ]
        )
        for modality, arrays in snapshots.items()
        if len(arrays)
    }
    ax = axes_or_new(ax)
    epochs = max(map(len, drifts.values()))
    ax.hlines(0, 0.5, epochs + 0.5, color=GREY, linewidth=0.8)
    width = min(3.0, 60 / epochs)
    lines = []
    for modality, drift in drifts.items():
        low, lower, median, upper, high = np.quantile(drift, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
        # Beside each other.
        at = np.arange(1, len(drift) + 1) + (0.15 if modality == "vision" else -0.15)
        colour = MODALITY_COLOURS[modality]
        ax.vlines(at, low, high, color=colour, linewidth=width / 3)
        ax.vlines(at, lower, upper, color=colour, linewidth=width)
        lines += ax.plot(
            at, median, color=colour, linewidth=0.8, marker="o", markersize=width + 1, label=modality
        )
    ax.set_xlim(0.5, epochs + 0.5)
    name_ends(ax, lines)
    _tick_epochs(ax, epochs)
    ax.set_xlabel("epoch (bars: 50 % and 90 %)")
    ax.set_ylabel(f"$y_s - y_m$ ({POINTS})")
    return ax


def _values(history: Curves, names: Sequence[str], what: str) -> npt.NDArray[np.float64]:
    """The values of the lists of these names that the history holds; refuses none, or only NaN."""
    if not history.epochs:
        raise StateError("there is no epoch to draw: fit the model first")
    values = np.array([history[name] for name in names if name in history], dtype=np.float64)
    if not np.isfinite(values).any():
        raise StateError(f"there is nothing to draw: the history holds no {what}")
    return values


def _draw_losses(ax: Axes, history: Curves, losses: Mapping[str, tuple[str, str, str]]) -> Axes:
    """Draws training losses and the validation MAE, where there is one, on one scale."""
    styles = {**losses, ERROR: ("validation MAE", ORANGE, "-")}
    values = np.array([history[name] for name in styles if name in history], dtype=np.float64)
    if 0 < 10 * np.nanmin(values) < np.nanmax(values):
        ax.set_yscale("log")
    _draw(ax, history, styles)
    ax.set_ylabel("training loss")
    if ERROR in history:
        ax.set_ylabel(f"training loss, MAE ({POINTS})")
        if (best := history.best_epoch) is not None and _choosing(history) == ERROR:
            ax.set_xlabel(f"epoch (best: {best}, MAE {history[ERROR][best - 1]:.3f})")
    return ax


def _choosing(history: Curves) -> str:
    """The measure that chose the epoch."""
    return history.monitor or ERROR


def _draw(
    ax: Axes,
    history: Curves,
    styles: Mapping[str, tuple[str, str, str]],
    bottom: float | None = None,
    factor: float = 1,
) -> None:
    """Draws a line for each of these lists that holds numbers, with its name at its end."""
    epochs = range(1, history.epochs + 1)
    lines = [
        ax.plot(
            epochs,
            factor * np.asarray(history[name]),
            color=colour,
            linestyle=style,
            marker="o" if style == "-" else "s",
            markersize=3 if history.epochs > FEW else 6,
            label=label,
        )[0]
        for name, (label, colour, style) in styles.items()
        if name in history and np.isfinite(history[name]).any()
    ]
    if bottom is not None:
        ax.set_ylim(bottom, 1.05 * ax.get_ylim()[1])
    name_ends(ax, lines)
    _number_epochs(ax, history)
    if (best := history.best_epoch) is not None and (choosing := _choosing(history)) in styles:
        chosen = factor * history[choosing][best - 1]
        ax.plot(best, chosen, "*", color=styles[choosing][1], markersize=12, label="chosen")


def _number_epochs(ax: Axes, history: Curves) -> None:
    """Makes the x axis one of whole epochs, and marks the best one."""
    _tick_epochs(ax, history.epochs)
    if history.best_epoch is not None:
        ax.axvline(history.best_epoch, color=GREY, linestyle="--", linewidth=1, zorder=1, label="best epoch")
        by = "" if _choosing(history) == ERROR else f" by {_choosing(history)}"
        ax.set_xlabel(f"epoch (dashed: the best{by})")


def _tick_epochs(ax: Axes, epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(TICKS, integer=True, steps=(1, 2, 5, 10)).tick_values(1, epochs)
    ax.set_xticks([tick for tick in ticks if 1 <= tick <= epochs])
    ax.set_xlabel("epoch")
