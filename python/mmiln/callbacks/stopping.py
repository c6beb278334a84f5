"""When an epoch is the best so far, and when to stop."""

from __future__ import annotations

import difflib
import math
from typing import Literal

from ..errors import ConfigError
from ..results.history import History
from ..results.measures import AGAINST_HUMAN, MEASURES, Family
from ..training.learner import Learner
from .callback import Callback

Mode = Literal["min", "max"]


def check_monitor(monitor: object, family: Family) -> None:
    """Checks that ``monitor`` is the history's name of a measure of the validation part.

    Raises:
        ConfigError: It is none; says which there are, and the nearest.
    """
    names = [f"valid_{name}" for name in family.measures]
    if monitor not in names:
        near = difflib.get_close_matches(str(monitor).removeprefix("valid_"), family.measures, n=1)
        hint = f"; did you mean 'valid_{near[0]}'?" if near else ""
        raise ConfigError(
            f"monitor must be a measure of the validation part, one of {', '.join(names)}; "
            f"got {monitor!r}{hint}"
        )


class Monitor:
    """A measure of the history that should fall or rise.

    Args:
        name: A key of the history, such as ``"valid_mae"``.
        mode: ``"min"`` where lower is better, ``"max"`` where higher is. ``None``: higher for correlation,
            accuracies and F1, lower for all else.
        min_delta: A change by no more than this is no improvement.

    Raises:
        ConfigError: The mode is unknown, or ``min_delta`` is below 0.
    """

    def __init__(self, name: str, mode: Mode | None = None, min_delta: float = 0.0) -> None:
        if mode not in ("min", "max", None):
            raise ConfigError(f'mode must be "min", "max" or None, got {mode!r}')
        if not min_delta >= 0:
            raise ConfigError(f"min_delta must be 0 or more, got {min_delta!r}")
        if mode is None:
            rises = {f"valid_{measure}" for measure, shown in MEASURES.items() if shown.rises}
            rises |= {measure for measure in AGAINST_HUMAN if "_corr_" in measure}
            mode = "max" if name in rises else "min"
        self.name = name
        self.mode = mode
        self.min_delta = min_delta

    def best_epoch(self, history: History) -> int:
        """The epoch, from 1, of the best value so far, 0 where there is none; NaN is never the best.

        Raises:
            ConfigError: The epochs so far do not have the measure.
        """
        if history.epochs and self.name not in history:
            raise ConfigError(
                f"{self.name!r} is not measured by this run: one of {', '.join(history)} can be monitored"
            )
        sign = 1 if self.mode == "min" else -1
        best, best_epoch = math.inf, 0
        for epoch, value in enumerate(history.get(self.name, ()), start=1):
            if sign * value < best - self.min_delta:
                best, best_epoch = sign * value, epoch
        return best_epoch


class EarlyStopping(Callback):
    """Stops once a measure has not become better for ``patience`` epochs.

    ``fit`` has one of its own for the measure that chooses the epoch, with ``fit(monitor=, patience=)``; this
    one is for further measures, of the training loss too: the first to stop decides. It decides by the
    history alone, so a run that is resumed stops where it would have stopped, and one that was stopped goes
    on with a larger ``patience``. Training still ends with the weights of the epoch that ``fit`` chooses.

    Args:
        monitor: A key of the history.
        patience: The number of epochs to wait for a better value.
        mode: ``"min"`` where lower is better, ``"max"`` where higher is. ``None``: higher for correlation,
            accuracies and F1, lower for all else.
        min_delta: A change by no more than this is no improvement, in units of the measure.

    Raises:
        ConfigError: An argument is out of range; or, after the first epoch, ``monitor`` is not measured.
    """

    def __init__(
        self,
        monitor: str = "valid_mae",
        *,
        patience: int = 8,
        mode: Mode | None = None,
        min_delta: float = 0.0,
    ) -> None:
        if not isinstance(patience, int) or patience < 1:
            raise ConfigError(f"patience must be at least 1, got {patience!r}")
        self.patience = patience
        self.monitor = Monitor(monitor, mode, min_delta)

    def on_train_begin(self, model: Learner) -> bool:
        """Whether a resumed run had stopped already."""
        return self._exhausted(model.history_)

    def on_epoch_end(self, model: Learner, epoch: int, logs: dict[str, float]) -> bool:
        """Whether patience is exhausted."""
        return self._exhausted(model.history_)

    def _exhausted(self, history: History) -> bool:
        return history.epochs - self.monitor.best_epoch(history) >= self.patience
