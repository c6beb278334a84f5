"""The training step on a card: batches copied ahead of time, launches captured as CUDA graphs."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._core import Batch, Core

# Records the launches of a call; gives a function that replays them, and the result, which each replay fills.
Capture = Callable[[Callable[[], Tensor]], tuple[Callable[[], None], Tensor]]

# Each graph keeps the memory of its batch; a loader with many shapes would fill the card.
MOST_GRAPHS = 64


class Graph(NamedTuple):
    """A captured step: the batch that it reads, a function that replays it, the losses that it writes."""

    batch: Batch
    replay: Callable[[], None]
    losses: Tensor


class Steps:
    """Training steps of a run. The second batch of a shape is captured as a graph, later ones replay it.

    A shape is :meth:`Batch.shapes` and whether the optimiser steps. The same launches run on the
    same sizes with and without a graph, so results are equal to the bit. Where capturing fails, steps are
    launched one by one and a warning says why.
    """

    def __init__(self, core: Core, capture: Capture) -> None:
        self._core = core
        self._capture: Capture | None = capture
        self._graphs: dict[tuple[object, ...], Graph | None] = {}
        if reason := core.not_capturable():
            self._give_up(reason)

    def __call__(self, batch: Batch) -> Tensor:
        """Trains on one micro-batch; task, sim, diff and total on the device, ``(4,)``."""
        self._core.prepare_step(batch)
        losses = self._compute(batch)
        self._core.finish_step()
        return losses

    def _compute(self, batch: Batch) -> Tensor:
        if self._capture is None:
            return self._core.compute_step(batch)
        shape = (*batch.shapes(), self._core.step_is_last_of_window())
        if shape not in self._graphs:
            # The first step of a shape compiles, allocates and selects algorithms, which a capture must not.
            if len(self._graphs) < MOST_GRAPHS:
                self._graphs[shape] = None
            return self._core.compute_step(batch)
        graph = self._graphs[shape] or self._captured(batch)
        if graph is None:
            return self._core.compute_step(batch)
        self._graphs[shape] = graph
        graph.batch.copy_from(batch)
        graph.replay()
        return graph.losses.clone()

    def _captured(self, batch: Batch) -> Graph | None:
        assert self._capture is not None
        own = batch.copy()
        try:
            replay, losses = self._capture(lambda: self._core.compute_step(own))
        except Exception as error:
            # If a step fails, so does the end of its capture, whose error has the step's as its context.
            self._give_up(str(error.__context__ or error).strip().split("\n")[0])
            return None
        return Graph(own, replay, losses)

    def _give_up(self, reason: str) -> None:
        self._capture = None
        self._graphs.clear()
        warnings.warn(
            f"training steps are launched one by one, which is slower, not captured as CUDA graphs: {reason}",
            RuntimeWarning,
            stacklevel=2,
        )


# torch allows one capture at a time in a process.
_CAPTURING = threading.Lock()


def cuda_capture(device: str) -> Capture:
    """Captures on a device through torch and its allocator; all graphs share one memory pool."""
    with torch.cuda.device(device):
        pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def capture(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        graph = torch.cuda.CUDAGraph()
        # Thread-local: CUDA calls of other threads do not break the capture.
        recording = torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local")
        # Restores the caller's stream even if ending the capture fails.
        callers = torch.cuda.stream(torch.cuda.current_stream(device))
        with _CAPTURING, torch.cuda.device(device), callers, recording:
            losses = work()
        return graph.replay, losses

    return capture


def packed_ahead(batches: Iterable[Any], pack: Callable[[Any], Batch], device: str) -> Iterator[Batch]:
    """Packs each batch a step before it is needed: in a thread, or onto a card by a stream of its own.

    An error in a batch or in its loader is raised at that batch's turn, after the steps before it.
    """
    if not device.startswith("cuda"):
        yield from _packed_in_a_thread(batches, pack)
        return
    side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    supply = iter(batches)

    def start() -> tuple[Batch, torch.cuda.Event] | Exception | None:
        """The next batch, being copied to the card; ``None`` after the last."""
        try:
            batch = next(supply)
            with torch.cuda.stream(side):
                packed = pack(batch)
                return packed, side.record_event()
        except StopIteration:
            return None
        except Exception as error:
            return error

    def ready(started: tuple[Batch, torch.cuda.Event] | Exception) -> Batch:
        if isinstance(started, Exception):
            raise started
        packed, copied = started
        stream = torch.cuda.current_stream(device)
        stream.wait_event(copied)
        packed.bytes().record_stream(stream)
        return packed

    waiting = start()
    while waiting is not None:
        following = None if isinstance(waiting, Exception) else start()
        yield ready(waiting)
        waiting = following


def _packed_in_a_thread(batches: Iterable[Any], pack: Callable[[Any], Batch]) -> Iterator[Batch]:
    """Draws batches in the caller's thread, as a user's loader may need it, and packs them in another."""
    supply = iter(batches)
    with ThreadPoolExecutor(1, thread_name_prefix="mmiln-pack") as thread:

        def start() -> Future[Batch]:
            """The next batch, being packed; after the last, a future whose exception is StopIteration."""
            try:
                return thread.submit(pack, next(supply))
            except Exception as error:
                failed: Future[Batch] = Future()
                failed.set_exception(error)
                return failed

        waiting = start()
        while not isinstance(waiting.exception(), StopIteration):
            packed = waiting.result()
            waiting = start()
            yield packed
