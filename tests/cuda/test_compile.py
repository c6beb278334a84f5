"""Every file of kernels compiled for cards of two generations, within stated limits."""

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from cuda import shim
from mmiln import _core

# Registers of one thread: with more, a multiprocessor could hold fewer than 512 threads.
REGISTERS = 128
# Kernels that hold recurrent weights in registers; their sources say why.
MORE_REGISTERS = {
    **{"bigru_64": 168, "bigru_64_backward": 168, "lstm_64": 200, "lstm_64_backward": 200},
    **{"attention_long_backward": 168, "attention_broad_backward": 168},  # three blocks a multiprocessor
}
# Bytes of registers that a thread may store to memory and load again: where a kernel is at its limit, the
# assemblers of two versions of CUDA differ by a few.
SPILLED = 32
# Bytes that a kernel may declare statically; dynamic shared memory is checked at every launch.
STATIC_SHARED = 8 << 10


@dataclass
class Figures:
    registers: int
    shared: int
    spilled: int


def figures(log: str) -> dict[str, Figures]:
    """The figures of each kernel, as CUDA's assembler prints them."""
    found = {}
    for part in log.split("Compiling entry function ")[1:]:
        name = part.split("'")[1]
        spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", part)
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        assert spills and registers, part
        found[name] = Figures(
            int(registers[1]), int(shared[1]) if shared else 0, int(spills[1]) + int(spills[2])
        )
    return found


def check(compiled: list[tuple[str, str]], dtype: str) -> None:
    """Asserts that every kernel was compiled, and within the limits."""
    kernels = {name: found for _, log in compiled for name, found in figures(log).items()}
    in_sources = {name for file in shim.sources() for name in shim.KERNEL.findall(file.read_text())}
    assert kernels.keys() == in_sources, "every kernel is compiled, and nothing else"
    for name, found in kernels.items():
        most = MORE_REGISTERS.get(name, REGISTERS)
        # Double precision is for checking numbers: there a kernel may spill.
        assert dtype == "float64" or found.registers <= most, f"{name}: {found}"
        assert dtype == "float64" or found.spilled <= SPILLED, f"{name}: {found}"
        assert found.shared <= STATIC_SHARED, f"{name}: {found}"


@pytest.mark.parametrize(
    ("capability", "dtype", "folder"),
    [(80, "float32", ""), (80, "float64", "/dev/null/no folder"), (90, "float64", "")],
)
def test_without_a_cache(
    capability: int, dtype: str, folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("MMILN_CACHE", folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    check(_core.compile_kernels(capability, dtype), dtype)
    assert not list(tmp_path.iterdir())


def test_an_error_in_a_source_is_shown():
    assert figures("no kernels") == {}
    with pytest.raises(AssertionError):
        figures("Compiling entry function 'k' for 'sm_90'\nnothing about it")


def test_the_cache_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MMILN_CACHE", str(tmp_path / "made" / "on the way"))
    first = _core.compile_kernels(90, "float32")
    check(first, "float32")
    files = sorted((tmp_path / "made" / "on the way").iterdir())
    assert len(files) == len(first) and all(file.suffix == ".cubin" for file in files)
    before = [file.stat().st_mtime_ns for file in files]
    assert _core.compile_kernels(90, "float32") == first
    assert [file.stat().st_mtime_ns for file in files] == before, "read, not written again"

    whole = files[0].read_bytes()
    for damaged in (b"", whole[:-1], whole[:20], whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]):
        files[0].write_bytes(damaged)
        assert [name for name, _ in _core.compile_kernels(90, "float32")] == [name for name, _ in first]
        assert len(files[0].read_bytes()) > 100 and files[0].read_bytes() != damaged
    assert sorted((tmp_path / "made" / "on the way").iterdir()) == files, "nothing half-written is left"
