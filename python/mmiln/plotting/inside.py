"""Plots of the model's inside: gates, attention, features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import DataError
from ..labels import MOSI
from .checks import even, finite
from .style import COLOUR_MAP, FEWEST, GREY, POINTS, axes_or_new, heat_map, write_cells, write_instead

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GATES: Final = ("retain", "compound", "source")
LONGEST: Final = 12  # letters of a token before it is cut
LEAST_SPAN: Final = 0.01  # of the colours of gates: nearer to 0.5 all look the same
ROW: Final = 0.15  # inches of height for each token in a new figure


class Gated(Protocol):
    """An object with gates: an explanation, or a case of a case study."""

    @property
    def gates(self) -> Sequence[Mapping[str, Mapping[str, float]]]:
        """By layer, stream and gate, the mean over channels and time."""


def gates(explanation: Gated, ax: Axes | None = None) -> Axes:
    """How far the gates are open, one row a layer (L1 is the first) and stream.

    Colours are deviations from 0.5, near which gates begin; the scale ends at the largest. A stream of one
    modality has no source gate: that cell has a dash.

    Raises:
        DataError: There are no gates (the variant ``no_mfm``), or one is not finite.
    """
    rows = {
        f"L{layer} {stream.replace('_', '–')}": opened
        for layer, streams in enumerate(explanation.gates, 1)
        for stream, opened in streams.items()
    }
    if not rows:
        raise DataError("there are no gates to draw: the model has none (variant no_mfm), or no layer")
    finite("gates", [value for opened in rows.values() for value in opened.values()], None)
    columns = [name for name in GATES if any(name in opened for opened in rows.values())]
    values = np.array([[opened.get(name, np.nan) for name in columns] for opened in rows.values()])
    ax = axes_or_new(ax)
    span = max(float(np.nanmax(np.abs(values - 0.5))), LEAST_SPAN)
    image = heat_map(ax, values, list(rows), 0.5 - span, 0.5 + span, colours="PuOr")
    ax.figure.colorbar(image, ax=ax, label="mean gate (0 shut, 1 open)")
    ax.set_xticks(range(len(columns)), columns, fontsize="small")
    for ends in np.cumsum([len(streams) for streams in explanation.gates])[:-1]:
        ax.axhline(ends - 0.5, color=ax.get_facecolor(), linewidth=2)  # between layers
    cells = [["–" if np.isnan(value) else f"{value:.3f}" for value in row] for row in values]
    write_cells(ax, image, values, cells)
    if np.isnan(values).any():
        ax.set_xlabel("– one modality has no source")
    return ax


def attention_map(
    weights: npt.ArrayLike, words: Sequence[str], ax: Axes | None = None, modality: str | None = None
) -> Axes:
    """A heat map of each token's attention over the frames of audio or vision.

    Weights that differ by less than 5 % are called even in the picture, where they look all the same.

    Args:
        weights: Attention weights ``(T_t, T_n)`` of one layer and head, or their mean; rows sum to 1.
        words: T_t tokens.
        ax: Where to draw.
        modality: ``"audio"`` or ``"vision"``, which names the frames.

    Raises:
        DataError: The weights are no matrix with a row a token, or one is not finite.
    """
    matrix = finite("attention weights", weights, len(words), None)
    tokens = [word if len(word) <= LONGEST else word[: LONGEST - 1] + "…" for word in words]
    from matplotlib.ticker import MaxNLocator

    ax = axes_or_new(ax, height=max(4.0, ROW * len(tokens)))
    image = heat_map(ax, matrix, tokens, 0, matrix.max())
    if even(matrix):
        text = f"even: every frame has\n{matrix.min():.2%} to {matrix.max():.2%}"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color="black")
    ax.figure.colorbar(image, ax=ax, label="attention weight")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=(1, 2, 5, 10)))
    ax.set_xlabel("frame" if modality is None else f"{modality} frame")
    return ax


def projection(
    features: Mapping[str, npt.ArrayLike],
    labels: npt.ArrayLike,
    ax: Axes | None = None,
    *,
    label_range: tuple[float, float] = MOSI,
) -> Axes:
    """The features of each head by their first two principal components, coloured by the true score.

    Spaces of different heads have nothing in common, so each has a panel of its own, with the share of the
    variance that a component holds. The panels lie within ``ax``, which shows nothing itself.

    Args:
        features: Of N utterances, by name: ``F_multimodal``, ``F_audio``, ``F_vision``, each ``(N, width)``.
        labels: True scores ``(N,)``.
        ax: Where to draw.
        label_range: The lowest and the highest possible label.

    Raises:
        DataError: There are no features, fewer than two utterances, not one label each, a value that is not
            finite, or the same features for every utterance.
    """
    truth = finite("labels", labels, None)
    arrays = {name: finite(name, values, len(truth), None) for name, values in features.items()}
    if not arrays:
        raise DataError("there are no features to draw: expected F_multimodal, F_audio or F_vision")
    for name, array in arrays.items():
        if array.shape[1] < 2:
            raise DataError(f"{name} is one number an utterance: two components need at least two")
        if not np.ptp(array, axis=0).any():
            raise DataError(f"{name} is the same for all {len(truth)} utterances: it has no components")
    from sklearn.decomposition import PCA

    ax = axes_or_new(ax)
    if len(truth) < FEWEST:
        return write_instead(ax, f"{len(truth)} utterances are too few for a projection")
    ax.axis("off")
    low, high = label_range
    pitch = 1 / len(arrays)
    for i, (name, array) in enumerate(arrays.items()):
        panel = ax.inset_axes(((i + 0.24) * pitch, 0, 0.76 * pitch, 0.88))  # room for its label and title
        pca = PCA(2, svd_solver="full")
        x, y = pca.fit_transform(array).T
        points = panel.scatter(
            x, y, c=truth, cmap=COLOUR_MAP, vmin=low, vmax=high, s=12, linewidths=0.2, edgecolors=GREY
        )
        first, second = pca.explained_variance_ratio_
        panel.set(xticks=[], yticks=[])
        panel.set_xlabel(f"PC 1 ({first:.0%})", fontsize="x-small")
        panel.set_ylabel(f"PC 2 ({second:.0%})", fontsize="x-small")
        panel.set_title(name.removeprefix("F_"), fontsize="small", pad=3)
    ax.figure.colorbar(points, ax=ax, location="bottom", aspect=40, label=f"true score ({POINTS})")
    return ax
