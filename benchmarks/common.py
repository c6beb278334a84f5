"""Shared by all benchmarks: data of CMU-MOSI's and CMU-MOSEI's shapes, timing of sides in turn, tables."""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import mmiln
from mmiln.data import Split

Call = Callable[[], Any]

VOCABULARY = 30522  # size of bert-base-uncased's vocabulary
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
        split.text, split.text_bert = None, tokens(split.lengths("text"))
    return split


def mosei_like(size: int, *, bert: bool = False) -> Split:
    """Utterances with about CMU-MOSEI's lengths; features 768, 74 and 35 wide, or token ids for the text.

    Tokens are 24 on average and at most 50, frames of audio and vision 180 and at most 500, as a sentence is
    long or short for all three.
    """
    rng = np.random.default_rng(1)
    words = rng.lognormal(np.log(20.2), 0.55, size).clip(3, 48).round()
    pace = rng.lognormal(np.log(8.0), 0.2, (2, size))
    text = (words + 2).astype(int)  # [CLS] and [SEP]
    audio, vision = (words * pace).clip(3, 500).round().astype(int)

    def frames(lengths: Sequence[int], width: int) -> list[Any]:
        return [rng.standard_normal((t, width), np.float32) for t in lengths]

    given = {"text_bert": tokens(text)} if bert else {"text": frames(text, 768)}
    return Split(
        [f"{n}" for n in range(size)],
        rng.uniform(-3, 3, size).astype(np.float32),
        **given,
        audio=frames(audio, 74),
        vision=frames(vision, 35),
    )


def tokens(lengths: Sequence[int]) -> list[Any]:
    """Random token ids with mask and segments, (3, T) for each length."""
    rng = np.random.default_rng(0)
    ids = [rng.integers(1000, VOCABULARY, t) for t in lengths]
    return [np.stack([i, np.ones_like(i), np.zeros_like(i)]) for i in ids]


def batches(
    count: int, *, size: int = BATCH, data: Callable[..., Split] = mosi_like, bert: bool = False
) -> list[dict[str, Any]]:
    return list(data(count * size, bert=bert).loader(size))


def describe(batches: Sequence[Mapping[str, Any]]) -> str:
    """Mean and largest true length of each modality."""
    parts = []
    for name in ("text", "audio", "vision"):
        key = name if name in batches[0] else "text_bert"
        lengths = [u.shape[-1] if key == "text_bert" else len(u) for b in batches for u in b[key]]
        parts.append(f"{name} {np.mean(lengths):.1f} (at most {max(lengths)})")
    return f"Batches of {len(batches[0]['index'])}; true lengths " + ", ".join(parts)


def audio_lengths(size: int = BATCH, data: Callable[..., Split] = mosi_like) -> list[int]:
    """The lengths of audio in one batch."""
    return data(size).lengths("audio").tolist()


class Frames:
    """Frames of one batch, `WIDTH` wide or as wide as asked, on torch's default device."""

    def __init__(self, lengths: list[int], width: int = WIDTH) -> None:
        self.lengths = lengths
        self.lengths_tensor = torch.tensor(lengths)
        self.lengths_on_cpu = torch.tensor(lengths, device="cpu")
        self.total = sum(lengths)
        self.mask = torch.arange(max(self.lengths)) < self.lengths_tensor[:, None]
        self.x = torch.randn(self.total, width, requires_grad=True)

    def pad(self, x: Tensor) -> Tensor:
        """Pads (sum T, width) into a new leaf (B, longest T, width)."""
        padded = pad_sequence(x.detach().split(self.lengths), batch_first=True)
        return padded.requires_grad_(x.requires_grad)

    def rows(self, x: Tensor) -> Tensor:
        """The true frames of a padded array; other tensors are returned unchanged."""
        return x[self.mask] if x.shape[:2] == self.mask.shape else x


# Time


def elapsed(call: Call, loops: int) -> float:
    """The seconds that `loops` calls take."""
    started = time.perf_counter()
    for _ in range(loops):
        call()
    return time.perf_counter() - started


def seconds(
    sides: Mapping[str, Call],
    *,
    quick: bool = False,
    shortest: float = 0.01,
    elapsed: Callable[[Call, int], float] = elapsed,
) -> dict[str, float]:
    """Median time of each side. They take turns, so that slow phases of the machine affect all of them.

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
            took = last[name] = elapsed(call, loops[name]) / loops[name]
            if turn >= warm_up:
                times[name].append(took)
            else:
                loops[name] = max(1, math.ceil(shortest / took))
    return {name: statistics.median(values) for name, values in times.items()}


def matmul_rate(*, quick: bool = False) -> float:
    """FLOP/s of torch's float32 matrix product with torch's number of threads: the best of some sizes."""
    rates = []
    for n in (1024,) if quick else (1024, 1536, 2048):
        a, b = torch.randn(n, n), torch.randn(n, n)
        rates.append(2 * n**3 / seconds({"": lambda a=a, b=b: a @ b}, quick=quick)[""])
    return max(rates)


# Ops


def backward_of(
    forward: Callable[[], Tensor], inputs: Sequence[Tensor], frames: Frames | None = None
) -> Call:
    """Forward and backward of an op. The call returns output and gradients as packed frames."""
    out = forward().detach()
    weights = torch.linspace(-1, 1, out.shape[-1] if out.ndim else 1).expand(out.shape or (1,))
    upstream = weights.reshape(out.shape).contiguous()
    if frames is not None and out.shape[:2] == frames.mask.shape:
        upstream *= frames.mask[..., None]

    def call() -> tuple[Tensor, ...]:
        out = forward()
        return out.detach(), *torch.autograd.grad(out, inputs, upstream)

    return call


@dataclass
class Bench:
    """An op and its peers, on torch's default device at the time of construction.

    All sides have the same counts of operations: those of forward and backward over true frames.
    """

    op: str
    ours: Call
    peers: Mapping[str, Call]
    flops: float
    numbers: float  # read or written: inputs, weights, results and gradients, each once in a pass
    frames: Frames | None = None
    compare: bool = True

    @property
    def own(self) -> str:
        return f"`{self.op}`"

    @property
    def sides(self) -> dict[str, Call]:
        return {self.own: self.ours, **self.peers}

    def check(self) -> None:
        """Ends the program if the sides disagree."""
        if not self.compare:
            return
        results = {
            name: [tensor if self.frames is None else self.frames.rows(tensor) for tensor in call()]
            for name, call in self.sides.items()
        }
        for name, result in results.items():
            for theirs, mine in zip(result, results[self.own], strict=True):
                difference, size = float((theirs - mine).norm()), float(mine.norm())
                if not difference <= 1e-4 * size + 1e-6:
                    raise SystemExit(f"{self.own} and {name} differ by {difference:.3g} of {size:.3g}")


def report(bench: Bench, args: argparse.Namespace) -> None:
    """Checks that all sides agree, times them, prints a row for each."""
    bench.check()
    times = seconds(bench.sides, quick=args.quick)
    rate = matmul_rate(quick=args.quick)
    rows = [
        [
            name,
            duration(took),
            "" if name == bench.own else ratio(took, times[bench.own]),
            f"{bench.flops / took / 1e9:.2f}",
            f"{bench.flops / took / rate:.1%}",
        ]
        for name, took in times.items()
    ]
    print(table([counted(args.threads), "median", "peer / mmiln", "GFLOP/s", "of matmul"], rows))


def main(bench: Callable[[list[int]], Bench], description: str | None) -> None:
    """Runs the benchmark of one op, over a batch of audio."""
    args = parse(arguments(description))
    report(bench(audio_lengths()), args)


def count(weights: Sequence[Tensor]) -> int:
    """How many numbers all tensors hold together."""
    return sum(weight.numel() for weight in weights)


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
    """A Markdown table, the first column aligned to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines) + "\n"
