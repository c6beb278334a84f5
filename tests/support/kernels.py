"""Which kernels the CPU runs: its own, or in the place of a card those for CUDA."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmiln import _core

_emulated: Path | None = None


def emulate(folder: Path | None) -> None:
    """Makes the CPU run the CUDA kernels in a folder built by `cuda.shim`, or with `None` its own."""
    global _emulated
    _emulated = folder
    _core.emulate_kernels(folder)


@contextmanager
def of_the_cpu() -> Iterator[None]:
    """Within this context the CPU runs its own kernels, for comparison."""
    _core.emulate_kernels(None)
    try:
        yield
    finally:
        _core.emulate_kernels(_emulated)
