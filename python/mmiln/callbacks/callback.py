"""The protocol of callbacks: what users may hook into training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """What :meth:`mmiln.Model.fit` was asked for.

    Attributes:
        epochs: The largest number of epochs, including those before a resume.
        batches: Micro-batches of an epoch; ``None`` if the loader has no length.
        rates: The learning rates and weight decays that the run began with, by field, also after a resume.
    """

    epochs: int
    batches: int | None
    rates: Mapping[str, float] = field(default_factory=dict)


class Callback:
    """Base class: override what you need.

    Hooks are called in the order of the list that ``fit`` was given, from the thread that trains:
    ``on_train_begin``, then for each epoch ``on_epoch_begin``, ``on_batch_end`` after each micro-batch and
    ``on_epoch_end``, then ``on_train_end``. Their ``model`` is the :class:`mmiln.Estimator` that is trained;
    a hook may annotate it as another, such as :class:`mmiln.Model`.

    A resumed run calls ``on_train_begin`` and goes on where it was interrupted. ``model.history_`` holds the
    earlier epochs, so a callback that reads it, rather than counting by itself, is right after a resume too.
    ``model.set_params`` changes learning rates and weight decays from the optimiser's next step on.

    **To stop**, return true from ``on_epoch_end``; every other callback is still called, and the best
    epoch's weights become the result. True from ``on_train_begin`` means that nothing is left to train,
    as when a run that had been stopped is resumed.

    **Exceptions** end training and reach the caller as they are, with a note that names callback and hook.
    The model has the weights of the last step and can be used and trained on.

    Attributes:
        plan: The numbers of epochs and micro-batches; set before ``on_train_begin``.

    >>> import mmiln
    >>> class Print(mmiln.Callback):
    ...     def on_epoch_end(self, model, epoch, logs):
    ...         print(f"{epoch} of {self.plan.epochs}", sorted(logs)[-1])
    >>> data = mmiln.data.synthetic(16, 8, 8)
    >>> model = mmiln.Model("mosi", num_layers=1)
    >>> _ = model.fit(data.train, data.valid, epochs=2, callbacks=[Print()], progress=False)
    1 of 2 valid_non0_f1
    2 of 2 valid_non0_f1
    """

    plan: Plan

    def on_train_begin(self, model: Any) -> bool | None:
        """Before the first epoch; true if nothing is left to train."""

    def on_epoch_begin(self, model: Any, epoch: int) -> None:
        """Before epoch ``epoch``, from 1."""

    def on_batch_end(self, model: Any, epoch: int, batch: int) -> None:
        """After micro-batch ``batch``, from 1, of an epoch. On a card the step may still be under way."""

    def on_epoch_end(self, model: Any, epoch: int, logs: dict[str, float]) -> bool | None:
        """After validation of epoch ``epoch``; true to stop.

        ``logs`` holds the epoch's values, as ``model.history_`` does for all epochs: means of the
        losses (``train_task``, ``train_sim``, ``train_diff``, ``train_total``; a baseline's own), how far
        pseudo-labels are from the labels where the model keeps any (``pseudo_shift_audio``, in sentiment
        points), ``seconds`` and, with a validation set, ``valid_mae``, ``valid_corr`` and the other measures
        of :class:`mmiln.Metrics`. A learning rate or weight decay that was changed during the run has its
        value at the end of the epoch (``lr_text``).
        """

    def on_train_end(self, model: Any) -> None:
        """After the last epoch, with the best weights in place."""

    def on_exception(self, model: Any, error: BaseException) -> None:
        """When an exception ends training, Ctrl-C too; afterwards it reaches the caller of ``fit``."""


def checked(callbacks: object) -> list[Callback]:
    """The callbacks that a user gave, as a list.

    Raises:
        ConfigError: It is not a list of callbacks.
    """
    if isinstance(callbacks, Callback) or not isinstance(callbacks, Iterable):
        raise ConfigError(f"callbacks must be a list of mmiln.Callback objects, got {callbacks!r} alone")
    listed = list(callbacks)
    for callback in listed:
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks must be objects of mmiln.Callback, got {callback!r} among them")
    return listed


class Callbacks:
    """The callbacks of a run, called one after another."""

    def __init__(self, callbacks: list[Callback], plan: Plan) -> None:
        self._callbacks = callbacks
        for callback in callbacks:
            callback.plan = plan

    def call(self, hook: str, *arguments: Any) -> bool:
        """Calls a hook of every callback; returns whether any of them wants to stop."""
        stop = False
        for callback in self._callbacks:
            try:
                stop |= bool(getattr(callback, hook)(*arguments))
            except Exception as error:
                error.add_note(f"raised by {hook} of the callback {type(callback).__name__}")
                raise
        return stop
