"""Every op of `mmiln.functional` on a card, forward and backward, beside PyTorch and the card's bounds.

The time of a call is that of many in a row, which for small ops is what Python and launching take; that of
its kernels is the card's alone. The bound is the time in which the card could read and write each number once
a pass, or do the op's arithmetic, whichever is longer, at the rates of a large copy and of a large float32
product in this run. Data that fits stays in the card's cache from call to call, as in a training step.

python -m benchmarks.gpu.ops
python -m benchmarks.gpu.ops --device cpu --quick     does it run?
"""

from __future__ import annotations

import importlib
import sys
import traceback

import torch

from benchmarks.common import (
    BATCH,
    Bench,
    arguments,
    audio_lengths,
    duration,
    mosei_like,
    mosi_like,
    parse,
    ratio,
    seconds,
    table,
)
from benchmarks.gpu.card import Bounds, bounds, describe, elapsed_on, exact_float32, launches
from benchmarks.run import OPS

HEADER = ["", "mmiln", "its kernels", "PyTorch, best", "/ mmiln", "moves", "computes", "bound", "of bound"]


def row(bench: Bench, limits: Bounds, device: str, *, quick: bool) -> list[str]:
    """The op's sides, timed in turn."""
    bench.check()
    times = seconds(bench.sides, quick=quick, elapsed=elapsed_on(device))
    took = times.pop(bench.own)
    best = min(times, key=times.__getitem__)
    least, by = limits.least(4 * bench.numbers, bench.flops)
    seen = launches(bench.ours, device)
    return [
        bench.own,
        duration(took),
        f"{seen.kernels:.0f} of {duration(seen.busy)}" if seen else "",
        f"{duration(times[best])} ({best.removeprefix('PyTorch, ')})",
        ratio(times[best], took),
        f"{4 * bench.numbers / 1e6:.3g} MB",
        f"{bench.flops / 1e6:.3g} MFLOP",
        f"{duration(least)} ({by})",
        f"{least / (seen.busy if seen else took):.1%}",
    ]


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=OPS, default=OPS, help="these ops")
    args = parse(parser)
    exact_float32()
    limits = bounds(args.device, quick=args.quick)
    print(
        f"{describe(args.device)}. A copy moves {limits.bandwidth / 1e9:,.0f} GB/s, a product of float32 "
        f"without TF32 does {limits.flops / 1e12:.3g} TFLOP/s.\n"
    )
    sizes = {"CMU-MOSI": audio_lengths(BATCH, mosi_like)}
    if args.device != "cpu":
        sizes["CMU-MOSEI"] = audio_lengths(128, mosei_like)
    failed = 0
    for name, lengths in sizes.items():
        rows = []
        for op in args.only:
            module = importlib.import_module(f"benchmarks.ops.{op}")
            try:
                with torch.device(args.device):
                    bench = module.bench(lengths)
                rows.append(row(bench, limits, args.device, quick=args.quick))
            except (Exception, SystemExit) as error:
                failed += 1
                traceback.print_exc()
                reason = str(error).strip().split("\n")[0]
                rows.append([f"`{op}`", f"failed: {reason}", *[""] * (len(HEADER) - 2)])
        over = f"{len(lengths)} of {name}, {sum(lengths)} frames of audio"
        print(table([over, *HEADER[1:]], rows), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
