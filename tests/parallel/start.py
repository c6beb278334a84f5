"""How the tests of this folder start processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from support.waiting import HANG_S

HERE = Path(__file__).parent


def torchrun(*arguments: object, processes: int = 2, restarts: int = 0) -> subprocess.Popen[str]:
    """So many processes of a script or module."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--max-restarts={restarts}"]
    return popen(*start, f"--nproc-per-node={processes}", *arguments)


def popen(*command: object, **environment: str) -> subprocess.Popen[str]:
    """A command with this process's packages, one thread a process."""
    return subprocess.Popen(
        [*map(str, command)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> Any:
    """The output, error output and status of a process; it is killed if it hangs."""
    try:
        out, err = process.communicate(timeout=HANG_S)
    except subprocess.TimeoutExpired:
        for child in [*psutil.Process(process.pid).children(recursive=True), process]:
            child.kill()
        out, err = process.communicate()
        raise AssertionError(f"not ended after {HANG_S} s: {out}\n{err}") from None
    return out, err, process.returncode
