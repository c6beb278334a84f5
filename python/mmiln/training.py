"""The loop around the core's training step: epochs, validation, early stopping, callbacks."""

from __future__ import annotations

import itertools
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Sequence, Sized
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from tqdm import TqdmWarning

from . import loaders
from ._core import Batch
from ._steps import Steps, cuda_capture, packed_ahead
from .callbacks import Callback
from .errors import ConfigError, NonFiniteError
from .history import History

with warnings.catch_warnings(action="ignore", category=TqdmWarning):
    # A notebook without ipywidgets gets plain bars; that is no reason to warn.
    from tqdm.auto import tqdm

if TYPE_CHECKING:
    from .model import Model

PARTS = ("task", "sim", "diff", "total")


class EarlyStopping:
    """The epoch of the lowest validation MAE, and whether ``patience`` epochs went by without a lower."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best = math.inf
        self.best_epoch = 0

    def improved(self, epoch: int, mae: float) -> bool:
        """Takes note of an epoch; true where it is the best so far."""
        if mae < self.best:
            self.best, self.best_epoch = mae, epoch
        return self.best_epoch == epoch

    def exhausted(self, epoch: int) -> bool:
        """Whether training should stop after this epoch."""
        return epoch - self.best_epoch >= self.patience


def fit(
    model: Model,
    loader: Iterable[Any],
    valid: loaders.Loader,
    *,
    epochs: int,
    patience: int,
    callbacks: Sequence[Callback],
    progress: bool,
) -> History:
    """Trains ``model`` in place; see :meth:`mmiln.Model.fit`."""
    for name, number in (("epochs", epochs), ("patience", patience)):
        if not isinstance(number, int) or number < 1:
            raise ConfigError(f"{name} must be at least 1, got {number!r}")
    first_pass = loaders.each(loader)
    head = next(first_pass)
    _begin(model, loader, head)
    step: Callable[[Batch], Tensor] = model._core.train_step
    if model.device != "cpu":
        step = Steps(model._core, cuda_capture(model.device))
    history = model.history_ = History()
    stopping = EarlyStopping(patience)
    for callback in callbacks:
        callback.on_train_begin(model)
    with tqdm(total=epochs, desc="epochs", unit="epoch", disable=not progress) as bar:
        for epoch in range(1, epochs + 1):
            started = time.perf_counter()
            source = itertools.chain([head], first_pass) if epoch == 1 else loaders.each(loader)
            batches = tqdm(
                source,
                total=len(loader) if isinstance(loader, Sized) else None,
                desc=f"epoch {epoch}",
                unit="batch",
                leave=False,
                disable=not progress,
            )
            logs = _train_epoch(model, step, batches, epoch, callbacks)
            if valid is not None:
                measures = model.evaluate(valid).to_dict()
                logs |= {f"valid_{name}": value for name, value in measures.items() if name != "n"}
            logs["seconds"] = time.perf_counter() - started
            history.append(logs)
            if valid is not None and stopping.improved(epoch, logs["valid_mae"]):
                history.best_epoch = epoch
                model._core.keep_best()
            for callback in callbacks:
                callback.on_epoch_end(model, epoch, logs)
            bar.update()
            shown = [name for name in ("train_total", "valid_mae") if name in logs]
            bar.set_postfix({name: f"{logs[name]:.4f}" for name in shown})
            if valid is not None and stopping.exhausted(epoch):
                break
    model._core.restore_best()
    for callback in callbacks:
        callback.on_train_end(model)
    return history


def _begin(model: Model, loader: Iterable[Any], head: object) -> None:
    """Starts a run in the core, whose widths may have to be read off the first batch, ``head``."""
    model._pack(head)
    samples = loaders.training_size(loader) if model._core.keeps_pseudo_labels() else None
    model._core.begin_training(samples, json.dumps(model.config.train))


def _train_epoch(
    model: Model,
    step: Callable[[Batch], Tensor],
    batches: Iterable[Any],
    epoch: int,
    callbacks: Sequence[Callback],
) -> dict[str, float]:
    """One pass; the mean of each loss over its utterances."""
    for callback in callbacks:
        callback.on_epoch_begin(model, epoch)
    model._core.begin_epoch(epoch)
    losses, sizes = [], []
    for number, packed in enumerate(packed_ahead(batches, model._pack, model.device), start=1):
        losses.append(step(packed))  # stays on the device
        sizes.append(len(packed))
        for callback in callbacks:
            callback.on_batch_end(model, epoch, number)
    model._core.end_epoch()
    means = np.average(torch.stack(losses).double().cpu().numpy(), axis=0, weights=sizes)
    if not np.isfinite(means).all():
        raise NonFiniteError(f"the training loss of epoch {epoch} is not finite: {means.tolist()}")
    return {f"train_{name}": float(value) for name, value in zip(PARTS, means, strict=True)}
