"""Sequences of arrays that are made at each access, so that not all are in memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats, Ints, single, take
from mmiln.data.formats.npy import open_rows
from mmiln.data.paging import Pages

Array = npt.NDArray[Any]


class Ragged(Sequence[Array]):
    """A sequence of N arrays. It must not change, so that values computed from it stay valid.

    Attributes:
        lengths: (N,) int64, true frames or tokens of each.
    """

    def __init__(self, lengths: Ints) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> Ragged: ...
    def __getitem__(self, index: int | slice) -> Array | Ragged:
        at = range(len(self))[index]
        return self._array(at) if isinstance(at, int) else self.subset(at)

    @abstractmethod
    def _array(self, position: int) -> Array:
        """The array at a position from 0 on."""

    def subset(self, positions: Iterable[int]) -> Ragged:
        """The arrays at these positions, in this order."""
        return Chosen(self, np.fromiter(positions, np.int64))


class Padded(Ragged):
    """True frames of a padded array (N, W, w), as float32; too large values become infinite.

    An utterance of length 0 has one frame of zeros.
    """

    def __init__(self, frames: Array, starts: Ints, lengths: Ints) -> None:
        super().__init__(np.maximum(lengths, 1))
        self._frames, self._starts, self._pages = frames, starts, Pages(frames)
        self._none = lengths == 0

    def _array(self, position: int) -> Array:
        start = 0 if self._none[position] else self._starts[position]
        true = self._frames[position, start : start + self.lengths[position]]
        self._pages.read(true.nbytes)
        return np.zeros(true.shape, np.float32) if self._none[position] else single(true)

    def read(self) -> list[Floats]:
        """All arrays, copied into memory."""
        arrays = take(self._frames, np.where(self._none, 0, self._starts), self.lengths)
        for position in np.nonzero(self._none)[0]:
            arrays[position][:] = 0
        return arrays


class Stored(Ragged):
    """Arrays (T, w) that lie one after the other in an ``.npy`` file (sum T, w), as views of it.

    Its pickle holds the file's path: a process that unpickles it opens the file anew.
    """

    def __init__(self, path: Path, offsets: Ints) -> None:
        super().__init__(np.diff(offsets))
        self._path, self._offsets = path, offsets
        self._flat = open_rows(path)
        self._pages = Pages(self._flat)

    def _array(self, position: int) -> Array:
        view: Array = self._flat[self._offsets[position] : self._offsets[position + 1]]
        self._pages.read(view.nbytes)
        return view

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path, self._offsets)


class StoredTokens(Stored):
    """Stored tokens, (3, T) each."""

    def _array(self, position: int) -> Array:
        return super()._array(position).T


class Mapped(Ragged):
    """A function of each position and array, applied at each access; it must keep the length."""

    def __init__(self, base: Ragged, function: Callable[[int, Array], Array]) -> None:
        super().__init__(base.lengths)
        self._base, self._function = base, function

    def _array(self, position: int) -> Array:
        return self._function(position, self._base[position])


class Chosen(Ragged):
    """Some arrays of another sequence."""

    def __init__(self, base: Ragged, positions: Ints) -> None:
        super().__init__(base.lengths[positions])
        self._base, self._positions = base, positions

    def _array(self, position: int) -> Array:
        return self._base[int(self._positions[position])]

    def subset(self, positions: Iterable[int]) -> Ragged:
        """The arrays at these positions, taken from the underlying sequence."""
        return Chosen(self._base, self._positions[np.fromiter(positions, np.int64)])


class Joined(Ragged):
    """Several sequences, one after the other."""

    def __init__(self, parts: Sequence[Ragged]) -> None:
        super().__init__(np.concatenate([part.lengths for part in parts]))
        self._parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def _array(self, position: int) -> Array:
        part = int(np.searchsorted(self._ends, position, "right"))
        return self._parts[part][position - int(self._ends[part])]  # counted from the part's end
