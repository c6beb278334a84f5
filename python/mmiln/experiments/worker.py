"""One run in a process of its own: reads a job as JSON, and writes events as lines of JSON.

``python -m mmiln.experiments.worker``, started by :mod:`mmiln.experiments.pool`. With a process for each
run, peak memory is measured for it alone, it can be stopped, and its crash ends nothing else.
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
    """Reports every finished epoch."""

    def __init__(self, say: Say) -> None:
        self.say = say

    def on_epoch_end(self, model: Estimator, epoch: int, logs: dict[str, float]) -> None:
        """Reports the epoch's number and the measure that selects."""
        self.say({"event": "epoch", "epoch": epoch, "mae": logs["valid_mae"]})


def main() -> None:
    """Performs the job in the first line of the standard input."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # output of libraries goes to the log

    def say(event: dict[str, Any]) -> None:
        print(json.dumps(event), file=events, flush=True)

    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    ended = attempt(job, say)
    say(ended)
    if ended["event"] == "error":
        sys.exit(1)


def attempt(job: dict[str, Any], say: Say) -> dict[str, Any]:
    """Performs a job and returns the event of its end; writes an error's traceback to standard error."""
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
    """Ends this process when standard input closes, as the parent holds its other end."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
