"""The kernels under ThreadSanitizer, each thread of a block a thread of the system."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cuda import shim
from support.functional_cases import WITH_KERNELS
from support.waiting import HANG_S

FLAGS = ("-DSHIM_THREADS", "-fsanitize=thread", "-g", "-O1")
HERE = Path(__file__).parent


def sanitized(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `run_races.py`; 66 is what a run returns in which a race was found."""
    library = subprocess.run(
        ["g++", "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    # Fixed addresses: the sanitizer of older compilers does not know where newer kernels put things.
    options = {"LD_PRELOAD": str(Path(library).resolve())}
    options["TSAN_OPTIONS"] = "exitcode=66 report_thread_leaks=0"
    return subprocess.run(
        ["setarch", "-R", sys.executable, HERE / "run_races.py", folder, *arguments],
        env=os.environ | options,
        capture_output=True,
        text=True,
        timeout=6 * HANG_S,
    )


@pytest.fixture(scope="module")
def planted() -> Path:
    return shim.build(FLAGS, [HERE / "race.cu"])


def test_a_planted_race_is_found(planted: Path):
    done = sanitized(planted, "reverse", "0")
    assert done.returncode == 66, done.stderr
    assert "data race" in done.stderr and "race.cu" in done.stderr


def test_a_barrier_is_understood(planted: Path):
    done = sanitized(planted, "reverse", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "True"


@pytest.fixture(scope="module")
def reports() -> dict[str, str]:
    """What the sanitizer says of each operation. One process runs them all, as each takes long to start."""
    done = sanitized(shim.build(FLAGS), "ops", *WITH_KERNELS)
    _, *parts = re.split(r"^== (.+)$", done.stderr, flags=re.MULTILINE)
    found = dict(zip(parts[::2], parts[1::2], strict=True))
    assert found.keys() == {*WITH_KERNELS, "end"}, done.stderr
    assert done.returncode == (66 if "ThreadSanitizer" in done.stderr else 0), done.stderr
    return found


@pytest.mark.kernels
@pytest.mark.parametrize("name", [*WITH_KERNELS, "end"])
def test_no_kernel_has_a_race(name: str, reports: dict[str, str]):
    assert "ThreadSanitizer" not in reports[name], reports[name]
