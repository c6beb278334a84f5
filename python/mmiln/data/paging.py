"""Files mapped into memory: what was read of them is given back, so that it doesn't pile up."""

from __future__ import annotations

import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

HELD: Final = 1 << 25  # bytes read before pages are given back


class Pages:
    """The pages behind an array; nothing happens to one that isn't mapped.

    The system can drop such pages when it needs them, but until then they count as memory of the process.
    Arrays over them stay what they are: a page that is read again comes from the file again.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._map = _map_of(array)
        self._read = 0

    def read(self, nbytes: int) -> None:
        """Counts bytes that were read, or are about to be, and gives back all pages where it is time."""
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
