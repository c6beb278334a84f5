"""What each process of test_faults.py runs: a training with a checkpoint after every optimiser step.

With a rank, that process stops in the middle of an epoch, where the others wait for it, until it may go on.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from typing import Any

import torch

import mmiln
from mmiln.data import synthetic
from mmiln.training.ranks import is_first
from support.waiting import until


def stop_within_the_second_epoch(model: mmiln.Model, out: Path) -> None:
    """Before one of its batches this process writes the file "stopped", and waits for the file "go on"."""
    pack, batches = model.pack, itertools.count(1)

    def stopping(batch: Any) -> Any:
        if next(batches) == 13:  # eight an epoch, and two for validation where this is the first process
            (out / "stopped").touch()
            until((out / "go on").exists, "this process may go on")
        return pack(batch)

    model.pack = stopping


def main(out: Path, rank: str | None = None) -> None:
    torch.set_num_threads(1)
    data = synthetic(64, 8, 8)
    model = mmiln.Model("mosi", num_layers=1, batch_size=4, accumulate=2)
    if rank == os.environ["RANK"]:
        stop_within_the_second_epoch(model, out)
    model.fit(
        data.train,
        data.valid,
        epochs=4,
        progress=False,
        checkpoint_dir=out / "checkpoints",
        checkpoint_every=0,
    )
    if is_first():
        model.save_pretrained(out / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
