"""Plots of scores: against the truth, by class, and the errors over length or disagreement."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..labels import LabelRange
from ..results.measures import MEASURES, SIMS, family_in, family_of
from .checks import Floats, finite, scored
from .style import (
    BLUE,
    FEWEST,
    GREEN,
    GREY,
    ORANGE,
    POINTS,
    axes_or_new,
    heat_map,
    write_cells,
    write_instead,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ..results.predictions import Predictions

CLASSES: Final = (-3, -2, -1, 0, 1, 2, 3)  # of acc7
CUT_CLASSES: Final = ("≤ −0.7", "≤ −0.1", "≤ 0.1", "≤ 0.7", "> 0.7")
BARS: Final = 0.15  # height of a marginal histogram, relative to the range of the scores
BAR_BINS: Final = 30
PER_BIN: Final = 40  # least number of utterances in a bin, where there are so many
BINS: Final = 8  # at most


class Interval(Protocol):
    """A difference of two rows with its confidence interval."""

    @property
    def value(self) -> float: ...  # noqa: D102
    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102
    @property
    def separated(self) -> bool: ...  # noqa: D102


def predicted_against_true(predictions: Predictions, ax: Axes | None = None) -> Axes:
    """Each utterance's predicted over its true score, both distributions as histograms along the axes.

    Fewer than three utterances are written, not drawn.

    Raises:
        DataError: There is no utterance, no label, or a score that is not finite.
    """
    truth, score = scored(predictions)
    from matplotlib.ticker import MaxNLocator

    ax = axes_or_new(ax, width=4.8)
    if len(truth) < FEWEST:
        return _written(ax, truth, score)
    scale = predictions.label_range
    low, high = min(scale.low, truth.min(), score.min()), max(scale.high, truth.max(), score.max())
    middle = scale.restored(0.0)
    room = BARS * (high - low)
    ax.axhline(middle, color=GREY, linewidth=0.6)
    ax.axvline(middle, color=GREY, linewidth=0.6)
    ax.plot((low, high), (low, high), color=GREY, linewidth=1, linestyle="--", label="predicted = true")
    ax.scatter(truth, score, s=14, color=BLUE, alpha=0.7, linewidths=0, label="utterances")
    # Histograms are within the axes, so that they disturb no layout, neighbour or title of the user's.
    edges = np.linspace(low, high, BAR_BINS + 1)
    floor = low - 1.2 * room
    for values, bars in ((truth, ax.bar), (score, ax.barh)):
        counts, _ = np.histogram(values, edges)
        bars(edges[:-1], room * counts / counts.max(), np.diff(edges), floor, align="edge", color=GREY)
    limits = (floor, high + 0.2 * room)
    ax.set(xlim=limits, ylim=limits, aspect="equal")
    wide = high - low >= 4
    locator = MaxNLocator(8, integer=True) if wide else MaxNLocator(4, steps=(1, 2, 5, 10))
    for axis in (ax.xaxis, ax.yaxis):
        ticks = locator.tick_values(low, high)
        axis.set_ticks([tick for tick in ticks if low <= tick <= high])
    ax.tick_params(labelsize="small")
    ax.set_xlabel(f"true score ({POINTS})")
    ax.set_ylabel(f"predicted score ({POINTS})")
    return ax


def confusion(predictions: Predictions, ax: Axes | None = None) -> Axes:
    """The confusion matrix of the seven classes, or of the five of CH-SIMS, with the truth in rows.

    Classes are those of ``acc7``: scores clipped to +-3 and rounded half to even; of CH-SIMS those of its
    ``acc5``. A cell holds the count and its share of the row, which is also its colour; cells that no
    utterance falls into are empty.

    Fewer than three utterances are written, not drawn.

    Raises:
        DataError: There is no utterance, no label, or a score that is not finite.
    """
    scale = predictions.label_range
    true_score, score = scored(predictions)
    if len(score) < FEWEST:
        return _written(axes_or_new(ax), true_score, score)
    sign = "+" if scale.low < 0 else ""
    values = [scale.restored(float(k)) for k in CLASSES]
    names = [f"{x:{sign}.3g}".replace("-", "−") if x else "0" for x in values]
    if family_of(scale) is SIMS:
        names = list(CUT_CLASSES)
    counts = np.zeros((len(names), len(names)), dtype=int)
    np.add.at(counts, (_classes(true_score, scale), _classes(score, scale)), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ax = axes_or_new(ax)
    image = heat_map(ax, shares, names, 0, 1)
    ax.set_xticks(range(len(names)), names, fontsize="x-small")
    write_cells(
        ax,
        image,
        shares,
        [
            [f"{count}\n{share:.0%}" if count else "" for count, share in zip(*row, strict=True)]
            for row in zip(counts, shares, strict=True)
        ],
    )
    ax.set_xlabel(f"predicted class ({POINTS})")
    ax.set_ylabel(f"true class ({POINTS})")
    return ax


def error_by_length(predictions: Predictions, lengths: npt.ArrayLike, ax: Axes | None = None) -> Axes:
    """Each utterance's absolute error over its length, and the median error of bins with its quartiles.

    Args:
        predictions: Scores and labels of N utterances.
        lengths: How long each is, ``(N,)``, in tokens or in frames.
        ax: Where to draw.

    Fewer than three utterances are written, not drawn.

    Raises:
        DataError: There is no utterance, no label, not one length each, or a value that is not finite.
    """
    return _error_over("lengths", lengths, "length (tokens or frames)", predictions, ax)


def error_by_disagreement(
    predictions: Predictions, disagreement: npt.ArrayLike, ax: Axes | None = None
) -> Axes:
    """Each utterance's absolute error over how far apart the model's heads are, with the median of bins.

    Args:
        predictions: Scores and labels of N utterances.
        disagreement: The highest minus the lowest of an utterance's multimodal, audio and vision scores,
            ``(N,)``, as :func:`mmiln.explain.disagreement` gives it.
        ax: Where to draw.

    Fewer than three utterances are written, not drawn.

    Raises:
        DataError: There is no utterance, no label, not one value each, or a value that is not finite.
    """
    return _error_over("disagreement", disagreement, f"disagreement of heads ({POINTS})", predictions, ax)


def depth(
    lines: Mapping[str, Mapping[int, Mapping[str, Sequence[float]]]], axes: Sequence[Axes]
) -> Sequence[Axes]:
    """Figure 4 of the paper: measures over the number of fusion layers, mean and deviation over seeds.

    Args:
        lines: Values of all seeds by line, number of layers and measure.
        axes: Two panels: the MAE; Acc-2, as has0 and non0 where there are both.
    """
    some = next(seeds for points in lines.values() for seeds in points.values())
    for ax, names in zip(axes, (["mae"], list(family_in(some).binary.values())), strict=True):
        measures = [MEASURES[name] for name in names]
        for colour, (name, points) in zip(
            itertools.cycle((BLUE, ORANGE, GREEN)), lines.items(), strict=False
        ):
            for marker, measure, shown in zip("os", names, measures, strict=False):
                depths = sorted(points)
                values = [shown.factor * np.asarray(points[n][measure]) for n in depths]
                ax.errorbar(
                    [n + (0.1 if marker == "s" else 0.0) for n in depths],  # bars beside each other
                    [seeds.mean() for seeds in values],
                    yerr=[seeds.std(ddof=1) if len(seeds) > 1 else 0.0 for seeds in values],
                    color=colour,
                    marker=marker,
                    markersize=4,
                    linestyle="-" if marker == "o" else "--",
                    capsize=3,
                    label=", ".join(filter(None, [name, shown.convention])),
                )
        ax.set_xlabel("fusion layers")
        ax.set_ylabel(f"{measures[0].title} ({measures[0].unit})")
        ax.set_xticks(sorted({n for points in lines.values() for n in points}))
        ax.legend(frameon=False, fontsize="small", ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return axes


def by_seed(values: Mapping[str, Sequence[float]], ax: Axes | None = None) -> Axes:
    """A measure of each row of a table: a point for each seed, and a bar at their mean.

    Raises:
        DataError: There is no row, a row without values, or a value that is not finite.
    """
    found = {row: finite(f"values of {row}", seeds, None) for row, seeds in values.items()}
    ax = _named_rows(list(found), ax)
    for place, seeds in enumerate(found.values()):
        ax.plot(seeds, [place] * len(seeds), "o", color=BLUE, alpha=0.5, markersize=5)
        ax.plot(seeds.mean(), place, "|", color=ORANGE, markersize=14, markeredgewidth=2)
    ax.set_xlabel("seeds, and their mean")
    return ax


def differences(found: Mapping[str, Interval | None], ax: Axes | None = None) -> Axes:
    """The difference of each row of a table from another one, with its interval; ``None`` for that row.

    An interval that contains 0 is blue, one that excludes it orange.

    Args:
        found: Such as ``report.compare(row, "full").differences["mae"]``, by row.
        ax: Where to draw.

    Raises:
        DataError: There is no row.
    """
    ax = _named_rows(list(found), ax)
    ax.axvline(0, color=GREY, linewidth=0.8)
    for place, difference in enumerate(found.values()):
        if difference is not None:
            colour = ORANGE if difference.separated else BLUE
            ax.plot([difference.low, difference.high], [place, place], color=colour, linewidth=2)
            ax.plot(difference.value, place, "o", color=colour)
    ax.set_xlabel("difference, with its interval")
    return ax


def _named_rows(names: Sequence[str], ax: Axes | None) -> Axes:
    """Axes with a row for each name, the first at the top."""
    if not names:
        raise DataError("there is no row to draw: give at least one")
    ax = axes_or_new(ax, height=1.2 + 0.3 * len(names))
    ax.set_yticks(range(len(names)), names, fontsize="small", parse_math=False)
    ax.set_ylim(len(names) - 0.5, -0.5)
    return ax


def _classes(scores: Floats, scale: LabelRange) -> npt.NDArray[np.int64]:
    """The class of each score, from 0."""
    family = family_of(scale)
    return family.classes[5 if family is SIMS else 7].of(scale.scaled(scores))


def _written(ax: Axes, truth: Floats, score: Floats) -> Axes:
    """The scores of utterances that are too few to be drawn."""
    pairs = [f"true {t:+.2f}, predicted {s:+.2f}" for t, s in zip(truth, score, strict=True)]
    count = "1 utterance is" if len(pairs) == 1 else f"{len(pairs)} utterances are"
    return write_instead(ax, "\n".join([f"{count} too few to draw", *pairs]))


def _error_over(
    name: str, values: npt.ArrayLike, label: str, predictions: Predictions, ax: Axes | None
) -> Axes:
    truth, score = scored(predictions)
    x = finite(name, values, len(truth))
    if len(x) < FEWEST:
        return _written(axes_or_new(ax), truth, score)
    error = np.abs(score - truth)
    middle, (lower, median, upper) = _binned(x, error)
    ax = axes_or_new(ax)
    ax.scatter(x, error, s=10, color=BLUE, alpha=0.6, linewidths=0)
    ax.errorbar(
        middle,
        median,
        yerr=[median - lower, upper - median],
        color=ORANGE,
        marker="o",
        markersize=4,
        capsize=3,
        label="median and quartiles",
    )
    ax.set_ylim(0, 1.2 * max(error.max(), 0.1))  # with room for the legend
    ax.set_xlabel(label)
    ax.set_ylabel(f"absolute error ({POINTS})")
    ax.legend(frameon=False, fontsize="small", loc="upper right")
    return ax


def _binned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The median of x and the quartiles of y ``(3, bins)`` in bins of about as many utterances each."""
    bins = int(np.clip(len(x) // PER_BIN, 1, BINS))
    # Bins begin at values of x, so that equal values share a bin and no bin is empty.
    begins = np.unique(np.quantile(x, np.arange(bins) / bins, method="lower"))
    place = np.searchsorted(begins, x, side="right") - 1
    parts = [place == i for i in range(len(begins))]
    middle = np.array([np.median(x[part]) for part in parts])
    return middle, np.array([np.quantile(y[part], (0.25, 0.5, 0.75)) for part in parts]).T
