"""The provenance of a number: the code, the machine, the peak memory."""

from __future__ import annotations

import hashlib
import platform
import resource
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from .. import files


@cache
def code() -> dict[str, str]:
    """``version`` of mmiln and ``digest``, SHA-256 (hex) of the running package's files."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".py", ".so", ".pyd")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(bytes.fromhex(files.sha256(path)))
    return {"version": version("mmiln"), "digest": digest.hexdigest()}


def machine(device: str) -> dict[str, str | int]:
    """Versions of Python, torch and numpy, the processor, the threads and the device's GPU."""
    card = "" if device == "cpu" else torch.cuda.get_device_name(device)
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "device": card or "cpu",
    }


def peak_memory() -> float:
    """The peak resident memory of this process, in MiB."""
    try:
        # Counts this program alone, where getrusage includes the process before exec.
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
