"""Training whose weights stay, compared with the oracle of pseudo-labels after every step."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import mmiln
from reference import batches, losses
from reference.ulgm import Ulgm

STILL: dict[str, Any] = {
    **{f"lr_{group}": 0.0 for group in ("text", "audio", "vision", "other")},
    **{f"decay_{group}": 0.0 for group in ("text", "audio", "vision", "other")},
    **{f"{part}_dropout": 0.0 for part in ("multimodal", "audio", "vision", "attn", "residual", "embed")},
}
Batch = dict[str, Any]


class Schedule:
    """A loader with batches of its own for each epoch."""

    def __init__(self, epochs: list[list[Batch]], samples: int) -> None:
        self.epochs, self.dataset = epochs, range(samples)
        self.reads = 0

    def __iter__(self) -> Iterator[Batch]:
        self.reads += 1
        return iter(self.epochs[self.reads - 1])


class Replay(mmiln.Callback):
    """Feeds the oracle after every step and compares all labels."""

    def __init__(self, schedule: Schedule, config: dict[str, Any], tolerance: float = 1e-6) -> None:
        present = [n for n in ("audio", "vision") if config[f"{n}_dim"]]
        dims = {u: config[f"{u}_features"] for u in ("multimodal", *present)}
        self.oracle = Ulgm(len(schedule.dataset), dims, config["label_bound"], config["exclude_zero"])
        self.schedule, self.tolerance = schedule, tolerance
        self.steps = 0
        self.task: list[float] = []
        self.labels: list[dict[str, NDArray[np.float32]]] = []

    def on_epoch_begin(self, model: mmiln.Model, epoch: int) -> None:
        self.sum = self.count = 0.0

    def on_batch_end(self, model: mmiln.Model, epoch: int, batch: int) -> None:
        given = self.schedule.epochs[epoch - 1][batch - 1]
        out = {name: value.cpu() for name, value in model.forward(given).items()}
        index, y_m = given["index"], given["labels"]
        before = {n: torch.from_numpy(y) for n, y in self.oracle.pseudo(index, y_m).items()}
        scores = {u: out[f"y_{u}"] for u in ("multimodal", *before)}
        self.sum += float(losses.task(scores, y_m, before)) * len(index)
        self.count += len(index)
        self.oracle.step(epoch, index, y_m, out["F_multimodal"], out.get("F_audio"), out.get("F_vision"))
        self.labels.append(model.pseudo_labels)
        assert set(self.labels[-1]) == set(self.oracle.targets)
        for n in self.oracle.targets:
            np.testing.assert_allclose(
                self.labels[-1][n], self.oracle.labels[n], rtol=self.tolerance, atol=self.tolerance
            )
        self.steps += 1

    def on_epoch_end(self, model: mmiln.Model, epoch: int, logs: dict[str, float]) -> None:
        self.task.append(self.sum / self.count)


def batch_of(config: dict[str, Any], index: list[int], truth: NDArray[np.float64], seed: int) -> Batch:
    """New random frames under these dataset indices."""
    rng = np.random.default_rng(seed)
    lengths = {m: rng.integers(1, 4, len(index)).tolist() for m in ("text", "audio", "vision")}
    batch = batches.random_batch(config, lengths, seed)
    return {**batch, "index": np.array(index), "labels": torch.from_numpy(truth[index])}


def random_schedule(
    config: dict[str, Any], truth: NDArray[np.float64], sizes: list[int], epochs: int, seed: int = 0
) -> Schedule:
    rng = np.random.default_rng(seed)
    numbers = iter(range(10**6))
    return Schedule(
        [
            [
                batch_of(config, rng.integers(0, len(truth), size).tolist(), truth, next(numbers))
                for size in sizes
            ]
            for _ in range(epochs)
        ],
        len(truth),
    )


def replay(schedule: Schedule, config: dict[str, Any], **training: Any) -> Replay:
    """Fits a model whose weights stay and compares after each step."""
    model = mmiln.Model("mosi", dtype="float64", **{**config, **STILL, **training})
    weights = model.state_dict()
    callback = Replay(schedule, config)
    history = model.fit(schedule, epochs=len(schedule.epochs), callbacks=[callback], progress=False)
    assert callback.steps == sum(len(epoch) for epoch in schedule.epochs)
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())
    # each step's loss is with the labels before its own update
    np.testing.assert_allclose(history["train_task"], callback.task, rtol=1e-9)
    return callback


def labels(samples: int, seed: int = 0) -> NDArray[np.float64]:
    """In [-3, 3], some of them zero."""
    truth = np.random.default_rng(seed).uniform(-3, 3, samples)
    truth[::5] = 0
    return truth
