"""One run in a process of its own: a job comes in as JSON, what happens goes out as lines of JSON.

``python -m mmiln.experiments.worker``, started by :mod:`mmiln.experiments.pool`. A process a run has a
peak memory of its own, can be stopped, and takes nothing down with it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..callbacks import Callback
from ..errors import MmilnError

if TYPE_CHECKING:
    from ..training.estimator import Estimator

Say = Callable[[dict[str, Any]], object]  # takes an event


class SayEpochs(Callback):
    """Says every finished epoch."""

    def __init__(self, say: Say) -> None:
        self.say = say

    def on_epoch_end(self, model: Estimator, epoch: int, logs: dict[str, float]) -> None:
        """Its number and the measure that chooses."""
        self.say({"event": "epoch", "epoch": epoch, "mae": logs["valid_mae"]})


def main() -> None:
    """Performs the job that stands in the first line of the standard input."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print belongs to the log

    def say(event: dict[str, Any]) -> None:
        print(json.dumps(event), file=events, flush=True)

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ended = attempt(job, say)
    say(ended)
    if ended["event"] == "error":
        sys.exit(1)


def attempt(job: dict[str, Any], say: Say) -> dict[str, Any]:
    """Performs a job and gives the event of its end; an error's traceback goes to the standard error."""
    try:
        perform(job, SayEpochs(say))
    except Exception as error:
        traceback.print_exc()
        known = isinstance(error, MmilnError)
        return {"event": "error", "kind": type(error).__name__, "known": known, "message": str(error)}
    return {"event": "done"}


def perform(job: dict[str, Any], report: SayEpochs) -> None:
    """Trains and measures one task of an experiment."""
    import torch

    from . import runs
    from .experiment import Experiment, Task

    torch.set_num_threads(job["threads"])
    experiment, task = Experiment.of(job["experiment"]), Task.model_validate(job["task"])
    model = experiment.model(task)
    dataset = experiment.data(task, test=job["test"])
    report.say({"event": "loaded"})
    runs.train(
        dataset,
        model,
        Path(job["folder"]),
        epochs=experiment.epochs,
        progress=False,
        callbacks=[report],
        name=task.dataset,
        row=task.row,
        protocol=experiment.protocol(task),
        fold=task.fold,
        keep_model=experiment.keep_models,
        resume=job["resume"],
    )


def _end_with_parent() -> None:
    """The parent holds the other end of the standard input: its end is the parent's."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
