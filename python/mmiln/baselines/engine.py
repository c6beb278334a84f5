"""The training step of a network in PyTorch, behind the same methods as the Rust core."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..errors import BatchError, CheckpointError, NonFiniteError, StateError, WeightsError
from .inputs import Inputs
from .network import Network
from .run_state import BEST, COUNTERS, SUMMED, counts, differences, places


@contextmanager
def seeded(seed: int, device: str) -> Iterator[None]:
    """Seeds torch's generators within, and restores them afterwards."""
    with torch.random.fork_rng([] if device == "cpu" else [torch.device(device)]):
        torch.manual_seed(seed)
        yield


class Engine:
    """A network with its optimiser.

    Each step seeds the generator of dropout by the run's seed and the step's number, so that a resumed run
    draws what it would have drawn uninterrupted. The generator is torch's global one: networks that train in
    several threads at once disturb each other's draws.
    """

    def __init__(self, network: Network, device: str, dtype: torch.dtype) -> None:
        self.network = network.to(device=device, dtype=dtype).eval()
        self.device = device
        self._optimizer: torch.optim.Adam | None = None
        self._best: dict[str, Tensor] | None = None
        self._epoch = 0
        self._step = 0
        self._summed = 0  # micro-batches whose gradients the optimiser has not applied yet

    def scores(self, batch: Inputs) -> Tensor:
        """The scores (B,), without dropout."""
        with torch.no_grad():
            return self.network.eval()(batch)["M"]

    # Training

    def keeps_pseudo_labels(self) -> bool:
        """Whether the network keeps something for each training utterance."""
        return self.network.KEEPS_LABELS

    def begin_training(self, samples: int | None, train: str) -> None:
        """Begins a new run with fresh moments."""
        self.network.begin_training(samples)
        self.network.to(self.device)
        kind = torch.optim.AdamW if self.network.settings.optimizer == "adamw" else torch.optim.Adam
        self._optimizer = kind(self._groups(), fused=True)
        self._optimizer.zero_grad(set_to_none=True)
        self._best, self._epoch, self._step, self._summed = None, 0, 0, 0

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Sets rates and decays by field, which hold from the optimiser's next step on."""
        self.network.settings = self.network.settings.model_copy(update=rates)
        if self._optimizer is not None:
            for group, now in zip(self._optimizer.param_groups, self._groups(), strict=True):
                group.update(lr=now["lr"], weight_decay=now["weight_decay"])

    def _groups(self) -> list[dict[str, Any]]:
        """The network's groups that have parameters."""
        return [group for group in self.network.groups() if group["params"]]

    def begin_epoch(self, epoch: int) -> None:
        """Before each epoch, from 1."""
        self._epoch = epoch
        self.network.begin_epoch(epoch)

    def train_step(self, batch: Inputs) -> Tensor:
        """Trains on a micro-batch, stepping the optimiser after every ``accumulate``; returns its losses.

        Raises:
            BatchError: The weights of all utterances are 0.
            NonFiniteError: The loss or a gradient is NaN or infinite; nothing was applied.
        """
        if batch.weights is not None and not bool(batch.weights.any()):
            raise BatchError(
                "the weights of all utterances of this batch are 0, so its loss has no mean: leave such "
                "utterances out, split.subset(...), or take larger batches"
            )
        network = self.network.train()
        self._running()
        seed = (network.settings.seed * 1_000_003 + self._step) % 2**63
        with seeded(seed, self.device):
            outputs = network(batch)
            losses = network.losses(outputs, batch)
            self._add(self._gradients(losses))
            self._step += 1
            if self._summed == network.settings.accumulate:
                self._apply()
            network.after_step({name: value.detach() for name, value in outputs.items()}, batch)
        return torch.stack([losses[name].detach() for name in network.LOSSES])

    def _gradients(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gradients of every stage's loss for its own parameters, by name, where there are any."""
        network = self.network
        if bad := [name for name in network.LOSSES if not bool(losses[name].isfinite())]:
            raise NonFiniteError(f"the loss {bad[0]} of this batch is not finite; the step was not applied.")
        found: dict[str, Tensor] = {}
        for stage in network.STAGES:
            named = self._trained(stage)
            last = stage == network.STAGES[-1]
            gradients = torch.autograd.grad(
                losses[stage], list(named.values()), retain_graph=not last, allow_unused=True
            )
            found |= {name: g for name, g in zip(named, gradients, strict=True) if g is not None}
        if bad := [name for name, gradient in found.items() if not _finite(gradient)]:
            raise NonFiniteError(
                f"a gradient of this batch is not finite; the step was not applied. First: {bad[0]}."
            )
        return found

    def _trained(self, stage: str) -> dict[str, torch.nn.Parameter]:
        """Parameters of a stage, without those that are frozen."""
        named = self.network.named_parameters()
        return {n: p for n, p in named if p.requires_grad and self.network.stage_of(n) == stage}

    def _add(self, gradients: dict[str, Tensor]) -> None:
        """Adds the gradients of a micro-batch to the pending ones."""
        for name, parameter in self.network.named_parameters():
            if (gradient := gradients.get(name)) is not None:
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        self._summed += 1

    def _apply(self) -> None:
        """Steps the optimiser with the pending gradients."""
        settings, optimizer = self.network.settings, self._running()
        for stage in self.network.STAGES:
            parameters = list(self._trained(stage).values())
            if settings.clip:
                torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
            if settings.clip_value:
                torch.nn.utils.clip_grad_value_(parameters, settings.clip_value)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self._summed = 0

    def undone_steps(self) -> int:
        """Always 0: every step is checked before it is applied."""
        return 0

    def end_epoch(self) -> None:
        """Ends an epoch; steps an incomplete window of ``accumulate`` rather than drop it."""
        if self._summed:
            self._apply()
        self.network.eval()

    def keep_best(self) -> None:
        """Remembers the weights."""
        self._best = self.state_dict()

    def restore_best(self) -> None:
        """Restores the remembered weights, if any."""
        if self._best is not None:
            self.network.load_state_dict(self._best)
        self.network.eval()

    # State

    def pseudo_labels(self) -> dict[str, Tensor] | None:
        """A copy of the network's pseudo-labels by modality; ``None`` where it has none."""
        kept = self.network.kept_labels()
        return {name: labels.detach().clone() for name, labels in kept.items()} or None

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
        tensors |= {f"{SUMMED}{name}": gradient.clone() for name, gradient in self._waiting().items()}
        if self._best is not None:
            tensors |= {f"{BEST}{name}": tensor for name, tensor in self._best.items()}
        return tensors, json.dumps({"epoch": self._epoch, "step": self._step, "summed": self._summed})

    def load_training_state(self, state: dict[str, Tensor], counters: str) -> None:
        """Brings a run that has just begun to the saved state; applies all of it or nothing.

        Raises:
            CheckpointError: The state is of another run.
        """
        best = {name.removeprefix(BEST): t for name, t in state.items() if name.startswith(BEST)}
        summed = {name.removeprefix(SUMMED): t for name, t in state.items() if name.startswith(SUMMED)}
        rest = {name: t for name, t in state.items() if not name.startswith((BEST, SUMMED))}
        number = counts(counters)
        parameters = dict(self.network.named_parameters())
        faults = differences(self._places(), rest)
        faults += differences(self.network.state_dict(), best) if best else []
        faults += differences({n: p for n, p in parameters.items() if n in summed}, summed)
        if faults or number is None:
            raise CheckpointError(f"this is not the state of such a run: {'; '.join(faults) or counters}")
        with torch.no_grad():
            for name, place in self._places().items():
                place.copy_(rest[name])
        for name, parameter in parameters.items():
            parameter.grad = summed[name].to(self.device) if name in summed else None
        self._best = {name: tensor.to(self.device) for name, tensor in best.items()} or None
        self._epoch, self._step, self._summed = (number[name] for name in COUNTERS)

    def _waiting(self) -> dict[str, Tensor]:
        """The pending gradients by name."""
        named = self.network.named_parameters()
        return {name: p.grad for name, p in named if p.grad is not None}

    def _places(self) -> dict[str, Tensor]:
        return places(self.network, self._running())

    def _running(self) -> torch.optim.Adam:
        if self._optimizer is None:
            raise StateError("no run was begun")
        return self._optimizer


def _finite(x: Tensor) -> bool:
    """Whether all values are finite, in one pass."""
    return all(bool(bound.isfinite()) for bound in x.aminmax())
