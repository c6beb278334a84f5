"""Runs of a small model that are cut off, gone on with, and compared bit by bit."""

import random
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader

import mmiln
from mmiln.callbacks import Callback
from mmiln.data import collate

EPOCHS = 4
TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2, "batch_size": 7, "accumulate": 2, "lr_other": 5e-3}


def build(**changes: Any) -> mmiln.Model:
    return mmiln.Model("mosi", **{**TINY, "seed": 3, **changes})


class Cut(Exception):
    """Raised to interrupt a run."""


class CutAt(Callback):
    """Raises after a micro-batch of an epoch, or at an epoch's end (batch 0)."""

    def __init__(self, epoch: int, batch: int) -> None:
        self.at = (epoch, batch)

    def on_batch_end(self, model: mmiln.Model, epoch: int, batch: int) -> None:
        if (epoch, batch) == self.at:
            raise Cut

    def on_epoch_end(self, model: mmiln.Model, epoch: int, logs: dict) -> None:
        if (epoch, 0) == self.at:
            raise Cut


class Shuffled:
    """A loader that draws its order from Python's global generator."""

    def __init__(self, split: mmiln.data.Split) -> None:
        self.dataset = split

    def __iter__(self):
        order = list(range(len(self.dataset)))
        random.shuffle(order)
        for at in range(0, len(order), 7):
            yield collate([self.dataset[i] for i in order[at : at + 7]])


def loader_of(kind: str, split: mmiln.data.Split) -> Any:
    """A new loader in its first state, as a new process has it."""
    torch.manual_seed(5)
    random.seed(5)
    if kind == "split":
        return split
    if kind == "list":
        return list(split.loader(7))
    if kind == "own generator":
        generator = torch.Generator().manual_seed(9)
        return DataLoader(split, batch_size=7, shuffle=True, collate_fn=collate, generator=generator)
    if kind == "global generator":
        return DataLoader(split, batch_size=7, shuffle=True, collate_fn=collate)
    return Shuffled(split)


def result(model: mmiln.Model, history: mmiln.History) -> dict[str, Any]:
    """All results of a run, without the time it took."""
    return {
        "weights": {name: weight.numpy().tobytes() for name, weight in model.state_dict().items()},
        "pseudo": {name: values.tobytes() for name, values in model.pseudo_labels.items()},
        "history": {name: values for name, values in history.items() if name != "seconds"},
        "best": history.best_epoch,
    }


def run(data, folder=None, *, kind="split", callbacks=(), epochs=EPOCHS, every=0.0, resume="auto", **changes):
    model = build(**changes)
    history = model.fit(
        loader_of(kind, data.train),
        data.valid,
        epochs=epochs,
        progress=False,
        callbacks=callbacks,
        checkpoint_dir=folder,
        checkpoint_every=every,
        resume=resume,
    )
    return result(model, history)


def keep_and_save(ready: Connection, folder: Path, epochs: int) -> None:
    """Trains with a checkpoint after every step, in a process that says when it begins."""
    torch.set_num_threads(1)
    data, model = mmiln.data.synthetic(24, 12, 12), build()
    ready.send(None)
    kept = {"checkpoint_dir": folder / "kept", "checkpoint_every": 0}
    model.fit(data.train, data.valid, epochs=epochs, progress=False, **kept)
    model.save_pretrained(folder / "model")


def setting() -> tuple[Any, ...]:
    """The settings of this thread that a call could leave changed."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_num_threads(),
        torch.get_default_dtype(),
    )


WIDTHS = {"text": 7, "audio": 5, "vision": 6}
SAMPLES = 12


def ragged(number: int, size: int) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    frames = {
        name: [rng.normal(size=(int(rng.integers(1, 6)), width)).astype(np.float32) for _ in range(size)]
        for name, width in WIDTHS.items()
    }
    labels = {"M": rng.uniform(-3, 3, size).astype(np.float32)}
    index = rng.choice(SAMPLES, size, replace=False)
    return frames | {"labels": labels, "index": index, "id": [f"u{i}" for i in index]}
