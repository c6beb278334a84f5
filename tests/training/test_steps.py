"""Which training steps are captured, replayed or launched; tests/gpu has the same with the real core."""

import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from mmiln.training import graphs
from mmiln.training.graphs import Steps, packed_ahead


class Batch:
    """A batch of some shape; its value is what a graph must read anew."""

    def __init__(self, shape: int, value: float) -> None:
        self.shape, self.value = shape, value

    def shapes(self) -> list[int]:
        return [self.shape]

    def copy(self) -> "Batch":
        return Batch(self.shape, self.value)

    def copy_from(self, other: "Batch") -> None:
        assert self.shape == other.shape
        self.value = other.value


class Core:
    """Losses are the batch's value and the step's number, which is prepared outside of what is captured."""

    def __init__(self, accumulate: int = 1, reason: str | None = None) -> None:
        self.accumulate, self.reason = accumulate, reason
        self.step = 0
        self.prepared = -1
        self.calls = 0

    def not_capturable(self) -> str | None:
        return self.reason

    def prepare_step(self, batch: Batch) -> None:
        self.prepared = self.step

    def step_is_last_of_window(self) -> bool:
        return (self.step + 1) % self.accumulate == 0

    def compute_step(self, batch: Batch) -> Tensor:
        self.calls += 1
        return torch.tensor([batch.value, self.prepared, 0.0, 0.0])

    def finish_step(self) -> None:
        self.step += 1


class Recorder:
    """Keeps work for its replays, does none while it records; counts both."""

    def __init__(self) -> None:
        self.captured = self.replayed = 0

    def __call__(self, work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
        losses = torch.zeros(4)
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            losses.copy_(work())

        return replay, losses


def run(core: Core, capture: Any, batches: list[Batch]) -> list[list[float]]:
    steps = Steps(core, capture)
    return [losses.tolist()[:2] for losses in [steps(batch) for batch in batches]]


def given(*shapes: int) -> tuple[list[Batch], list[list[float]]]:
    """Batches, and the losses of a run over them."""
    return [Batch(s, i + 0.5) for i, s in enumerate(shapes)], [[i + 0.5, i] for i in range(len(shapes))]


def test_the_second_of_a_shape_is_captured():
    batches, losses = given(1, 1, 2, 1, 2, 2, 1)
    capture = Recorder()
    assert run(Core(), capture, batches) == losses
    assert (capture.captured, capture.replayed) == (2, 5)


def test_a_step_of_the_optimiser_has_a_graph_of_its_own():
    batches, losses = given(*[1] * 9)
    capture = Recorder()
    assert run(Core(accumulate=3), capture, batches) == losses
    assert (capture.captured, capture.replayed) == (2, 7)


def test_the_number_of_graphs_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graphs, "MOST_GRAPHS", 2)
    batches, losses = given(*[1, 2, 3] * 3)
    capture = Recorder()
    assert run(Core(), capture, batches) == losses
    assert (capture.captured, capture.replayed) == (2, 4)


def test_losses_are_kept_apart():
    batches, _ = given(1, 1, 1)
    found = list(map(Steps(Core(), Recorder()), batches))
    assert [float(losses[0]) for losses in found] == [0.5, 1.5, 2.5]


class Recording:
    """A capture of work that has failed: ending it fails, too."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")


def refuse(work: Callable[[], Tensor]) -> Any:
    with Recording():
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore words")


def test_where_capturing_fails_steps_are_launched():
    batches, losses = given(*[1, 2] * 3)
    core = Core()
    with pytest.warns(RuntimeWarning, match=r"one by one.*: CUDA error: .* is capturing$") as seen:
        assert run(core, refuse, batches) == losses
    assert len(seen) == 1 and core.calls == 6


def test_what_can_not_be_captured_says_why():
    batches, losses = given(1, 1, 1)
    with pytest.warns(RuntimeWarning, match=r"one by one.*: features are kept$"):
        assert run(Core(reason="features are kept"), Recorder(), batches) == losses


class Stream:
    """Stands for a stream of a card; notes what it is asked."""

    def __init__(self, asked: list[str]) -> None:
        self.asked = asked

    def record_event(self) -> str:
        return "copied"

    def wait_event(self, event: str) -> None:
        self.asked.append(event)


class Packed:
    def __init__(self, number: int) -> None:
        self.number = number

    def bytes(self) -> Any:
        return torch.zeros(0)


@pytest.mark.parametrize("where", ["loader", "packing", None])
def test_batches_are_packed_one_ahead(where: str | None, monkeypatch: pytest.MonkeyPatch):
    """An error of the fourth batch is raised after the step on the third."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(done))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(done))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: done.append("kept"))

    def loader() -> Iterator[int]:
        for number in range(6):
            if where == "loader" and number == 3:
                raise LookupError(number)
            yield number

    def pack(number: int) -> Packed:
        if where == "packing" and number == 3:
            raise LookupError(number)
        done.append(f"pack {number}")
        return Packed(number)

    def steps() -> None:
        for packed in packed_ahead(loader(), pack, "cuda"):
            done.append(f"step {packed.number}")

    if where is None:
        steps()
        assert [act for act in done if act.startswith("step")] == [f"step {n}" for n in range(6)]
    else:
        with pytest.raises(LookupError):
            steps()
        assert done[-1] == "step 2"
    assert done[:9] == [
        *("pack 0", "pack 1", "copied", "kept", "step 0"),
        *("pack 2", "copied", "kept", "step 1"),
    ]


@pytest.mark.parametrize("where", [None, "loader", "packing"])
def test_on_the_cpu_a_thread_packs_a_step_ahead(where):
    """The training thread draws batches; an error of the fourth is raised after the third is trained on."""
    done: list[str] = []
    drawn, packed_by = set(), set()

    def loader() -> Iterator[int]:
        for number in range(6):
            drawn.add(threading.get_ident())
            if where == "loader" and number == 3:
                raise LookupError(number)
            yield number

    def pack(number: int) -> Packed:
        packed_by.add(threading.get_ident())
        if where == "packing" and number == 3:
            raise LookupError(number)
        return Packed(number)

    def steps() -> None:
        for packed in packed_ahead(loader(), pack, "cpu"):
            done.append(f"step {packed.number}")

    with nullcontext() if where is None else pytest.raises(LookupError):
        steps()
    assert done == [f"step {n}" for n in range(6 if where is None else 3)]
    assert drawn == {threading.get_ident()}
    assert threading.get_ident() not in packed_by
