"""Converts a pickle of CMU-MOSEI's shapes, opens it and trains on it: peak memory, sizes, seconds.

    python -m benchmarks.convert --scale 0.1     of 22856 utterances; 1 needs 14 GB of disk, and 10 of memory

Each stage runs in a process of its own. Memory is the peak resident memory, pages of mapped files included.
"""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mmiln
from benchmarks import mosei
from mmiln.experiments.provenance import peak_memory

EPOCH = {"epochs": 1, "progress": False}


def unpickled(source: Path, _: Path) -> dict[str, float]:
    with source.open("rb") as file:
        content = pickle.load(file)
    return {"bytes": sum(part[m].nbytes for part in content.values() for m in mosei.WIDTHS)}


def loaded(source: Path, _: Path) -> dict[str, float]:
    return {"utterances": sum(map(len, mmiln.data.load(source).splits.values()))}


def converted(source: Path, target: Path) -> dict[str, float]:
    dataset = mmiln.data.convert(source, target, progress=False)
    parts = dataset.splits.values()
    frames = [4 * w * int(part.lengths(m).sum()) for part in parts for m, w in mosei.WIDTHS.items()]
    written = [path.stat().st_size for path in target.rglob("*") if path.is_file()]
    return {"true frames, bytes": sum(frames), "bytes": sum(written)}


def opened(_: Path, target: Path) -> dict[str, float]:
    return {"utterances": sum(map(len, mmiln.data.load(target, standardize=True).splits.values()))}


def checked(_: Path, target: Path) -> dict[str, float]:
    mmiln.data.verify(target)
    return {}


def read_through(_: Path, target: Path) -> dict[str, float]:
    """Reads every batch of an epoch as training does, and does nothing else."""
    batches = mmiln.data.load(target, standardize=True).train.loader(32, shuffle=True)
    return {"frames": sum(len(frames) for batch in batches for frames in batch["audio"])}


def trained(_: Path, target: Path) -> dict[str, float]:
    """Trains the whole model for an epoch, with token ids as text features.

    What the model needs beside the data is measured on its longest batches alone.
    """
    train = mmiln.data.load(target, standardize=True).train
    train.text = [(tokens.T / 30_000).astype(np.float32) for tokens in train.text_bert or []]
    train.text_bert = None
    model = mmiln.Model("mosei", num_layers=1, seed=1)
    longest = np.argsort(train.lengths("audio") + train.lengths("vision"))[-64:]
    model.fit(train.subset(longest.tolist()), **EPOCH)
    before = peak_memory()
    began = time.perf_counter()
    model.fit(train, **EPOCH)
    took = time.perf_counter() - began
    return {"seconds of the epoch": took, "beyond the model, MiB": peak_memory() - before}


STAGES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    stage.__name__: stage for stage in (converted, opened, checked, read_through, trained, loaded, unpickled)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=0.1)
    parser.add_argument("--folder", type=Path, help="where there is space; default: the system's for such")
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=STAGES, help="such as unpickled: 2 GB per 0.1"
    )
    parser.add_argument("--stage", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        began, base = time.perf_counter(), peak_memory()
        found = STAGES[args.stage[0]](*map(Path, args.stage[1:]))
        took = time.perf_counter() - began
        print(json.dumps({"seconds": took, "peak MiB": peak_memory(), "of which modules": base, **found}))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        source, target = Path(folder) / "unaligned_50.pkl", Path(folder) / "mosei.mmiln"
        began = time.perf_counter()
        content = mosei.write(source, args.scale)
        print(f"source: {source.stat().st_size / 1e9:.2f} GB, written in {time.perf_counter() - began:.0f} s")
        largest = len(content["train"]["id"]) * 500 * mosei.WIDTHS["audio"] * 8
        print(f"the largest array of a split: {largest / 2**20:.0f} MiB", flush=True)
        results = {}
        for name in STAGES:
            if name in args.skip:
                continue
            command = [sys.executable, "-m", "benchmarks.convert", "--stage", name, str(source), str(target)]
            results[name] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            values = ", ".join(f"{key} {value:,.6g}" for key, value in results[name].items())
            print(f"{name}: {values}", flush=True)
        size = results["converted"]
        print(f"size: {size['bytes'] / size['true frames, bytes']:.3f} of the true frames in float32")
        if "unpickled" in results:
            ratio = results["unpickled"]["seconds"] / results["opened"]["seconds"]
            print(f"opened {ratio:.1f} times as fast as unpickled")


if __name__ == "__main__":
    main()
