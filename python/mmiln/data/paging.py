"""Releases pages of memory-mapped files that have been read, so that they do not accumulate."""

from __future__ import annotations

import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

HELD: Final = 1 << 25  # bytes read before pages are released


class Pages:
    """The pages of a mapped array; does nothing for other arrays.

    The system drops such pages when it needs memory, but until then they count as memory of the process.
    Arrays stay valid: a released page that is accessed again is read from the file again.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._map = _map_of(array)
        self._read = 0

    def read(self, nbytes: int) -> None:
        """Counts bytes that are read, and releases all pages after every ``HELD`` of them."""
        self._read += nbytes
        if self._map is not None and self._read >= HELD:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0


def _map_of(array: npt.NDArray[Any]) -> mmap.mmap | None:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, memoryview):
        base = base.obj
    return base if isinstance(base, mmap.mmap) else None
