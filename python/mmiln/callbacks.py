"""What a user may hook into training."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .estimator import Estimator


class Callback:
    """Base class: override what you need.

    ``logs`` holds what an epoch measured: ``train_task``, ``train_sim``, ``train_diff``, ``train_total``
    and, with a validation set, ``valid_mae``, ``valid_corr`` and the other measures.
    """

    def on_train_begin(self, model: Estimator) -> None:
        """Before the first epoch."""

    def on_epoch_begin(self, model: Estimator, epoch: int) -> None:
        """Before epoch ``epoch``, from 1."""

    def on_batch_end(self, model: Estimator, epoch: int, batch: int) -> None:
        """After micro-batch ``batch``, from 1, of an epoch."""

    def on_epoch_end(self, model: Estimator, epoch: int, logs: dict[str, float]) -> None:
        """After validation of epoch ``epoch``."""

    def on_train_end(self, model: Estimator) -> None:
        """After the last epoch, with the best weights in place."""
