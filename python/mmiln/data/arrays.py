"""Locates utterances in padded arrays, and extracts their true frames."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmiln.data.paging import Pages
from mmiln.errors import DataError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_BLOCK = 64  # utterances examined together, which bounds the memory of the masks


class Placement(NamedTuple):
    """Where the true frames start, and the numbers of utterances with each kind of padding."""

    starts: Ints  # (N,)
    end: int
    start: int
    noisy: int


def reals(values: Any) -> npt.NDArray[np.float64]:
    """Numbers as float64. Raises TypeError, ValueError or OverflowError unless they are real numbers."""
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise TypeError
    with np.errstate(invalid="ignore"):  # of a signalling NaN, which damaged files may hold
        return array.astype(np.float64)


def positions(index: Any, count: int) -> list[int]:
    """The positions from 0 on that a slice, positions or a mask select of ``count`` things.

    Raises:
        DataError: It is none of these.
        IndexError: There is no such position.
    """
    if isinstance(index, slice):
        return list(range(count)[index])
    if hasattr(index, "sort_index") and index.dtype.kind == "b" and sorted(index.index) == [*range(count)]:
        index = index.sort_index()  # a column of the table of utterances, which may have been sorted
    if isinstance(index, Tensor):
        index = index.cpu()
    chosen = np.asarray(index if hasattr(index, "__len__") else list(index))
    if chosen.dtype == object:  # such as of pandas' nullable types
        chosen = np.array(chosen.tolist())
    if chosen.dtype == bool and chosen.shape == (count,):
        return np.flatnonzero(chosen).tolist()
    if chosen.ndim != 1 or (chosen.size and chosen.dtype.kind not in "iu"):
        raise DataError(
            f"expected a slice, positions, or a mask of {count} booleans, got {chosen.dtype} of shape "
            f"{chosen.shape}"
        )
    return [range(count)[int(i)] for i in chosen]


def single(values: npt.ArrayLike | Tensor) -> Floats:
    """Numbers of an array or tensor as contiguous float32; too large ones become infinite."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().float().numpy()
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(values, np.float32)


def content_bounds(frames: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """First row with content and the one after the last, of (N, W, w) frames: two (N,) arrays.

    A row of only zeros, NaN and infinities has no content. An utterance without content has (W, 0).
    """
    count, width = frames.shape[:2]
    pages = Pages(frames)
    first = np.full(count, width, np.int64)
    last = np.zeros(count, np.int64)
    for at in range(0, count, _BLOCK):
        block = frames[at : at + _BLOCK]
        rows = (np.isfinite(block) & (block != 0)).any(axis=2)
        pages.read(block.nbytes)
        some = rows.any(axis=1)
        first[at : at + _BLOCK][some] = rows.argmax(axis=1)[some]
        last[at : at + _BLOCK][some] = width - rows[:, ::-1].argmax(axis=1)[some]
    return first, last


def place(frames: npt.NDArray[Any], lengths: Ints) -> Placement:
    """Find the end of (N, W, w) frames at which the padding is, given the (N,) true lengths.

    If the padding holds values at whichever end, the frames are taken from the start, as in MMSA. If
    both ends are possible (some true frames are zero), the side of most other utterances decides.
    """
    first, last = content_bounds(frames)
    width = frames.shape[1]
    padded = lengths < width
    at_end, at_start = last <= lengths, first >= width - lengths
    only_start = padded & at_start & ~at_end
    only_end = padded & at_end & ~at_start
    either = padded & at_end & at_start
    if only_start.sum() > only_end.sum():
        only_start |= either
    else:
        only_end |= either
    noisy = padded & ~at_end & ~at_start
    starts = np.where(only_start, width - lengths, 0)
    return Placement(starts, int(only_end.sum()), int(only_start.sum()), int(noisy.sum()))


def take(frames: npt.NDArray[Any], starts: Ints, lengths: Ints) -> list[Floats]:
    """The true frames of (N, W, w): N arrays (T, w), float32, in one contiguous block.

    Values too large for float32 become infinite, and are then treated like other non-finite values.
    """
    packed = np.empty((int(lengths.sum()), frames.shape[2]), np.float32)
    utterances = np.split(packed, np.cumsum(lengths)[:-1])
    pages = Pages(frames)
    with np.errstate(over="ignore", invalid="ignore"):
        for utterance, padded, start in zip(utterances, frames, starts, strict=True):
            utterance[:] = padded[start : start + len(utterance)]
            pages.read(padded.nbytes)
    return utterances
