"""Compares training by two processes and by one, and both with the formulas of benchmarks/cost.py.

    python -m benchmarks.parallel            text features are precomputed
    python -m benchmarks.parallel --bert     a BERT of MiniLM's size reads the tokens and is fine-tuned

Each process has one thread. The third row is the same training by one process with two threads.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import mmiln
from benchmarks.common import BATCH, VOCABULARY, duration, matmul_rate, mosi_like, table
from benchmarks.cost import Lengths, gradient_bytes, label_bytes, multiply_adds, optimiser_bytes
from mmiln.training.ranks import Ranks

MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
ACCUMULATE = 4
WAYS = {"1 process, 1 thread": (1, 1), "2 processes, 1 thread": (2, 1), "1 process, 2 threads": (1, 2)}
# The exchanges of a round: faults and checksums, widths of rows, rows.
EXCHANGES_OF_A_ROUND = 3
EXCHANGES = ("all_reduce", "all_gather", "all_gather_object", "broadcast_object_list")


def write_minilm(directory: str) -> str:
    """A BERT of MiniLM's size with random weights."""
    from transformers import BertConfig, BertModel

    BertModel(BertConfig(vocab_size=VOCABULARY, **MINILM), add_pooling_layer=False).save_pretrained(directory)
    return directory


def child(encoder: str | None, samples: int, threads: int, out: Path) -> None:
    """Trains in one of the processes; the first writes the times."""
    torch.set_num_threads(threads)
    spent = dict.fromkeys(EXCHANGES, 0.0)
    for name in EXCHANGES:
        setattr(dist, name, timed(name, getattr(dist, name), spent))
    text = {"text_dim": 768} if encoder is None else {"text_encoder": encoder}
    model = mmiln.Model("mosi", **text, accumulate=ACCUMULATE)
    history = model.fit(mosi_like(samples, bert=encoder is not None), epochs=4, progress=False)
    parameters = model.summary().total
    ranks = Ranks.here("cpu")
    result = {
        "epoch": statistics.median(history["seconds"][1:]),
        "reduce": spent["all_reduce"] / history.epochs,
        "rest": (sum(spent.values()) - spent["all_reduce"]) / history.epochs,
        "parameters": parameters,
        "config": model.config.model,
    }
    if ranks is not None:
        result |= {
            "one_reduce": probed(partial(ranks.add_up, torch.zeros(parameters)), ranks),
            "one_exchange": probed(partial(ranks.numbers_of_all, 1, 2, 3), ranks),
        }
    if ranks is None or ranks.first:
        out.write_text(json.dumps(result))


def timed(name: str, call: Callable[..., Any], spent: dict[str, float]) -> Callable[..., Any]:
    """The function with its time added up."""

    def exchange(*arguments: Any, **how: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments, **how)
        spent[name] += time.perf_counter() - began
        return result

    return exchange


def probed(call: Callable[[], Any], ranks: Ranks) -> float:
    """Median seconds of 20 exchanges at which all processes arrive in time."""
    took = []
    for _ in range(20):
        ranks.wait()
        began = time.perf_counter()
        call()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def measured(encoder: str | None, samples: int) -> dict[str, dict[str, Any]]:
    """Times of each way of training."""
    found = {}
    for name, (processes, threads) in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out.json")
            start = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            own = ["-m", "benchmarks.parallel", "--child", str(out), "--samples", str(samples)]
            own += ["--threads", str(threads), *(["--encoder", encoder] if encoder else [])]
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            subprocess.run([sys.executable, *start, *own], check=True, env=environment)
            found[name] = json.loads(out.read_text())
    return found


def report(encoder: str | None, samples: int) -> str:
    """A table of measured times, and one of what the formulas predict."""
    found = measured(encoder, samples)
    one, two = (found[name] for name in list(WAYS)[:2])
    rows = [
        [
            name,
            duration(took["epoch"]),
            f"{samples / took['epoch']:,.0f}",
            f"{one['epoch'] / took['epoch']:.2f}",
            duration(took["reduce"]),
            duration(took["rest"]),
        ]
        for name, took in found.items()
    ]
    header = ["way", "an epoch", "utterances/s", "speed-up", "adding up gradients", "other exchange"]
    config, parameters = one["config"], one["parameters"]
    split = mosi_like(samples, bert=encoder is not None)
    lengths = Lengths(*(float(split.lengths(name).mean()) for name in ("text", "audio", "vision")))
    work = multiply_adds(config, lengths, None if encoder is None else MINILM)
    torch.set_num_threads(1)
    rate = matmul_rate()
    least = 2 * work * samples / rate
    steps = samples / (BATCH * ACCUMULATE)
    rounds = steps * ACCUMULATE / 2
    exchange = steps * two["one_reduce"] + rounds * EXCHANGES_OF_A_ROUND * two["one_exchange"]
    said = [
        f"{work / 1e6:,.0f} million multiply-adds an utterance: {duration(least)} an epoch at the "
        f"{rate / 1e9:,.0f} GFLOP/s of large products on one core, {least / one['epoch']:.0%} of the time.",
        f"{parameters:,} parameters: {optimiser_bytes(parameters) / 1e6:,.0f} MB of memory traffic in each "
        "of "
        f"{steps:.0f} steps of Adam an epoch, {gradient_bytes(parameters, 2) / 1e6:,.1f} MB from each of two "
        f"processes, which takes {duration(two['one_reduce'])} by itself.",
        f"{label_bytes(config, BATCH, 2) / 1e3:,.0f} kB from each in {rounds:.0f} rounds an epoch, for "
        f"pseudo-labels; an exchange of a few numbers takes {duration(two['one_exchange'])}.",
        f"Half of one process's time and the exchange: {duration(one['epoch'] / 2 + exchange)} an epoch; "
        f"measured {duration(two['epoch'])}.",
    ]
    return "\n\n".join([table(header, rows), "\n".join(f"- {line}" for line in said)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bert", action="store_true", help="with a text encoder of MiniLM's size")
    parser.add_argument("--quick", action="store_true", help="few utterances: does it run?")
    parser.add_argument("--samples", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--encoder", help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        child(args.encoder, args.samples, args.threads, args.child)
        return
    samples = 128 if args.quick else 640 if args.bert else 1280
    with tempfile.TemporaryDirectory() as folder:
        print(report(write_minilm(folder) if args.bert else None, samples))


if __name__ == "__main__":
    main()
