"""A whole training step and a prediction on a card, compared with the same model in PyTorch.

    python -m benchmarks.gpu.step                 text features are precomputed
    python -m benchmarks.gpu.step --bert          a BERT-base reads the tokens and is fine-tuned
    python -m benchmarks.gpu.step --compile       PyTorch by torch.compile as well
    python -m benchmarks.gpu.step --device cpu --quick --size 2     does it run?

Steps and predictions use batches that are on the card already; "from lists" is a step with everything before
it: arrays are built from true frames, pinned and copied. mmiln packs a batch during the step before it, as
`fit` does. The optimiser runs at every step. float32 is without TF32; bfloat16 is autocast in PyTorch. "Busy"
is the time of the step's kernels alone, "memory" the peak of what torch holds beyond what it held before.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

import mmiln
from benchmarks.common import (
    arguments,
    batches,
    describe,
    duration,
    mosei_like,
    mosi_like,
    parse,
    ratio,
    seconds,
    table,
)
from benchmarks.gpu import card
from benchmarks.peer import Trainer
from benchmarks.step import Batch, Ours, new_model, new_peer, write_bert
from mmiln.training.graphs import Steps, cuda_capture, packed_ahead

MMILN, EAGER, COMPILED = "mmiln", "PyTorch", "PyTorch, compiled"
DATA = {"mosi": mosi_like, "mosei": mosei_like}
AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16}
# Batches; each side goes through all of them in each measurement.
STEPS = 8


@dataclass(frozen=True)
class Setting:
    """Data, batch size, precision, encoder and device of a measurement."""

    data: str
    size: int
    precision: str
    encoder: str | None
    device: str

    def __str__(self) -> str:
        return f"{self.data.upper()}, {self.size}, {self.precision}"


# What a user may expect: the longest step, and by which factor PyTorch is slower at least.
TARGETS = {
    ("mosi", 32, "float32", False): (1e-3, 20.0),
    ("mosi", 32, "bfloat16", True): (4e-3, 8.0),
}


@dataclass
class Side:
    """A run of one side, on batches that it prepared."""

    prepare: Callable[[Batch], Any]
    take: Callable[[Any], object]
    predict: Callable[[Any], object]
    ahead: Callable[[Sequence[Batch]], Iterator[Any]]  # prepares batches as they are needed
    train: Callable[[bool], object]


# mmiln, and its peer


def our_model(setting: Setting) -> mmiln.Model:
    fields: dict[str, Any] = {"device": setting.device}
    if setting.precision == "bfloat16":
        fields["precision"] = "bf16"
    return new_model(setting.encoder, setting.data, **fields)


def our_side(model: mmiln.Model, samples: int) -> Side:
    ours = Ours(model, samples)
    on_card = model.device != "cpu"
    take = Steps(ours.core, cuda_capture(model.device)) if on_card else ours.core.train_step
    return Side(
        prepare=model.pack,
        take=take,
        predict=ours.core.scores,
        ahead=lambda given: packed_ahead(given, model.pack, model.device),
        train=lambda training: None,
    )


def peer_side(model: mmiln.Model, setting: Setting, samples: int, *, compiled: bool) -> Side:
    peer = new_peer(model, setting.encoder).to(setting.device)
    peer.load_state_dict(model.state_dict())
    forward = torch.compile(peer, dynamic=True) if compiled else None
    trainer = Trainer(peer, samples, forward, AUTOCAST[setting.precision])
    return Side(
        prepare=trainer.prepare,
        take=trainer.take,
        predict=trainer.predict,
        ahead=lambda given: map(trainer.prepare, given),
        train=peer.train,
    )


@contextmanager
def at_most(limit: float) -> Iterator[None]:
    """Raises TimeoutError after a number of seconds."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {limit:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# A table


@dataclass
class Result:
    """The result of one side: seconds for one batch, bytes."""

    step: float
    from_lists: float
    prediction: float
    launches: card.Launches | None
    memory: int | None


def measure(setting: Setting, given: list[Batch], args: argparse.Namespace) -> dict[str, Result | str]:
    """Each side's result, or the reason why it has none."""
    samples = len(given) * setting.size
    model = our_model(setting)
    builders: dict[str, Callable[[], Side]] = {
        MMILN: lambda: our_side(model, samples),
        EAGER: lambda: peer_side(model, setting, samples, compiled=False),
    }
    if args.compile:
        builders[COMPILED] = lambda: peer_side(model, setting, samples, compiled=True)
    sides: dict[str, Side] = {}
    prepared: dict[str, list[Any]] = {}
    memory: dict[str, int | None] = {}
    failed: dict[str, Result | str] = {}
    for name, build in builders.items():

        def begin(name: str = name, build: Callable[[], Side] = build) -> None:
            side = sides[name] = build()
            prepared[name] = [side.prepare(batch) for batch in given]
            for training in (True, False):
                side.train(training)
                # The first pass compiles, allocates and captures.
                for batch in prepared[name] * (3 if setting.device != "cpu" else 1):
                    (side.take if training else side.predict)(batch)

        try:
            with at_most(args.compile_limit if name == COMPILED else 600):
                _, memory[name] = card.with_memory(begin, setting.device)
        except Exception as error:
            if name != COMPILED:
                raise
            traceback.print_exc()
            failed[name] = str(error).strip().split("\n")[0] or type(error).__name__
            sides.pop(name, None)

    def times(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Seconds for one batch: medians over passes."""
        took = seconds(calls, quick=args.quick, shortest=0, elapsed=card.elapsed_on(setting.device))
        return {name: time / len(given) for name, time in took.items()}

    def over(act: Callable[[Any], object], batches: Callable[[], Any]) -> Callable[[], None]:
        def call() -> None:
            for batch in batches():
                act(batch)

        return call

    for side in sides.values():
        side.train(True)
    passes = {n: over(side.take, lambda n=n: prepared[n]) for n, side in sides.items()}
    steps = times(passes)
    from_lists = times({n: over(side.take, lambda s=side: s.ahead(given)) for n, side in sides.items()})
    seen = {n: card.launches(call, setting.device) for n, call in passes.items()}
    for side in sides.values():
        side.train(False)
    predictions = times({n: over(side.predict, lambda n=n: prepared[n]) for n, side in sides.items()})
    results: dict[str, Result | str] = {}
    for n in sides:
        launches = seen[n]
        each = None if launches is None else launches.each(len(given))
        results[n] = Result(steps[n], from_lists[n], predictions[n], each, memory[n])
    return results | failed


HEADER = [
    "", "training step", "/ mmiln", "from lists", "/ mmiln", "prediction", "/ mmiln",
    "calls", "kernels", "busy", "memory",
]  # fmt: skip


def rows(setting: Setting, results: Mapping[str, Result | str]) -> list[list[str]]:
    """A row for each side."""
    ours = results[MMILN]
    assert isinstance(ours, Result)
    lines = []
    for name, found in results.items():
        line = [f"{setting}: {name}"]
        if isinstance(found, str):
            lines.append([*line, found, *[""] * (len(HEADER) - 2)])
            continue
        for part in ("step", "from_lists", "prediction"):
            took = getattr(found, part)
            line += [duration(took), "" if found is ours else ratio(took, getattr(ours, part))]
        if found.launches is None:
            line += ["", "", ""]
        else:
            calls, kernels, busy = found.launches
            line += [f"{calls:.0f}", f"{kernels:.0f}", duration(busy)]
        line.append("" if found.memory is None else f"{found.memory / 2**20:,.0f} MiB")
        lines.append(line)
    return lines


def targets(setting: Setting, results: Mapping[str, Result | str]) -> str:
    """Whether the step meets its target, if there is one."""
    key = (setting.data, setting.size, setting.precision, setting.encoder is not None)
    ours, eager = results[MMILN], results[EAGER]
    if key not in TARGETS or not isinstance(ours, Result) or not isinstance(eager, Result):
        return ""
    longest, least = TARGETS[key]
    times = eager.step / ours.step

    def verdict(met: bool) -> str:
        return "met" if met else "not met"

    return (
        f"Targets, {setting}: a step under {duration(longest)}: {duration(ours.step)}, "
        f"{verdict(ours.step < longest)}; PyTorch at least {least:.0f} times that: {times:.1f}, "
        f"{verdict(times >= least)}."
    )


def run(encoder: str | None, args: argparse.Namespace) -> int:
    """Prints a table for each data set, and the targets; returns how many settings failed."""
    failed = 0
    reached = []
    count = 2 if args.quick else STEPS
    for data in args.data:
        lines: list[list[str]] = []
        shown = []
        for size in args.size:
            given = batches(count, size=size, data=DATA[data], bert=encoder is not None)
            shown.append(describe(given))
            for precision in args.precision:
                setting = Setting(data, size, precision, encoder, args.device)
                try:
                    results = measure(setting, given, args)
                except Exception as error:
                    failed += 1
                    traceback.print_exc()
                    reason = str(error).strip().split("\n")[0]
                    lines.append([f"{setting}", f"failed: {reason}", *[""] * (len(HEADER) - 2)])
                    continue
                lines += rows(setting, results)
                reached.append(targets(setting, results))
        name = "BERT-base fine-tuned" if encoder else "features given"
        print(f"{'. '.join(shown)}.\n\n{table([name, *HEADER[1:]], lines)}", flush=True)
    print("\n".join(line for line in reached if line) + "\n", flush=True)
    return failed


def main() -> int:
    parser = arguments(None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--bert", action="store_true", help="fine-tune a BERT-base with random weights")
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--size", nargs="+", type=int, default=[32, 128], help="utterances of a batch")
    parser.add_argument("--precision", nargs="+", choices=AUTOCAST, default=list(AUTOCAST))
    parser.add_argument("--compile", action="store_true", help="torch.compile, too")
    parser.add_argument("--compile-limit", type=float, default=120, help="seconds it may take to compile")
    args = parse(parser)
    card.exact_float32()
    print(f"{card.describe(args.device)}.\n", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        return run(write_bert(directory, quick=args.quick) if args.bert else None, args)


if __name__ == "__main__":
    sys.exit(main())
