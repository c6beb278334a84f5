"""Builds the kernels for the CPU from the sources that NVRTC compiles for a card."""

import hashlib
import re
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
OPS = ROOT / "src" / "ops"
HEADERS = sorted((ROOT / "src").rglob("*.cuh"))
KERNEL = re.compile(r'extern "C" __global__ void(?:\s+__launch_bounds__\([^)]*\))?\s+(\w+)\(')


def sources() -> list[Path]:
    """Every file of kernels."""
    return sorted(OPS.rglob("*.cu"))


def build(flags: Sequence[str] = (), files: Sequence[Path] | None = None) -> Path:
    """A folder with `float.so` and `double.so`, made again only where something has changed."""
    files = sources() if files is None else files
    read = [HERE / "shim.h", *HEADERS, *files]
    digest = hashlib.sha256("\0".join([*flags, *(f.read_text() for f in read)]).encode())
    folder = ROOT / "target" / "shim" / digest.hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # another worker of pytest may be at it
        if not (folder / "built").exists():
            _build(folder, flags, files)
    return folder


def _build(folder: Path, flags: Sequence[str], files: Sequence[Path]) -> None:
    jobs = [(real, file) for real in ("float", "double") for file in files]
    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(lambda job: _compile(folder, *job, flags), jobs))
    for real in ("float", "double"):
        own = [o for o, (kind, _) in zip(objects, jobs, strict=True) if kind == real]
        _run(["g++", "-shared", *flags, "-o", folder / f"{real}.so", *own, "-pthread"])
    (folder / "built").touch()


def _compile(folder: Path, real: str, file: Path, flags: Sequence[str]) -> Path:
    name = f"{file.parent.name}_{file.stem}_{real}"
    unit = folder / f"{name}.cpp"
    kernels = KERNEL.findall(file.read_text())
    assert kernels, f"{file} has no kernels"
    # In a namespace of its own: helpers of two files may share a name.
    lines = [
        f"#define real {real}",
        '#include "shim.h"',
        "namespace {",
        f'#include "{file}"',
        "}",
        *(f"SHIM_KERNEL({kernel})" for kernel in kernels),
    ]
    unit.write_text("\n".join(lines) + "\n")
    out = folder / f"{name}.o"
    include = [f"-I{folder}" for folder in sorted({HERE, *(header.parent for header in HEADERS)})]
    options = ["-std=c++17", "-O2", "-fPIC", "-w", *include, *flags]
    _run(["g++", "-c", *options, "-o", out, unit])
    return out


def _run(command: Sequence[object]) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert done.returncode == 0, f"{done.args[-1]}:\n{done.stderr}"
