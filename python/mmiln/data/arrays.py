"""From padded arrays to true frames: where an utterance lies in its padding, and taking it out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmiln.data.paging import Pages

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_BLOCK = 64  # utterances looked at together: bounds the memory of the masks


class Placement(NamedTuple):
    """Where the true frames start, and how many utterances have padding of which kind."""

    starts: Ints  # (N,)
    end: int
    start: int
    noisy: int


def reals(values: Any) -> npt.NDArray[np.float64]:
    """Numbers as float64. Raises TypeError, ValueError or OverflowError where they are none, or complex."""
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise TypeError
    return array.astype(np.float64)


def single(values: npt.ArrayLike | Tensor) -> Floats:
    """Numbers as float32 in one piece, also a tensor's; those that are too large become infinite."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().float().numpy()
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, np.float32)


def content_bounds(frames: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """First row with content and the one after the last, of (N, W, w) frames: two (N,) arrays.

    A row of zeros, NaN and infinities alone has no content. An utterance without any has (W, 0).
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
    """Find at which end of (N, W, w) frames the padding lies, given the (N,) true lengths.

    Content on both sides of the true length means that the padding holds values: the frames are
    then taken from the start, as MMSA takes them. Where both ends would do (true frames that are
    zero), the side of most other utterances decides.
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
    """The true frames of (N, W, w): N arrays (T, w), float32, in one piece of memory.

    Values too large for float32 become infinite and are then treated as every non-finite value.
    """
    packed = np.empty((int(lengths.sum()), frames.shape[2]), np.float32)
    utterances = np.split(packed, np.cumsum(lengths)[:-1])
    pages = Pages(frames)
    with np.errstate(over="ignore"):
        for utterance, padded, start in zip(utterances, frames, starts, strict=True):
            utterance[:] = padded[start : start + len(utterance)]
            pages.read(padded.nbytes)
    return utterances
