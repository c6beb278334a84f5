"""What each process of test_faults.py runs: a training with a checkpoint after every optimiser step."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

import mmiln
from mmiln.data import synthetic
from mmiln.training.ranks import is_first


class Slow(mmiln.Callback):
    """Leaves time to kill somebody."""

    def on_batch_end(self, model: object, epoch: int, batch: int) -> None:
        time.sleep(0.05)


def main(out: Path) -> None:
    torch.set_num_threads(1)
    data = synthetic(64, 8, 8)
    model = mmiln.Model("mosi", num_layers=1, batch_size=4, accumulate=2)
    model.fit(
        data.train,
        data.valid,
        epochs=4,
        progress=False,
        callbacks=[Slow()],
        checkpoint_dir=out / "checkpoints",
        checkpoint_every=0,
    )
    if is_first():
        model.save_pretrained(out / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
