"""Which kernels the CPU runs: its own, or in the place of a card those for CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmiln import _core

_emulated: Path | None = None


def emulate(folder: Path | None) -> None:
    """From now on the CPU runs the kernels of a folder of `cuda.shim`'s; `None`: its own."""
    global _emulated
    _emulated = folder
    _core.emulate_kernels(folder)


@contextmanager
def of_the_cpu() -> Iterator[None]:
    """Here the CPU runs its own, to be compared with."""
    _core.emulate_kernels(None)
    try:
        yield
    finally:
        _core.emulate_kernels(_emulated)
