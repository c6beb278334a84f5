"""Compares a whole training step and a prediction of mmiln with PyTorch, in float32 and with dropout.

    python -m benchmarks.step            text features are precomputed
    python -m benchmarks.step --bert     a BERT-base reads the tokens and is fine-tuned

The optimiser runs at every step. Both sides start from lists of true frames; packing is part of the time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mmiln
from benchmarks.common import (
    BATCH,
    TRAIN_SIZE,
    VOCABULARY,
    arguments,
    batches,
    counted,
    describe,
    duration,
    matmul_rate,
    mosi_like,
    parse,
    ratio,
    seconds,
    table,
)
from benchmarks.peer import FILE_WIDTHS, Peer, Trainer

MMILN, CROPPED, PADDED = "mmiln", "PyTorch, cropped", "PyTorch, padded"
ROOT = Path(__file__).parents[1]
STEPS = 13  # warm-up and measured; there are as many batches, the same for every side

Batch = dict[str, Any]


class Ours:
    """A run of mmiln, with the methods of the peer's `Trainer`."""

    def __init__(self, model: mmiln.Model, samples: int) -> None:
        self.model, self.core = model, model.core
        self.core.begin_training(samples, json.dumps(model.config.train))
        self.core.begin_epoch(1)

    def step(self, batch: Batch) -> object:
        return self.core.train_step(self.model.pack(batch))

    def scores(self, batch: Batch) -> object:
        return self.core.scores(self.model.pack(batch))


def new_model(encoder: str | None, preset: str = "mosi", **fields: Any) -> mmiln.Model:
    text = {"text_dim": 768} if encoder is None else {"text_encoder": encoder}
    widths = {"mosi": (5, 20), "mosei": (74, 35)}[preset]
    dims = dict(zip(("audio_dim", "vision_dim"), widths, strict=True))
    return mmiln.Model(preset, **text, **dims, accumulate=1, **fields)


def new_peer(model: mmiln.Model, encoder: str | None, *, padded: bool = False) -> Peer:
    bert = None
    if encoder is not None:
        from transformers import BertModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        bert = BertModel.from_pretrained(encoder, add_pooling_layer=False, attn_implementation="sdpa")
    return Peer(model.config.to_dict(), bert, padded).train()


def both(encoder: str | None, samples: int, **fields: Any) -> tuple[Ours, Trainer]:
    """mmiln and its cropped peer, from the same weights."""
    ours = Ours(new_model(encoder, **fields), samples)
    peer = new_peer(ours.model, encoder)
    peer.load_state_dict(ours.model.state_dict())
    return ours, Trainer(peer, samples)


def write_bert(directory: str, *, quick: bool) -> str:
    """Writes a BERT-base with random weights; two layers for a quick run."""
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=VOCABULARY, num_hidden_layers=2 if quick else 12)
    BertModel(config, add_pooling_layer=False).save_pretrained(directory)
    return directory


def over(call: Callable[[Batch], object], given: Sequence[Batch]) -> Callable[[], object]:
    """A function that takes the next batch at each call."""
    supply = itertools.cycle(given)
    return lambda: call(next(supply))


def with_padding(call: Callable[[Batch], object], peer: Peer, padded: bool) -> Callable[[Batch], object]:
    """The call with the peer padded or cropped; one peer serves as both, with one set of weights."""

    def padded_call(batch: Batch) -> object:
        peer.padded = padded
        return call(batch)

    return padded_call


# Tables


def steps_and_predictions(encoder: str | None, args: argparse.Namespace) -> str:
    given = batches(STEPS, bert=encoder is not None)
    ours, trainer = both(encoder, STEPS * BATCH)
    columns = []
    for ours_call, peer_call, training in (
        (ours.step, trainer.step, True),
        (ours.scores, trainer.scores, False),
    ):
        trainer.peer.train(training)
        calls = {
            MMILN: ours_call,
            CROPPED: with_padding(peer_call, trainer.peer, False),
            PADDED: with_padding(peer_call, trainer.peer, True),
        }
        sides = {name: over(call, given) for name, call in calls.items()}
        columns.append(seconds(sides, quick=args.quick, shortest=0))
    rows = []
    for name in (MMILN, CROPPED, PADDED):
        cells = [cell for took in columns for cell in (duration(took[name]), ratio(took[name], took[MMILN]))]
        rows.append([name, *cells, f"{peak_memory(name, encoder, args.threads):,.0f} MiB"])
    header = [counted(args.threads), "training step", "/ mmiln", "prediction", "/ mmiln", "peak memory"]
    return f"{describe(given)}.\n\n{table(header, rows)}"


def threads(encoder: str | None, args: argparse.Namespace) -> str:
    """A table of training steps on one thread and on two."""
    given = batches(STEPS, bert=encoder is not None)
    ours, trainer = both(encoder, STEPS * BATCH)

    def on(threads: int, step: Callable[[Batch], object]) -> Callable[[Batch], object]:
        def call(batch: Batch) -> object:
            torch.set_num_threads(threads)
            return step(batch)

        return call

    steps = {MMILN: ours.step, CROPPED: trainer.step}
    keys = list(itertools.product(steps, (1, 2)))
    sides = {f"{name}, {n}": over(on(n, steps[name]), given) for name, n in keys}
    times = seconds(sides, quick=args.quick, shortest=0)
    torch.set_num_threads(args.threads)
    rows = []
    for name in steps:
        one, two = times[f"{name}, 1"], times[f"{name}, 2"]
        rows.append([name, duration(one), duration(two), f"{one / two:.2f}"])
    return table(["training step", "1 thread", "2 threads", "speed-up"], rows)


def scaling(args: argparse.Namespace) -> str:
    """A table of the cost of a step as padding, lengths and depth grow."""
    batch = batches(1)[0]
    ours, trainer = both(None, BATCH)
    quick = args.quick
    base, wide, wider = (as_padded(batch, factor) if factor else batch for factor in (0, 1, 2))
    longer = batch | {name: [np.concatenate([u, u]) for u in batch[name]] for name in FILE_WIDTHS}

    packings = {"true frames only": base, "padded as in the file": wide, "padded to twice that": wider}
    sides = {name: lambda b=b: ours.step(b) for name, b in packings.items()}
    rows = [[name, duration(took), "", ""] for name, took in seconds(sides, quick=quick).items()]
    lengths = {"lengths doubled": (ours, trainer, longer)}
    depths = {
        f"{n} layer{'s' * (n > 1)}": (*both(None, BATCH, num_layers=n), batch)
        for n in ((1, 2) if quick else range(1, 7))
    }
    for name, (mine, theirs, given) in (lengths | depths).items():
        took = seconds({MMILN: over(mine.step, [given]), CROPPED: over(theirs.step, [given])}, quick=quick)
        rows.append([name, duration(took[MMILN]), duration(took[CROPPED]), ratio(took[CROPPED], took[MMILN])])
    return table([f"training step, {counted(args.threads)}", MMILN, CROPPED, "ratio"], rows)


def as_padded(batch: Mapping[str, Any], factor: int) -> Batch:
    """The batch as arrays of the file's widths times `factor`, with lengths."""
    padded = dict(batch)
    for name, width in FILE_WIDTHS.items():
        array = np.zeros((len(batch[name]), factor * width, batch[name][0].shape[1]), np.float32)
        for row, utterance in zip(array, batch[name], strict=True):
            row[: len(utterance)] = utterance
        padded |= {name: array, f"{name}_lengths": [len(u) for u in batch[name]]}
    return padded


def epoch(args: argparse.Namespace) -> str:
    """A table of one pass over a training set of CMU-MOSI's size, its loader included."""
    data = mosi_like(3 * BATCH if args.quick else TRAIN_SIZE)
    ours, trainer = both(None, len(data))
    mine, theirs = (data.loader(BATCH, shuffle=True) for _ in range(2))

    def our_epoch() -> None:
        ours.core.begin_epoch(1)
        for batch in mine:
            ours.step(batch)
        ours.core.end_epoch()

    def their_epoch() -> None:
        for batch in theirs:
            trainer.step(batch)

    took = seconds({MMILN: our_epoch, CROPPED: their_epoch}, quick=True, shortest=0)
    header = [f"an epoch of {len(data)}, {counted(args.threads)}", "median", "/ mmiln"]
    return table(header, [[name, duration(t), ratio(t, took[MMILN])] for name, t in took.items()])


# Peak memory of three steps in a process of its own


def peak_memory(side: str, encoder: str | None, threads: int) -> float:
    command = [sys.executable, "-m", "benchmarks.step", "--alone", side, "--threads", str(threads)]
    command += [] if encoder is None else ["--encoder", encoder]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout)


def alone(side: str, encoder: str | None) -> float:
    """Runs the steps; the process's largest resident memory in MiB."""
    given = batches(3, bert=encoder is not None)
    model = new_model(encoder)
    run: Ours | Trainer
    if side == MMILN:
        run = Ours(model, 3 * BATCH)
    else:
        run = Trainer(new_peer(model, encoder, padded=side == PADDED), 3 * BATCH)
    for batch in given:
        run.step(batch)
    # getrusage's ru_maxrss would be wrong: a new process inherits its parent's.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024


def main() -> None:
    parser = arguments(None)
    parser.add_argument("--bert", action="store_true", help="fine-tune a BERT-base with random weights")
    parser.add_argument("--alone", choices=(MMILN, CROPPED, PADDED), help=argparse.SUPPRESS)
    parser.add_argument("--encoder", help=argparse.SUPPRESS)
    args = parse(parser)
    if args.alone:
        print(alone(args.alone, args.encoder))
        return
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, "
        f"{counted(args.threads)}: {matmul_rate(quick=args.quick) / 1e9:.0f} GFLOP/s in matrix products.\n"
    )
    with tempfile.TemporaryDirectory() as directory:
        encoder = write_bert(directory, quick=args.quick) if args.bert else None
        print(steps_and_predictions(encoder, args))
        print(threads(encoder, args))
    if not args.bert:
        print(scaling(args))
        print(epoch(args))


if __name__ == "__main__":
    main()
