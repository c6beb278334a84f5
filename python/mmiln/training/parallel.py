"""Data-parallel training: the loop of :mod:`mmiln.training.loop` in several processes.

The processes take the micro-batches of an epoch in turn. Those that they work on at a time are a round,
and a window of ``accumulate`` micro-batches ends in one step of the optimiser, on the gradients of all
processes added up. So the result is that of one process, except for the rounding of sums.
Weights, moments and pseudo-labels are the same in every process: after a round each updates the labels with
the features of all of its micro-batches, in their order.

With ``gather_losses`` the losses of similarity and difference, and the updates of labels, read a round as
one batch: the result is that of one process with batches as large as a round, except for dropout.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from .._core import Core
from ..callbacks.callback import Callbacks
from ..errors import BatchError, ConfigError, DistributedError, NonFiniteError
from ..results.history import History
from ..results.metrics import Metrics
from . import batches, loaders
from .checkpoints import Position, Streams
from .loop import Resume, TrainingRun
from .ranks import Ranks
from .scoring import predict


@dataclass(eq=False, repr=False)
class ParallelRun(TrainingRun):
    """A run, in one of the processes that share it.

    Raises:
        ConfigError: The model trains in one process only, or ``accumulate`` is no multiple of their number.
        DistributedError: Another process has ended, or reads other batches.
    """

    ranks: Ranks

    def __post_init__(self) -> None:
        model, ranks, train = self.model, self.ranks, self.model.config.train
        accumulate, size = train["accumulate"], train["batch_size"]
        if not model.trains_in_parallel:
            raise ConfigError(
                f"a {type(model).__name__} trains in one process: start it without torchrun, or with "
                "--nproc-per-node 1"
            )
        if accumulate % ranks.size:
            raise ConfigError(
                f"accumulate={accumulate} micro-batches an optimiser step can't be shared by {ranks.size} "
                f"processes: set it to a multiple of {ranks.size}; a step sees accumulate times "
                f"batch_size={size} utterances"
            )
        self.hooks = _FirstCallbacks(self.hooks, ranks)
        self._keeps = self.checkpoints is not None
        self.checkpoints = self.checkpoints if ranks.first else None
        super().__post_init__()
        self.gathers: bool = train["gather_losses"]
        #: Length of a window: in micro-batches, or in rounds where each counts as one batch.
        self.window = accumulate // ranks.size if self.gathers else accumulate
        self._due = False  # whether a checkpoint is due, as the first process decides
        self._window_begins = True
        # From a checkpoint in mid-epoch: the epoch, and its losses and sizes so far in all processes.
        self._earlier: tuple[int, list[list[float]], list[int]] = (0, [], [])

    def train(self, resume: Resume) -> History:
        """Trains all epochs, or the rest of them after a resume."""
        history = super().train(resume)
        self._share_rates()
        return history

    @property
    def core(self) -> Core:
        """The Rust core, which holds and trains the weights."""
        core = self.model.core
        assert isinstance(core, Core)
        return core

    def begin(self, resume: Resume) -> None:
        """Begins in every process with the weights of the first."""
        super().begin(resume)
        self.ranks.fill_from_first(self.core.flat()[0])
        self.core.weights_changed()

    # An epoch

    def _steps(self) -> Iterator[None]:
        supply = self._batches()
        while round_ := list(islice(supply, self.ranks.size)):
            self._train_round([batches.check_keys(batch) for batch in round_])
            for batch in round_:
                self._note_labels(batch)
            yield

    def _train_round(self, round_: list[Any]) -> None:
        """Trains on one micro-batch in each process; the last round of an epoch may be too short for all."""
        core, place = self.core, self.ranks.rank
        own = round_[place] if place < len(round_) else None
        sizes = [len(_labels(batch)) for batch in round_] + [0] * (self.ranks.size - len(round_))
        self.batch += len(round_)
        losses = rows = None
        fault = ""
        try:
            losses, rows = self._descend(own, round_, sizes)
        except NonFiniteError as error:
            fault = f"epoch {self.epoch}, micro-batch {self.batch - len(round_) + place + 1}: {error} "
            fault += self.model.where_not_finite(round_[place])
        if not self._all_went_well(fault, _checksum(round_)):
            core.drop_window()
            core.count_round(len(round_), 0, self.window)
            self._window_begins = True
            return
        if losses is not None:
            self.losses.append(losses)
            self.sizes.append(sizes[place])
        if self.relabels:
            self._relabel(round_, rows, sizes)
        self._window_begins = False
        if core.count_round(len(round_), 1 if self.gathers else len(round_), self.window):
            self._end_window()

    def _descend(self, own: Any, round_: list[Any], sizes: list[int]) -> tuple[Tensor | None, Tensor | None]:
        """Losses of this process's micro-batch, and its labels and features; ``None`` without one."""
        core, place = self.core, self.ranks.rank
        controls = None if own is None else core.round_forward(self.model.pack(own), place)
        gathered, part = None, 1.0
        if self.gathers and self.ranks.numbers_of_all(int(controls is not None))[0][0]:
            gathered = torch.cat(self.ranks.rows_of_all(controls, sizes, core.flat()[0]))
            part = 0.0 if own is None else _weight(own) / sum(map(_weight, round_))
        return (None, None) if own is None else core.round_backward(gathered, sum(sizes[:place]), part)

    def _all_went_well(self, fault: str, checksum: int) -> bool:
        """Whether all gradients of the round are finite; otherwise raises or warns, as ``nonfinite`` says.

        Raises:
            NonFiniteError: They are not, and ``nonfinite`` is ``"raise"``.
            DistributedError: Processes read different batches.
        """
        due = self.checkpoints is not None and self.checkpoints.due
        reports = self.ranks.numbers_of_all(int(not fault), checksum, int(due))
        self._due = bool(reports[0][2])
        if len({checksum for _, checksum, _ in reports}) > 1:
            raise DistributedError(
                f"epoch {self.epoch}, about micro-batch {self.batch}: the processes read different batches. "
                "The loader must give the same in each, in the same order: draw the order from a generator "
                "that is seeded, and leave their distribution (DistributedSampler) to fit()"
            )
        if all(well for well, _, _ in reports):
            return True
        for text in filter(None, self.ranks.of_all(fault)):
            if self.nonfinite == "raise" or self.ranks.first:
                self._tell(text)
        return False

    def _relabel(self, round_: list[Any], rows: Tensor | None, sizes: list[int]) -> None:
        """Updates the pseudo-labels of all utterances of the round."""
        indices = [batches.whole_numbers("index", batch["index"]) for batch in round_]
        parts = self.ranks.rows_of_all(rows, sizes, self.core.flat()[0])[: len(round_)]
        if self.gathers:
            self.core.relabel(torch.cat(indices), torch.cat(parts))
            return
        for index, part in zip(indices, parts, strict=True):
            self.core.relabel(index, part)

    def _end_window(self) -> None:
        if not self._window_begins:
            self._share_rates()
            self.ranks.add_up(self.core.flat()[1])
            self.core.step_window()
            self._window_begins = True

    def _share_rates(self) -> None:
        """Takes over the rates of the first process, in which alone callbacks are called."""
        own, first = self.model.rates, self.ranks.of_first(self.model.rates)
        if changed := {name: rate for name, rate in first.items() if rate != own[name]}:
            self.model.set_params(**changed)

    def _rates_of_epoch(self) -> dict[str, float]:
        self._share_rates()
        return super()._rates_of_epoch()

    def _measured(self) -> tuple[list[list[float]], list[int]]:
        """Losses and sizes of all processes, in the order of the micro-batches."""
        of_all = self.ranks.of_all(super()._measured())
        rounds = range(max(len(sizes) for _, sizes in of_all))
        at = [(i, rank) for i in rounds for rank, (_, sizes) in enumerate(of_all) if i < len(sizes)]
        epoch, losses, sizes = self._earlier
        if epoch != self.epoch:
            losses, sizes = [], []
        return losses + [of_all[rank][0][i] for i, rank in at], sizes + [of_all[rank][1][i] for i, rank in at]

    def _evaluate(self, part: loaders.Loader) -> Metrics:
        return predict(self.model, part, self.ranks).measured()

    def _look(self) -> None:
        """Nothing is left to look at: each round has been checked."""

    # Checkpoints: the first process writes and reads them

    def _note_streams(self) -> None:
        """Gives all the random states of the first, from which the next epoch's order is drawn."""
        self._streams = self.ranks.of_first(Streams.now(self.loader))
        self._streams.put_back(self.loader)

    def _is_due(self, *, epoch_over: bool = False) -> bool:
        """Only between two windows, where no process holds gradients of its own."""
        if epoch_over:
            return self._keeps and self.ranks.of_first(super()._is_due(epoch_over=True))
        return self._due and self._window_begins

    def _kept(self, resume: Resume) -> tuple[dict[str, Tensor], Position] | None:
        kept = super()._kept(resume) if self.ranks.first else None
        position = self.ranks.of_first(None if kept is None else kept[1])
        if position is None:
            return None
        return self.ranks.tensors_of_first(None if kept is None else kept[0]), position

    def _check(self, position: Position, *, adopt: bool) -> None:
        if self.ranks.first:
            super()._check(position, adopt=adopt)
        self.ranks.wait()

    def _go_on(self, tensors: dict[str, Tensor], position: Position) -> None:
        super()._go_on(tensors, position)
        self._earlier = position.epoch, position.losses, position.sizes
        self.losses, self.sizes = [], []


class _FirstCallbacks(Callbacks):
    """Callbacks that run in the first process alone; their decisions hold for all."""

    def __init__(self, callbacks: Callbacks, ranks: Ranks) -> None:
        self._callbacks = callbacks._callbacks if ranks.first else []
        self._ranks = ranks

    def call(self, hook: str, *arguments: Any) -> bool:
        stop = super().call(hook, *arguments)
        return self._ranks.of_first(stop) if hook in ("on_train_begin", "on_epoch_end") else stop


def _labels(batch: Any) -> Tensor:
    if (labels := batches.labels_of(batch)) is None:
        raise BatchError("the batch has no labels, the losses need them")
    return batches.tensor("labels", labels).reshape(-1)


def _weight(batch: Any) -> float:
    """The sum of the weights of a batch's utterances."""
    weights = batch.get("weights")
    return (
        len(_labels(batch)) if weights is None else batches.tensor("weights", weights).double().sum().item()
    )


def _checksum(round_: list[Any]) -> int:
    """A checksum of the utterances of a round."""
    known = [batch["index"] if batch.get("index") is not None else _labels(batch) for batch in round_]
    return zlib.crc32(b"".join(batches.tensor("index", part).numpy().tobytes() for part in known))
