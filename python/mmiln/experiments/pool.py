"""Performs several runs at a time, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .experiment import Experiment, Task

LOG = "log.txt"

OnEvent = Callable[["Job", dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """A task, and the folder of its results."""

    experiment: Experiment
    task: Task
    folder: Path
    test: bool = True

    def message(self, threads: int) -> dict[str, Any]:
        """The job as plain data, for the process that performs it."""
        return {
            "experiment": self.experiment.model_dump(mode="json"),
            "task": self.task.model_dump(mode="json"),
            "folder": str(self.folder),
            "test": self.test,
            "threads": threads,
            "resume": "auto",
        }

    def ended(self, event: dict[str, Any]) -> Failure | Job:
        """The outcome that the last event of a job stands for."""
        return self if event["event"] == "done" else Failure(self, event["kind"], event["message"])


@dataclass(frozen=True)
class Failure:
    """A job that failed, with what is known of the reason."""

    job: Job
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.job.task}: {self.kind}: {self.message} (log: {self.job.folder / LOG})"


@dataclass
class Pool:
    """Runs jobs in ``jobs`` processes that share the processor's cores.

    Results do not depend on ``jobs``: kernels give the same bits on any number of threads.
    """

    jobs: int
    _running: set[subprocess.Popen[str]] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def __post_init__(self) -> None:
        check_jobs(self.jobs)

    def run(self, jobs: Iterable[Job], on_event: OnEvent) -> Iterator[Failure | Job]:
        """Yields each job or failure as it ends. Takes the next of ``jobs`` when a process is free.

        ``on_event`` is called with the events of jobs. If the caller stops early, running jobs are stopped.
        """
        supply = iter(jobs)
        waiting: set[Future[Failure | Job]] = set()
        with ThreadPoolExecutor(self.jobs) as threads:
            try:
                while True:
                    while len(waiting) < self.jobs and (job := next(supply, None)) is not None:
                        waiting.add(threads.submit(self._perform, job, on_event))
                    if not waiting:
                        return
                    finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in finished:
                        yield future.result()
            finally:
                self._stop()

    def _perform(self, job: Job, on_event: OnEvent) -> Failure | Job:
        job.folder.mkdir(parents=True, exist_ok=True)
        with (job.folder / LOG).open("w", encoding="utf-8") as log, self._started(log) as process:
            assert process.stdin is not None and process.stdout is not None
            ended: dict[str, Any] = {}
            try:
                # The pipe stays open: the worker ends when it closes.
                process.stdin.write(json.dumps(job.message(max(1, cores() // self.jobs))) + "\n")
                process.stdin.flush()
                for line in process.stdout:
                    event = json.loads(line)
                    ended = event if event["event"] in ("done", "error") else {}
                    on_event(job, event)
            except BrokenPipeError:
                pass
            process.stdin.close()
            code = process.wait()
        with self._lock:
            self._running.discard(process)
        if ended:
            return job.ended(ended)
        how = f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"
        return Failure(job, "Ended", f"the process {how}")

    def _started(self, log: Any) -> subprocess.Popen[str]:
        with self._lock:
            if self._stopped:
                raise InterruptedError
            process = subprocess.Popen(
                [sys.executable, "-m", "mmiln.experiments.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,  # Ctrl-C reaches this process alone, which stops the others
            )
            self._running.add(process)
            return process

    def _stop(self) -> None:
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.kill()


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_jobs(jobs: int) -> None:
    """Raises :class:`ConfigError` where ``jobs`` is below 1."""
    if not isinstance(jobs, int) or jobs < 1:
        raise ConfigError(f"jobs must be at least 1, got {jobs!r}")
