"""What a start costs: seconds and peak memory of processes that import mmiln or ask its command for help.

python -m benchmarks.startup
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time

TORCH = "import torch"
SIDES = {  # what Python is given, and the status that it must end with
    TORCH: (["-c", TORCH], 0),
    "import torch, mmiln": (["-c", "import torch, mmiln"], 0),
    "import mmiln": (["-c", "import mmiln"], 0),
    "mmiln.Model": (["-c", "import mmiln; mmiln.Model"], 0),
    "mmiln --help": (["-m", "mmiln", "--help"], 0),
    "mmiln train --help": (["-m", "mmiln", "train", "--help"], 0),
    "mmiln experiment run --help": (["-m", "mmiln", "experiment", "run", "--help"], 0),
    "mmiln train --epochs many": (["-m", "mmiln", "train", "--epochs", "many"], 2),
}


def cost(arguments: list[str], status: int) -> tuple[float, float]:
    """Seconds and peak MB of a Python of its own."""
    started = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, ended, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(ended)
    if child.returncode != status:
        raise SystemExit(f"{arguments} ended with {child.returncode}, not with {status}")
    return time.perf_counter() - started, used.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", help="as every benchmark has it; nothing is computed here")
    parser.add_argument("--quick", action="store_true", help="few repetitions: does it run?")
    args = parser.parse_args()
    for side in SIDES.values():
        cost(*side)  # brings its files into memory
    turns = [{name: cost(*side) for name, side in SIDES.items()} for _ in range(1 if args.quick else 10)]
    medians = {name: [statistics.median(turn[name][i] for turn in turns) for i in range(2)] for name in SIDES}

    # Not before: a child's peak is at least its parent's when it was made.
    from benchmarks.common import duration, ratio, table

    base = medians[TORCH]
    rows = [
        [f"`{name}`", duration(took), ratio(took, base[0]), f"{peak:.0f} MB", f"{peak - base[1]:+.0f} MB"]
        for name, (took, peak) in medians.items()
    ]
    print(table(["", "median", f"/ `{TORCH}`", "peak memory", f"beside `{TORCH}`"], rows))


if __name__ == "__main__":
    main()
