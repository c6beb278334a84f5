"""The progress that training shows: bars, or lines in a log."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

from tqdm import TqdmWarning

from ..results.measures import family_in
from ..training.learner import Learner
from .callback import Callback

with warnings.catch_warnings(action="ignore", category=TqdmWarning):
    # A notebook without ipywidgets gets plain bars; that is no reason to warn.
    from tqdm.auto import tqdm


class ProgressBar(Callback):
    """A bar of epochs with the last one's measures, and a bar of batches that goes when its epoch ends.

    ``fit`` shows these by itself; ``progress=False`` leaves them out, and an object of this class among its
    callbacks takes their place. In a notebook they are widgets where ipywidgets is installed, else text; on
    a terminal text. Where the output is neither, as the log of a batch job, each epoch ends with a line: a
    record of the logger ``mmiln`` (INFO) if ``logging`` was set up to handle those, else on standard
    error. The bars read nothing from the device.

    For other measures, override :meth:`shown`:

    >>> class F1(ProgressBar):
    ...     def shown(self, logs):
    ...         return {"F1": f"{logs['valid_has0_f1']:.3f}"}
    """

    _epochs: Any = None
    _batches: Any = None

    def shown(self, logs: dict[str, float]) -> dict[str, str]:
        """The measures of the last epoch that the bar of epochs shows."""
        if "valid_mae" not in logs:
            return {"loss": f"{logs['train_total']:.4f}"}
        family = family_in(logs)
        return family.cells(lambda name, measure: measure.text(logs[f"valid_{name}"]), family.paper[:3])

    def on_train_begin(self, model: Learner) -> None:
        """Shows the bar of epochs."""
        self._disable = _disable()
        done = model.history_.epochs
        self._epochs = self._bar("epochs", "epoch", self.plan.epochs, leave=True, initial=done)

    def on_epoch_begin(self, model: Learner, epoch: int) -> None:
        """Shows a bar of batches."""
        self._batches = self._bar(f"epoch {epoch}", "batch", self.plan.batches, leave=False, initial=0)

    def on_batch_end(self, model: Learner, epoch: int, batch: int) -> None:
        """Moves the bar of batches; after a resume it begins in the middle."""
        self._batches.update(batch - self._batches.n)

    def on_epoch_end(self, model: Learner, epoch: int, logs: dict[str, float]) -> None:
        """Moves the bar of epochs."""
        _finish(self._batches)
        measures = self.shown(logs)
        self._epochs.set_postfix(measures, refresh=False)
        self._epochs.update()
        if self._epochs.disable:
            texts = [*(f"{name} {text}" for name, text in measures.items()), f"{logs['seconds']:.1f} s"]
            _tell(f"epoch {epoch} of {self.plan.epochs}: {', '.join(texts)}")

    def on_train_end(self, model: Learner) -> None:
        """Leaves the bar of epochs as it is."""
        _finish(self._epochs)

    def on_exception(self, model: Learner, error: BaseException) -> None:
        """Leaves both bars where they are."""
        for bar in (self._batches, self._epochs):
            if bar is not None:
                bar.close()

    def _bar(self, what: str, unit: str, total: int | None, *, leave: bool, initial: int) -> Any:
        return tqdm(
            desc=what, unit=unit, total=total, leave=leave, initial=initial,
            disable=self._disable, dynamic_ncols=True,
        )  # fmt: skip


def _disable() -> bool | None:
    """The ``disable`` of tqdm: False in a notebook; else None, which hides bars without a terminal."""
    from rich.console import Console

    return False if Console().is_jupyter else None


def _tell(line: str) -> None:
    """Gives a line to the logger of the package where the user wants its records, else to standard error."""
    logger = logging.getLogger("mmiln")
    if logger.hasHandlers() and logger.isEnabledFor(logging.INFO):
        logger.info(line)
    else:
        print(line, file=sys.stderr, flush=True)


def _finish(bar: Any) -> None:
    """Closes a bar as complete: tqdm paints one red that ends early, and stopping early is no failure."""
    bar.total = bar.n
    bar.close()
