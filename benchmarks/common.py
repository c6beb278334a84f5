"""What every benchmark shares: data of CMU-MOSI's shape, two sides that take turns, tables."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import mmiln
from mmiln.data import Split

Call = Callable[[], Any]

VOCABULARY = 30522  # of bert-base-uncased
TRAIN_SIZE = 1284  # CMU-MOSI's training utterances
BATCH = 32
HEADS, WIDTH = 5, 50  # the presets' d_model


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of both sides")
    parser.add_argument("--quick", action="store_true", help="few repetitions: does it run?")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    args = parser.parse_args()
    torch.set_num_threads(args.threads)  # mmiln's kernels follow it
    torch.manual_seed(0)
    return args


# Data


def mosi_like(size: int, *, bert: bool = False) -> Split:
    """Utterances with CMU-MOSI's lengths; features 768, 5 and 20 wide, or token ids for the text."""
    split = mmiln.data.synthetic(size, 2, 2, text_dim=2 if bert else 768).train
    split.raw_text = None
    if bert:
        rng = np.random.default_rng(0)
        ids = [rng.integers(1000, VOCABULARY, t) for t in split.lengths("text")]
        split.text, split.text_bert = None, [np.stack([i, np.ones_like(i), np.zeros_like(i)]) for i in ids]
    return split


def batches(count: int, *, bert: bool = False) -> list[dict[str, Any]]:
    return list(mosi_like(count * BATCH, bert=bert).loader(BATCH))


def describe(batches: Sequence[Mapping[str, Any]]) -> str:
    """Mean and largest true length of each modality."""
    parts = []
    for name in ("text", "audio", "vision"):
        key = name if name in batches[0] else "text_bert"
        lengths = [u.shape[-1] if key == "text_bert" else len(u) for b in batches for u in b[key]]
        parts.append(f"{name} {np.mean(lengths):.1f} (at most {max(lengths)})")
    return f"Batches of {len(batches[0]['index'])}; true lengths " + ", ".join(parts)


class Frames:
    """Frames of one batch, `WIDTH` wide or as wide as asked, with lengths as its `modality` has them."""

    def __init__(self, modality: str = "audio", width: int = WIDTH) -> None:
        self.lengths: list[int] = mosi_like(BATCH).lengths(modality).tolist()
        self.lengths_tensor = torch.tensor(self.lengths)
        self.total = sum(self.lengths)
        self.mask = torch.arange(max(self.lengths)) < self.lengths_tensor[:, None]
        self.x = torch.randn(self.total, width, requires_grad=True)

    def pad(self, x: Tensor) -> Tensor:
        """(sum T, width) to a leaf (B, longest T, width)."""
        padded = pad_sequence(x.detach().split(self.lengths), batch_first=True)
        return padded.requires_grad_(x.requires_grad)

    def rows(self, x: Tensor) -> Tensor:
        """The true frames of a padded array; other tensors as they are."""
        return x[self.mask] if x.shape[:2] == self.mask.shape else x


# Time


def seconds(sides: Mapping[str, Call], *, quick: bool = False, shortest: float = 0.01) -> dict[str, float]:
    """Median time of each side. They take turns, so that the machine's moods meet all alike.

    A call shorter than `shortest` is repeated within each measurement. Before each, a call that is not long
    is made once without counting: the other side leaves the caches full of its own, and for some
    milliseconds its threads spin.
    """
    warm_up, repeats = (1, 2) if quick else (2, 10)
    loops = dict.fromkeys(sides, 1)
    last = dict.fromkeys(sides, math.inf)
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_up + repeats):
        for name, call in sides.items():
            if last[name] < 2:
                call()
            started = time.perf_counter()
            for _ in range(loops[name]):
                call()
            took = last[name] = (time.perf_counter() - started) / loops[name]
            if turn >= warm_up:
                times[name].append(took)
            else:
                loops[name] = max(1, math.ceil(shortest / took))
    return {name: statistics.median(values) for name, values in times.items()}


def matmul_rate(*, quick: bool = False) -> float:
    """FLOP/s of torch's float32 matrix product on as many threads as are set: the best of some sizes."""
    rates = []
    for n in (1024,) if quick else (1024, 1536, 2048):
        a, b = torch.randn(n, n), torch.randn(n, n)
        rates.append(2 * n**3 / seconds({"": lambda a=a, b=b: a @ b}, quick=quick)[""])
    return max(rates)


# Ops


def backward_of(
    forward: Callable[[], Tensor], inputs: Sequence[Tensor], frames: Frames | None = None
) -> Call:
    """Forward and backward of an op. The call returns output and gradients, in the frames' rows."""
    out = forward().detach()
    weights = torch.linspace(-1, 1, out.shape[-1] if out.ndim else 1).expand(out.shape or (1,))
    upstream = weights.reshape(out.shape).contiguous()
    if frames is not None and out.shape[:2] == frames.mask.shape:
        upstream *= frames.mask[..., None]

    def call() -> tuple[Tensor, ...]:
        out = forward()
        return out.detach(), *torch.autograd.grad(out, inputs, upstream)

    return call


def report(
    op: str,
    ours: Call,
    peers: Mapping[str, Call],
    *,
    flops: float,
    frames: Frames | None,
    args: argparse.Namespace,
    compare: bool = True,
) -> None:
    """Checks that all sides agree, times them, prints a row each.

    `flops` counts forward and backward over true frames; every side is held to the same count.
    """
    own = f"`{op}`"
    sides = {own: ours} | dict(peers)
    if compare:
        _check_agreement(sides, own, frames)
    times = seconds(sides, quick=args.quick)
    rate = matmul_rate(quick=args.quick)
    rows = [
        [
            name,
            duration(took),
            "" if name == own else ratio(took, times[own]),
            f"{flops / took / 1e9:.2f}",
            f"{flops / took / rate:.1%}",
        ]
        for name, took in times.items()
    ]
    print(table([counted(args.threads), "median", "peer / mmiln", "GFLOP/s", "of matmul"], rows))


def _check_agreement(sides: Mapping[str, Call], own: str, frames: Frames | None) -> None:
    results = {
        name: [tensor if frames is None else frames.rows(tensor) for tensor in call()]
        for name, call in sides.items()
    }
    for name, result in results.items():
        for theirs, mine in zip(result, results[own], strict=True):
            difference, size = float((theirs - mine).norm()), float(mine.norm())
            if not difference <= 1e-4 * size + 1e-6:
                raise SystemExit(f"{own} and {name} differ by {difference:.3g} of {size:.3g}")


# Tables


def ratio(peer: float, mmiln: float) -> str:
    return f"{peer / mmiln:.2f}"


def counted(threads: int) -> str:
    return f"{threads} thread{'s' * (threads != 1)}"


def duration(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Markdown, the first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"
