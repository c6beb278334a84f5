"""What each process of test_faults.py runs: a training with a checkpoint after every optimiser step.

With a rank, that process stops in the middle of an epoch, where the others wait for it, until it may go on.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

import mmiln
from mmiln.data import synthetic
from mmiln.training.ranks import is_first
from support.waiting import until


class Stop(mmiln.Callback):
    """Says so by the file "stopped", and goes on once there is a file "go on"."""

    def __init__(self, out: Path) -> None:
        self.out, self.batches = out, 0

    def on_batch_end(self, model: object, epoch: int, batch: int) -> None:
        self.batches += epoch == 2
        if self.batches == 3:
            (self.out / "stopped").touch()
            until((self.out / "go on").exists, "this process may go on")


def main(out: Path, rank: str | None = None) -> None:
    torch.set_num_threads(1)
    data = synthetic(64, 8, 8)
    model = mmiln.Model("mosi", num_layers=1, batch_size=4, accumulate=2)
    model.fit(
        data.train,
        data.valid,
        epochs=4,
        progress=False,
        callbacks=[Stop(out)] if rank == os.environ["RANK"] else [],
        checkpoint_dir=out / "checkpoints",
        checkpoint_every=0,
    )
    if is_first():
        model.save_pretrained(out / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
