"""Performs several runs at a time on the machines of a Ray cluster, each in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from ..errors import ConfigError, DeviceError, StateError
from ..files import write
from .pool import LOG, Failure, Job, OnEvent, check_jobs
from .runs import RECORD
from .worker import attempt

RETRIES: Final = 3  # of a run whose process or machine died
POLL: Final = 0.2  # seconds between two fetches of events
GRACE: Final = 10.0  # seconds in which cancelled runs may clear up

Files = dict[str, bytes]  # by path below a run's folder


@dataclass
class RayPool:
    """Runs jobs as tasks of Ray (https://docs.ray.io), ``jobs`` at a time over all machines.

    A run gets its share of the cluster's cores, at most those of one machine, and one GPU where its model
    is on CUDA. It writes to a temporary folder of its machine; Ray transfers the files to this process, which
    writes them where a local run would have. A run whose process or machine dies is restarted, at most three
    times.

    Every machine needs the same versions of Python, torch, Ray and mmiln, and data sets and text encoders at
    the same paths. A relative path starts at this process's working directory, which then must be there too;
    environment variables are those that Ray was started with.

    Attributes:
        jobs: Number of runs at a time.
        address: Address of the cluster; None for the one that ``RAY_ADDRESS`` names or that runs on this
            machine, or else for a new one of this machine alone.
    """

    jobs: int
    address: str | None = None
    _ray: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_jobs(self.jobs)
        try:
            import ray
        except ImportError:
            raise ConfigError('backend "ray" needs the package ray: pip install "mmiln[ray]"') from None
        self._ray = ray

    def run(self, jobs: Iterable[Job], on_event: OnEvent) -> Iterator[Failure | Job]:
        """Yields each job or failure as it ends. Takes the next of ``jobs`` when there is room for it.

        ``on_event`` is called with the events of jobs. If the caller stops early, running jobs are cancelled.

        Raises:
            ConfigError: No cluster answers at the address.
            StateError: This process is connected to Ray already, and an address is given.
            DeviceError: A model is on CUDA, and no machine has a card.
        """
        supply = iter(jobs)
        running: dict[Any, Job] = {}  # by the reference to its outcome
        with self._connected():
            events = self._start_events()
            threads = self._threads()
            try:
                while True:
                    while len(running) < self.jobs and (job := next(supply, None)) is not None:
                        running[self._submit(job, threads, events)] = job
                    if not running:
                        return
                    finished, _ = self._ray.wait(list(running), timeout=POLL)
                    for where, event in self._ray.get(events.take.remote()):
                        on_event(next(job for job in running.values() if str(job.folder) == where), event)
                    for reference in finished:
                        yield self._collect(running.pop(reference), reference)
            finally:
                self._cancel(list(running))

    @contextlib.contextmanager
    def _connected(self) -> Iterator[None]:
        """Connects to the cluster, and restores the previous state afterwards."""
        if self._ray.is_initialized():
            if self.address is not None:
                raise StateError(
                    "this process is connected to Ray already: give no address, or call ray.shutdown() before"
                )
            yield
            return
        try:
            self._ray.init(self.address, log_to_driver=False, logging_level="warning")
        except ConnectionError as error:
            raise ConfigError(
                f"expected a Ray cluster at {self.address or os.environ.get('RAY_ADDRESS')}, "
                f"and none answers: start one with `ray start --head` ({error})"
            ) from None
        try:
            yield
        finally:
            self._ray.shutdown()

    def _start_events(self) -> Any:
        """An actor on this machine, so that it survives the death of any other machine."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        return self._ray.remote(**options)(Events).remote()

    def _threads(self) -> int:
        """The number of cores of each run."""
        cores = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
        return max(1, min(max(cores), sum(cores) // self.jobs))

    def _submit(self, job: Job, threads: int, events: Any) -> Any:
        on_cuda = str(job.experiment.arguments(job.task).get("device", "cpu")).startswith("cuda")
        if on_cuda and not self._ray.cluster_resources().get("GPU"):
            raise DeviceError(f"{job.task} is to run on CUDA, and no machine of the Ray cluster has a card")
        task = self._ray.remote(
            num_cpus=threads,
            num_gpus=int(on_cuda),
            max_calls=1,  # a new process for each run
            max_retries=RETRIES,  # if its process or machine dies; our own errors are returned as results
        )(perform)
        return task.remote(job.message(threads), os.getcwd(), events)

    def _collect(self, job: Job, reference: Any) -> Failure | Job:
        """The outcome of a task, whose files are written to their place."""
        try:
            ended, files = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:  # died too often, or mmiln is not installed there
            ended = {"event": "error", "kind": type(error).__name__, "message": str(error).partition("\n")[0]}
            files = {LOG: str(error).encode()}
        place(files, job.folder)
        return job.ended(ended)

    def _cancel(self, references: list[Any]) -> None:
        for reference in references:
            self._ray.cancel(reference)  # like Ctrl-C in its process
        if references:
            _, stubborn = self._ray.wait(references, num_returns=len(references), timeout=GRACE)
            for reference in stubborn:
                self._ray.cancel(reference, force=True)


class Events:
    """Queues the events of runs until they are taken."""

    def __init__(self) -> None:
        self._said: list[tuple[str, dict[str, Any]]] = []

    def add(self, where: str, event: dict[str, Any]) -> None:
        """Queues an event of the run with this folder."""
        self._said.append((where, event))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """Removes and returns the queued events, in order."""
        said, self._said = self._said, []
        return said


def place(files: Files, folder: Path) -> None:
    """Writes the files of a run, each whole or not at all, the record last."""
    for name in sorted(files, key=lambda name: (name == RECORD, name)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, partial(Path.write_bytes, data=files[name]))


def perform(message: dict[str, Any], directory: str, events: Any) -> tuple[dict[str, Any], Files]:
    """Performs a job in a Ray process; returns the event of its end and the files that it wrote.

    The process must end afterwards, as its output goes to the run's log.
    """
    import ray

    where = message["folder"]
    with TemporaryDirectory(prefix="mmiln-") as temporary:
        folder = Path(temporary, "run")
        folder.mkdir()
        # Else an empty folder, so that a relative path fails rather than finds another file.
        os.chdir(directory if os.path.isdir(directory) else temporary)
        sys.stdout.flush()
        with (folder / LOG).open("w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        # Waits, so that all events of a run arrive before its end.
        ended = attempt(
            # Without checkpoints, as no later attempt would find them.
            message | {"folder": str(folder), "resume": None},
            lambda event: ray.get(events.add.remote(where, event)),
        )
        sys.stdout.flush()
        sys.stderr.flush()
        if ended.get("kind") == "MissingFileError":
            ended["message"] += (
                f" (on {socket.gethostname()}: every machine of the cluster needs "
                f"data and text encoders at the same path, relative ones below {directory})"
            )
        paths = [path for path in folder.rglob("*") if path.is_file()]
        os.chdir("/")  # leaves the folder that is removed
        return ended, {str(path.relative_to(folder)): path.read_bytes() for path in paths}
