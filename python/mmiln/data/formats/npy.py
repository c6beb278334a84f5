"""Numpy's ``.npy`` files, written row by row and opened as maps.

A pattern reads their headers, because numpy's own reader evaluates them as Python.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mmiln.errors import DataError

_HEADER: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<f[248]|<[iu][248]|\|[iub]1)', 'fortran_order': (False|True), "
    rb"'shape': \((\d{1,18}),(?: (\d{1,18}))?\), \} *\n",
    re.DOTALL,
)
_LONGEST: Final = 256  # bytes of a header


def write_rows(path: Path, rows: int, width: int, dtype: str, arrays: Iterable[npt.NDArray[Any]]) -> None:
    """Writes an array (rows, width) piece by piece, with one piece in memory at a time."""
    with path.open("wb") as file:
        header = {"descr": dtype, "fortran_order": False, "shape": (rows, width)}
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(np.ascontiguousarray(array, dtype).data)


def open_rows(path: Path) -> npt.NDArray[Any]:
    """An array (rows,) or (rows, width) of numbers, mapped from its file read-only.

    Raises:
        DataError: The file is something else.
    """
    with path.open("rb") as file:
        header = _HEADER.match(file.read(_LONGEST))
        size = path.stat().st_size
    if header is None:
        raise DataError(f"{path} is no .npy file of numbers in one or two axes")
    shape = tuple(int(number) for number in header.groups()[2:] if number is not None)
    dtype = np.dtype(header[1].decode())
    if header.end() + math.prod(shape) * dtype.itemsize != size:
        raise DataError(f"{path} claims the shape {shape} of {dtype}, which is not what {size} bytes hold")
    if 0 in shape:  # which can't be mapped
        return np.zeros(shape, dtype)
    # Slicing a plain array is quicker than slicing numpy's memmap.
    return np.asarray(np.memmap(path, dtype, "r", header.end(), shape, "F" if header[2] == b"True" else "C"))
