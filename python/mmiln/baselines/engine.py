"""The training step of a network in PyTorch, with what the loop and checkpoints ask of the Rust core."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .._core import Batch
from ..errors import CheckpointError, NonFiniteError, StateError, WeightsError
from .inputs import Inputs, Sequence
from .network import Network

WEIGHTS, BUFFERS, BEST = "weights.", "buffers.", "best."
MOMENTS = {"exp_avg": "first.", "exp_avg_sq": "second."}


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Torch's generators begin at ``seed`` within, and are as before afterwards."""
    with torch.random.fork_rng([] if device == "cpu" else [torch.device(device)]):
        torch.manual_seed(seed)
        yield


class Engine:
    """A network with its optimiser.

    Dropout of a step is drawn from a generator seeded by the run's seed and the step's number, so that a run
    that is resumed draws what it would have drawn. It is torch's own: networks that are trained in several
    threads at once disturb each other's draws.
    """

    def __init__(self, network: Network, device: str, dtype: torch.dtype) -> None:
        self.network = network.to(device=device, dtype=dtype).eval()
        self.device = device
        self._optimizer: torch.optim.Adam | None = None
        self._best: dict[str, Tensor] | None = None
        self._epoch = 0
        self._step = 0

    def read(self, batch: Batch) -> Inputs:
        """A packed batch as networks read it."""
        parts = {name: tensor.to(self.device) for name, tensor in batch.parts().items()}

        def sequence(name: str) -> Sequence | None:
            return Sequence.of(parts[name], parts[f"{name}_lengths"]) if name in parts else None

        return Inputs(
            sequence("tokens"),
            sequence("text"),
            sequence("audio"),
            sequence("vision"),
            parts.get("labels"),
            parts.get("index"),
        )

    def scores(self, batch: Batch) -> Tensor:
        """(B,), without dropout."""
        with torch.no_grad():
            return self.network.eval()(self.read(batch))["M"]

    # Training

    def keeps_pseudo_labels(self) -> bool:
        """Whether the network keeps something for each training utterance."""
        return self.network.KEEPS_LABELS

    def begin_training(self, samples: int | None, train: str) -> None:
        """A new run with fresh moments."""
        self.network.begin_training(samples)
        self.network.to(self.device)
        kind = torch.optim.AdamW if self.network.settings.optimizer == "adamw" else torch.optim.Adam
        groups = [group for group in self.network.groups() if group["params"]]
        self._optimizer = kind(groups)
        self._best, self._epoch, self._step = None, 0, 0

    def begin_epoch(self, epoch: int) -> None:
        """Before each epoch, from 1."""
        self._epoch = epoch
        self.network.begin_epoch(epoch)

    def train_step(self, batch: Batch) -> Tensor:
        """One step of the optimiser; the losses before it.

        Raises:
            NonFiniteError: The loss or a gradient is NaN or infinite; no step was made.
        """
        network, optimizer = self.network.train(), self._running()
        x = self.read(batch)
        seed = (network.settings.seed * 1_000_003 + self._step) % 2**63
        with seeded(seed, self.device):
            outputs = network(x)
            losses = network.losses(outputs, x)
            self._backward(losses)
            optimizer.step()
            self._step += 1
            network.after_step({name: value.detach() for name, value in outputs.items()}, x)
        return torch.stack([losses[name].detach() for name in network.LOSSES])

    def _backward(self, losses: dict[str, Tensor]) -> None:
        """Gradients of every stage's loss for its own parameters."""
        network = self.network
        if bad := [name for name in network.LOSSES if not bool(losses[name].isfinite())]:
            raise NonFiniteError(f"the loss {bad[0]} of this batch is not finite; the step was not applied.")
        for stage in network.STAGES:
            named = [(n, p) for n, p in network.named_parameters() if network.stage_of(n) == stage]
            parameters = [parameter for _, parameter in named]
            last = stage == network.STAGES[-1]
            gradients = torch.autograd.grad(
                losses[stage], parameters, retain_graph=not last, allow_unused=True
            )
            for (_, parameter), gradient in zip(named, gradients, strict=True):
                parameter.grad = gradient
            if network.settings.clip and parameters:
                torch.nn.utils.clip_grad_norm_(parameters, network.settings.clip)
        if bad := [n for n, p in network.named_parameters() if p.grad is not None and not _finite(p.grad)]:
            raise NonFiniteError(
                f"a gradient of this batch is not finite; the step was not applied. First: {bad[0]}."
            )

    def undone_steps(self) -> int:
        """None: every step is looked at before it is applied."""
        return 0

    def end_epoch(self) -> None:
        """After each epoch."""
        self.network.eval()

    def keep_best(self) -> None:
        """Remembers the weights."""
        self._best = self.state_dict()

    def restore_best(self) -> None:
        """Goes back to the weights remembered, if any."""
        if self._best is not None:
            self.network.load_state_dict(self._best)
        self.network.eval()

    # State

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of every weight by name."""
        return {name: tensor.detach().clone() for name, tensor in self.network.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Sets every weight, or none.

        Raises:
            WeightsError: Lists what is missing, unexpected or misshapen.
        """
        if faults := differences(self.network.state_dict(), state):
            raise WeightsError(f"these weights do not fit the network: {'; '.join(faults)}")
        self.network.load_state_dict(state)

    def training_state(self) -> tuple[dict[str, Tensor], str]:
        """All that the run depends on: tensors by name, counters as JSON."""
        tensors = {name: tensor.detach().clone() for name, tensor in self._places().items()}
        if self._best is not None:
            tensors |= {f"{BEST}{name}": tensor for name, tensor in self._best.items()}
        return tensors, json.dumps({"epoch": self._epoch, "step": self._step})

    def load_training_state(self, state: dict[str, Tensor], counters: str) -> None:
        """Puts a run that was just begun where the state was taken; all of it or nothing.

        Raises:
            CheckpointError: It is that of another run.
        """
        best = {name.removeprefix(BEST): t for name, t in state.items() if name.startswith(BEST)}
        rest = {name: tensor for name, tensor in state.items() if not name.startswith(BEST)}
        number = _counts(counters)
        for parameter in self.network.parameters():
            self._moments(parameter)
        faults = differences(self._places(), rest)
        faults += differences(self.network.state_dict(), best) if best else []
        if faults or number is None:
            raise CheckpointError(f"this is not the state of such a run: {'; '.join(faults) or counters}")
        with torch.no_grad():
            for name, place in self._places().items():
                place.copy_(rest[name])
        self._best = {name: tensor.to(self.device) for name, tensor in best.items()} or None
        self._epoch, self._step = number["epoch"], number["step"]

    def _running(self) -> torch.optim.Adam:
        if self._optimizer is None:
            raise StateError("no run was begun")
        return self._optimizer

    def _moments(self, parameter: torch.nn.Parameter) -> dict[str, Any]:
        """What the optimiser keeps of a parameter, from the first step on."""
        state = self._running().state[parameter]
        if not state:
            state["step"] = torch.tensor(0.0)
            state |= {name: torch.zeros_like(parameter) for name in MOMENTS}
        return state

    def _places(self) -> dict[str, Tensor]:
        """Where every tensor that a run depends on lies."""
        network = self.network
        places: dict[str, Tensor] = {f"{WEIGHTS}{name}": p.data for name, p in network.named_parameters()}
        places |= {f"{BUFFERS}{name}": buffer for name, buffer in network.named_buffers()}
        for name, parameter in network.named_parameters():
            state = self._moments(parameter)
            places[f"steps.{name}"] = state["step"]
            places |= {f"{prefix}{name}": state[moment] for moment, prefix in MOMENTS.items()}
        return places


def differences(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """What is missing, unexpected, or of another shape or type."""
    faults = [f"missing: {name}" for name in own if name not in given]
    faults += [f"unexpected: {name}" for name in given if name not in own]
    return faults + [
        f"misshapen: {name} expected {tuple(tensor.shape)} of {tensor.dtype}, "
        f"got {tuple(given[name].shape)} of {given[name].dtype}"
        for name, tensor in own.items()
        if name in given and (given[name].shape != tensor.shape or given[name].dtype != tensor.dtype)
    ]


def _counts(text: str) -> dict[str, int] | None:
    """Epoch and step; ``None`` where the text does not hold them."""
    try:
        number = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(number, dict) and {n: type(v) for n, v in number.items()} == {
        "epoch": int,
        "step": int,
    }
    return number if whole and all(0 <= value < 2**40 for value in number.values()) else None


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
