"""The loop around the core's training step: epochs, validation, checkpoints."""

from __future__ import annotations

import itertools
import json
import math
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from torch import Tensor

from ..callbacks.callback import Callbacks
from ..callbacks.stopping import Monitor
from ..errors import CheckpointError, ConfigError, NonFiniteError, StateError
from ..labels import MOSI
from ..results.history import History
from ..results.metrics import Metrics
from . import loaders
from .checkpoints import Checkpoints, Position, Streams
from .identity import check_same, identity
from .learner import Learner
from .pseudo_shift import PseudoShift
from .scoring import predict
from .small_labels import SmallLabels

Resume = bool | Literal["auto", "adopt"]
NonFinite = Literal["raise", "skip"]
LOOK_EVERY: Final = 16  # micro-batches
RESUME: Final = ("auto", "adopt", True, False)


@dataclass(eq=False, repr=False)
class TrainingRun:
    """A run under way: what it has measured, and where it is."""

    model: Learner
    loader: Iterable[Any]
    valid: loaders.Loader
    epochs: int
    hooks: Callbacks
    checkpoints: Checkpoints | None
    nonfinite: NonFinite
    monitor: str  # the measure of validation that chooses the epoch

    def __post_init__(self) -> None:
        self.best = Monitor(self.monitor)
        self._initial_rates = self.model.rates
        # Steps on a card are not waited for; to skip one, its outcome must be known before the next.
        self.look_every = 1 if self.nonfinite == "skip" else LOOK_EVERY
        self._recent: deque[Any] = deque(maxlen=self.look_every)
        self.history = History()
        self.history.monitor = None if self.valid is None else self.monitor
        self.stopped = False  # by a callback
        self.shift: PseudoShift | None = None  # of the epoch under way
        self.epoch = 1  # the one under way
        self.batch = 0  # how many of its micro-batches are done
        self.losses: list[Tensor] = []  # of those that were not skipped; on the device
        self.sizes: list[int] = []
        self._raw: deque[Any] = deque()  # packed batches that are not trained on yet
        self.seconds = 0.0
        self.small_labels = SmallLabels() if self._range_is_guessed() else None
        self._source: Iterator[Any] | None = None  # iterator of the first epoch, already begun

    def train(self, resume: Resume) -> History:
        """Trains all epochs, or the rest of them after a resume."""
        with self.checkpoints or nullcontext():
            self.begin(resume)
            try:
                self.stopped = self.hooks.call("on_train_begin", self.model)
                while not self.over:
                    self.train_epoch()
                self.end()
                self.hooks.call("on_train_end", self.model)
            except BaseException as error:
                self.hooks.call("on_exception", self.model, error)
                raise
        return self.history

    def begin(self, resume: Resume) -> None:
        """Starts the run in the core, or resumes it from the last checkpoint."""
        kept = self._kept(resume)
        self._note_streams()
        # Widths may have to be read off the first batch.
        source = loaders.each(self.loader, self.model.encoder)
        head = next(source)
        model = self.model
        model.pack(head)
        self.relabels = model.core.keeps_pseudo_labels() and not model.human_labels
        samples = loaders.training_size(self.loader) if self.relabels else None
        model.core.begin_training(samples, json.dumps(model.config.train))
        if self.checkpoints is not None:
            self._identity = identity(model, self.loader, self.valid, samples, self.monitor)
        if kept is None:
            self._source = itertools.chain([head], source)
        else:
            tensors, position = kept
            self._check(position, adopt=resume == "adopt")
            self._go_on(tensors, position)
        self.step: Callable[[Any], Tensor] = model.new_step()
        model.history_ = self.history

    @property
    def over(self) -> bool:
        """Whether no epoch is left, or a callback has stopped the run."""
        return self.stopped or self.epoch > self.epochs

    def train_epoch(self) -> None:
        """Trains on the rest of the current epoch, then validates."""
        started = time.perf_counter() - self.seconds
        epoch, model, history = self.epoch, self.model, self.history
        self.hooks.call("on_epoch_begin", model, epoch)
        model.core.begin_epoch(epoch)
        for _ in self._steps():
            self.hooks.call("on_batch_end", model, epoch, self.batch)
            if self._is_due():
                self.seconds = time.perf_counter() - started
                self._save()
        self._look()
        if epoch == 1 and self.small_labels is not None:
            self.small_labels.warn()
        self._end_window()
        losses, sizes = self._measured()
        logs = self._mean_losses(losses, sizes)
        if self.shift is not None:
            logs |= self.shift.measure(model.pseudo_labels)
        if self.nonfinite == "skip":
            logs["skipped_batches"] = self.batch - len(sizes)
        if self.valid is not None:
            measures = self._evaluate(self.valid).to_dict()
            logs |= {f"valid_{name}": value for name, value in measures.items() if name != "n"}
        logs |= self._rates_of_epoch()
        logs["seconds"] = time.perf_counter() - started
        history.append(logs)
        if self.valid is not None and self.best.best_epoch(history) == epoch:
            history.best_epoch = epoch
            model.core.keep_best()
        self.stopped = self.hooks.call("on_epoch_end", model, epoch, logs)
        self.epoch, self.batch, self.losses, self.sizes, self.seconds = epoch + 1, 0, [], [], 0.0
        self._note_streams()
        if self._is_due(epoch_over=True):
            self._save()

    def _rates_of_epoch(self) -> dict[str, float]:
        """The rates and decays that have changed in the course of the run, as they are now."""
        rates, initial = self.model.rates, self._initial_rates
        changed = [name for name in rates if name in self.history or rates[name] != initial[name]]
        self._note_rates_before({name: initial[name] for name in changed})
        return {name: rates[name] for name in changed}

    def _note_rates_before(self, rates: Mapping[str, float]) -> None:
        """Notes the rates of the epochs before for those that the history has none of."""
        if before := self.history.epochs:
            for name, rate in rates.items():
                self.history.setdefault(name, [rate] * before)

    def _changed_rates(self) -> dict[str, float]:
        """The rates and decays that are not as the run began."""
        return {name: rate for name, rate in self.model.rates.items() if rate != self._initial_rates[name]}

    def _steps(self) -> Iterator[None]:
        """Trains on the rest of the epoch; yields after each step."""
        for packed in self.model.packed_ahead(map(self._note, self._batches())):
            raw = self._raw.popleft()
            self._train_batch(packed, raw)
            self._note_labels(raw)
            if self.batch % self.look_every == 0:
                self._look()
            yield

    def _note_labels(self, batch: Any) -> None:
        """Remembers the labels of a batch that was trained on."""
        if self.shift is not None:
            self.shift.note(batch)
        if self.epoch == 1 and self.small_labels is not None:
            self.small_labels.note(batch)

    def _end_window(self) -> None:
        """Makes the optimiser's step for the gradients of an unfinished window at the epoch's end."""
        self.model.core.end_epoch()

    def _evaluate(self, part: loaders.Loader) -> Metrics:
        return predict(self.model, part).measured()

    def _range_is_guessed(self) -> bool:
        """Whether labels are taken for those of [-3, 3] though the model was not told so."""
        return self.model.label_range is None and self.model.label_range_ == MOSI

    def _note(self, batch: Any) -> Any:
        self._raw.append(batch)
        return batch

    def _train_batch(self, packed: Any, batch: Any) -> None:
        """Makes one step; on the CPU, refuses it if it is not finite."""
        self.batch += 1
        self._recent.append(batch)
        try:
            losses = self.step(packed)
        except NonFiniteError as error:
            self._refuse(str(error), 1)
            return
        self.losses.append(losses)
        self.sizes.append(len(packed))

    def _look(self) -> None:
        """On a card, refuses steps since the last look that were not finite, and so not applied."""
        if undone := self.model.core.undone_steps():
            del self.losses[-undone:], self.sizes[-undone:]
            self._refuse(
                "the loss or a gradient of this batch is not finite; the step was not applied.", undone
            )

    def _refuse(self, what: str, undone: int) -> None:
        """Reports the batch that could not be trained on, the first of the last ``undone``."""
        number = self.batch - undone + 1
        where = self.model.where_not_finite(self._recent[-undone])
        self._tell(f"epoch {self.epoch}, micro-batch {number}: {what} {where}")

    def _tell(self, fault: str) -> None:
        if self.nonfinite == "raise":
            raise NonFiniteError(fault) from None
        warnings.warn(f"skipped: {fault}", RuntimeWarning, stacklevel=2)

    def end(self) -> None:
        """Goes back to the best weights."""
        if self.valid is not None and self.history.epochs and self.history.best_epoch is None:
            warnings.warn(
                f"{self.monitor} is NaN in every epoch, so none is best: the weights are those of the last",
                RuntimeWarning,
                stacklevel=2,
            )
        self.model.core.restore_best()

    def _batches(self) -> Any:
        """The batches that are left of the current epoch."""
        if self._source is not None:
            source, self._source = self._source, None
        else:
            source = loaders.each(self.loader, self.model.encoder)
        self.shift = PseudoShift() if self.model.core.pseudo_labels() else None
        for batch in itertools.islice(source, self.batch):  # done before the run was cut off
            if self.shift is not None:
                self.shift.note(batch)
        return source

    def _measured(self) -> tuple[list[list[float]], list[int]]:
        """The losses of the epoch's micro-batches so far that were not skipped, and their utterances."""
        losses = torch.stack(self.losses).double().tolist() if self.losses else []
        return losses, self.sizes

    def _mean_losses(self, losses: list[list[float]], sizes: list[int]) -> dict[str, float]:
        """The mean of each loss over the utterances of the epoch."""
        if not losses:
            raise NonFiniteError(f"every micro-batch of epoch {self.epoch} was skipped")
        with np.errstate(over="ignore", invalid="ignore"):  # refused below with a message
            means = np.average(np.array(losses), axis=0, weights=sizes)
        if not np.isfinite(means).all():
            raise NonFiniteError(f"the training loss of epoch {self.epoch} is not finite: {means.tolist()}")
        names = self.model.LOSSES
        return {f"train_{name}": float(value) for name, value in zip(names, means, strict=True)}

    # Checkpoints

    def _is_due(self, *, epoch_over: bool = False) -> bool:
        """Whether it is time for a checkpoint: the last one is old enough, or the run is over."""
        return self.checkpoints is not None and (self.checkpoints.due or (epoch_over and self.over))

    def _note_streams(self) -> None:
        """Remembers the random states at the start of the next epoch."""
        if self.checkpoints is not None:
            self._streams = Streams.now(self.loader)

    def _kept(self, resume: Resume) -> tuple[dict[str, Tensor], Position] | None:
        """The checkpoint to go on from, if any."""
        if resume not in RESUME:
            raise ConfigError(f"resume must be one of {', '.join(map(repr, RESUME))}; got {resume!r}")
        if self.checkpoints is None:
            if resume != "auto":
                raise ConfigError(
                    f"resume={resume!r} needs the folder of the checkpoints: give checkpoint_dir="
                )
            return None
        folder = self.checkpoints.folder
        if resume is False:
            if self.checkpoints.all():
                raise StateError(
                    f'{folder} holds checkpoints of an earlier run: go on with it (resume="auto"; on the '
                    "command line --resume), delete them, or name another folder"
                )
            return None
        kept = self.checkpoints.latest()
        if kept is None and resume is True:
            raise CheckpointError(f"there is no checkpoint in {folder} to resume from")
        return kept

    def _check(self, position: Position, *, adopt: bool) -> None:
        """Refuses a checkpoint that is not of this run."""
        assert self.checkpoints is not None
        check_same(position.identity, self._identity, self.checkpoints.folder, adopt=adopt)
        if any(len(losses) != len(self.model.LOSSES) for losses in position.losses):
            raise CheckpointError(
                f"the checkpoints in {self.checkpoints.folder} do not hold the losses "
                f"{', '.join(self.model.LOSSES)} of each micro-batch"
            )
        measured = len(position.history.get("valid_mae", ()))
        if measured != (0 if self.valid is None else position.epoch - 1):
            raise StateError(
                f"the checkpoints in {self.checkpoints.folder} are of a run that measured {measured} of its "
                f"{position.epoch - 1} epochs on a validation part: give valid as it was, or another folder"
            )

    def _go_on(self, tensors: dict[str, Tensor], position: Position) -> None:
        """Restores core, measures and random states from a checkpoint."""
        random = {name: tensors.pop(name) for name in list(tensors) if name.startswith("random.")}
        self.model.core.load_training_state(tensors, position.counters)
        self._streams = Streams(random, position.random)
        self._streams.put_back(self.loader)
        for name, values in position.history.items():
            self.history[name] = [math.nan if value is None else value for value in values]
        self.history.best_epoch = position.best_epoch
        if self.checkpoints is not None:  # in the first process
            self._restore_rates(position, self.checkpoints.folder)
        self.epoch = position.epoch
        losses = torch.tensor(position.losses, dtype=torch.float64, device=self.model.device)
        self.losses = list(losses.reshape(-1, len(self.model.LOSSES)))
        self.sizes = list(position.sizes)
        self.batch = position.batch
        self.seconds = position.seconds

    def _restore_rates(self, position: Position, folder: Path) -> None:
        """Restores the rates that a callback had set, except where others are given and adopted."""
        was = {name.partition(".")[2]: was for name, was in position.identity.items()}
        adopted = {n: was[n] for n, rate in self._initial_rates.items() if was.get(n, rate) != rate}
        for name, rate in adopted.items():
            if type(rate) not in (int, float) or not 0 <= rate <= sys.float_info.max:
                raise CheckpointError(
                    f"the checkpoints in {folder} are damaged: expected a rate as {name}, got {rate!r:.100}"
                )
        self._note_rates_before(adopted)
        if restored := {n: rate for n, rate in position.rates.items() if n not in adopted}:
            self.model.set_params(**restored)

    def _save(self) -> None:
        self._look()
        losses, sizes = self._measured()
        if self.checkpoints is None:
            return
        tensors, counters = self.model.core.training_state()
        self.checkpoints.save(
            tensors | self._streams.tensors,
            Position(
                identity=self._identity,
                counters=counters,
                epoch=self.epoch,
                batch=self.batch,
                losses=losses,
                sizes=sizes,
                seconds=self.seconds,
                history={
                    name: [value if math.isfinite(value) else None for value in values]
                    for name, values in self.history.items()
                },
                best_epoch=self.history.best_epoch,
                rates=self._changed_rates(),
                random=self._streams.random,
            ),
        )
