"""Training runs step by step, launched one by one or as graphs, on any device."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import mmiln
from mmiln.training.graphs import Capture, Steps, cuda_capture, packed_ahead
from reference import params

Batch = dict[str, Any]
Step = Callable[[Any], Tensor]


@dataclass
class Run:
    """The results of a run: the losses of each step, weights, pseudo-labels; all on the CPU."""

    losses: Tensor  # (steps, 4)
    weights: dict[str, Tensor]
    pseudo_labels: dict[str, Tensor]

    def same_bits(self, other: "Run") -> bool:
        pairs = [(self.weights, other.weights), (self.pseudo_labels, other.pseudo_labels)]
        return torch.equal(self.losses, other.losses) and all(
            a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a) for a, b in pairs
        )

    def assert_near(self, other: "Run", tolerance: float) -> None:
        """Losses step by step, weights and labels: each relative to the largest of its like."""
        pairs = {"losses": (self.losses, other.losses)}
        for mine, theirs in ((self.weights, other.weights), (self.pseudo_labels, other.pseudo_labels)):
            assert mine.keys() == theirs.keys()
            pairs |= {name: (mine[name], theirs[name]) for name in mine}
        off = {
            name: float((a.double() - b.double()).abs().max() / b.double().abs().max().clamp(min=0.1))
            for name, (a, b) in pairs.items()
        }
        assert all(error <= tolerance for error in off.values()), max(off.items(), key=lambda item: item[1])


class Counted:
    """Counts captures and replays. On the CPU a capture keeps the work and each replay repeats it."""

    def __init__(self, device: str) -> None:
        self.capture: Capture = kept if device == "cpu" else cuda_capture(device)
        self.captured = self.replayed = 0

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        self.captured += 1
        replay, losses = self.capture(work)

        def counted() -> None:
            self.replayed += 1
            replay()

        return counted, losses


def kept(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    losses = torch.zeros(4, dtype=torch.float64)
    return lambda: losses.copy_(work()), losses


def new_model(device: str, **settings: Any) -> mmiln.Model:
    """A model of seed 1 whose weights are moved: none is 0, where Adam would make much of rounding."""
    model = mmiln.Model("mosi", device=device, **{"seed": 1, **settings})
    state = {name: weight.cpu() for name, weight in model.state_dict().items()}
    model.load_state_dict({name: w.float() for name, w in params.perturb(state, 1, scale=0.05).items()})
    return model


def begin(model: mmiln.Model, data: Sequence[Batch]) -> None:
    samples = 1 + max(int(batch["index"].max()) for batch in data)
    model.core.begin_training(samples, json.dumps(model.config.train))


def eager(model: mmiln.Model) -> Step:
    """Steps that are launched one by one."""
    return model.core.train_step


def graphed(model: mmiln.Model, capture: Capture) -> Step:
    """Steps that are captured and replayed."""
    return Steps(model.core, capture)


def train(
    model: mmiln.Model,
    data: Sequence[Batch],
    step: Callable[[mmiln.Model], Step] = eager,
    *,
    epochs: int = 4,
    ahead: bool = False,
) -> Run:
    """A run as `Model.fit` makes one, of `epochs` over `data`."""
    begin(model, data)
    take = step(model)
    losses = []
    for epoch in range(1, epochs + 1):
        model.core.begin_epoch(epoch)
        packed = packed_ahead(data, model.pack, model.device) if ahead else map(model.pack, data)
        losses += [take(batch) for batch in packed]
        model.core.end_epoch()
    return Run(
        torch.stack(losses).double().cpu(),
        {name: weight.cpu() for name, weight in model.state_dict().items()},
        {name: torch.from_numpy(labels) for name, labels in model.pseudo_labels.items()},
    )
