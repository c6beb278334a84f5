"""Progress of an experiment: a bar of all runs, and one of epochs for each active run."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from .pool import Failure, Job


class Display:
    """Shows bars on a terminal or in a notebook; elsewhere (a log) a line for each run that ends."""

    def __init__(self, total: int, *, show: bool) -> None:
        self._console = Console(stderr=True, soft_wrap=True)
        interactive = self._console.is_terminal or self._console.is_jupyter
        self._show = show
        self._lines = show and not interactive
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not (show and interactive),
        )
        self._total = total
        self._ended = 0
        self._all = self._progress.add_task("[bold]runs", total=total, note="")
        self._bars: dict[Path, TaskID] = {}
        self._best: dict[Path, float] = {}

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._progress.disable:  # older releases of rich would print an empty line
            self._progress.stop()

    def on_event(self, job: Job, event: dict[str, Any]) -> None:
        """Shows an event of a worker."""
        if event["event"] == "loaded":
            if job.folder in self._bars:  # restarted, as its machine died
                self._progress.remove_task(self._bars[job.folder])
            self._bars[job.folder] = self._progress.add_task(
                str(job.task), total=job.experiment.epochs, note="epochs"
            )
        elif event["event"] == "epoch":
            self._best[job.folder] = min(event["mae"], self._best.get(job.folder, float("inf")))
            note = f"lowest validation MAE {self._best[job.folder]:.4f}"
            self._progress.update(self._bars[job.folder], completed=event["epoch"], note=note)

    def ended(self, result: Job | Failure) -> None:
        """Shows the end of a run."""
        job = result.job if isinstance(result, Failure) else result
        self._ended += 1
        self._progress.advance(self._all)
        if job.folder in self._bars:
            self._progress.remove_task(self._bars.pop(job.folder))
        if isinstance(result, Failure) and self._show:
            self._console.print(f"failed: {result}", markup=False, highlight=False)
        elif self._lines and not isinstance(result, Failure):
            best = self._best.get(job.folder, float("nan"))
            self._console.print(
                f"{self._ended} of {self._total}: {job.task}, lowest validation MAE {best:.4f}",
                highlight=False,
            )
