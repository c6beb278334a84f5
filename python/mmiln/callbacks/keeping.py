"""Callbacks that keep what training overwrites: weights and pseudo-labels of single epochs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..training.learner import Learner
from .callback import Callback
from .stopping import Mode, Monitor


class Checkpoint(Callback):
    """Saves the model after epochs, as :meth:`mmiln.Model.save_pretrained` does, to be loaded and used.

    A run can't be resumed from these, only from those of ``fit(checkpoint_dir=)``, which hold optimiser,
    pseudo-labels and random states as well.

    Args:
        directory: Every ``every``-th epoch goes to ``epoch-0001`` and so on below it; with ``monitor``, the
            best epoch so far to ``best``.
        every: The number of epochs from one save to the next. The default is 1 without ``monitor``.
        monitor: A key of the history: only epochs that are the best so far by it are saved.
        mode: As in :class:`EarlyStopping`.

    Raises:
        ConfigError: Both ``every`` and ``monitor`` are given, or one is out of range.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        every: int | None = None,
        monitor: str | None = None,
        mode: Mode | None = None,
    ) -> None:
        if every is not None and monitor is not None:
            raise ConfigError("every saves by number, monitor by measure: give one, or two callbacks")
        if every is not None and (not isinstance(every, int) or every < 1):
            raise ConfigError(f"every must be at least 1, got {every!r}")
        self.directory = Path(directory)
        self.every = every or 1
        self.monitor = None if monitor is None else Monitor(monitor, mode)

    def on_epoch_end(self, model: Learner, epoch: int, logs: dict[str, float]) -> None:
        """Saves the weights that the epoch ended with."""
        if self.monitor is None:
            if epoch % self.every == 0:
                model.save_pretrained(self.directory / f"epoch-{epoch:04d}")
        elif self.monitor.best_epoch(model.history_) == epoch:
            model.save_pretrained(self.directory / "best")


class PseudoLabels(Callback):
    """Keeps the pseudo-labels as they are after each epoch, for :func:`mmiln.plotting.pseudo_label_drift`.

    Attributes:
        labels_: By modality, one array ``(N,)`` for each epoch, by dataset index; NaN for utterances not seen
            yet. Epochs before a resume are not among them.

    Raises:
        StateError: The model makes no pseudo-labels.

    >>> import mmiln
    >>> data = mmiln.data.synthetic(16, 8, 8)
    >>> kept = mmiln.callbacks.PseudoLabels()
    >>> model = mmiln.Model("mosi", num_layers=1)
    >>> _ = model.fit(data.train, epochs=2, callbacks=[kept], progress=False)
    >>> {modality: np.shape(labels) for modality, labels in kept.labels_.items()}
    {'audio': (2, 16), 'vision': (2, 16)}
    """

    labels_: dict[str, list[npt.NDArray[np.float32]]]

    def on_train_begin(self, model: Learner) -> None:
        """Drops the labels of an earlier run."""
        self.labels_ = {modality: [] for modality in model.pseudo_labels}

    def on_epoch_end(self, model: Learner, epoch: int, logs: dict[str, float]) -> None:
        """Keeps a copy of the labels."""
        for modality, labels in model.pseudo_labels.items():
            self.labels_[modality].append(labels)
