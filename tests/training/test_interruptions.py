"""Ctrl-C at any moment, memory that runs out, loaders that break: the model is whole, and nothing is lost."""

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import mmiln
from mmiln.errors import BatchError
from support.small_runs import build, result, run, setting
from support.waiting import HANG_S

EPOCHS = 6


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(24, 12, 12)


@pytest.fixture(scope="module")
def undisturbed(data):
    return run(data, epochs=EPOCHS)


# Ctrl-C


@contextmanager
def ctrl_c_after(seconds: float) -> Iterator[None]:
    """SIGINT in the middle of whatever the block does by then."""
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    # A shell's background jobs begin with SIGINT ignored.
    ctrl_c = signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, ctrl_c)
        signal.signal(signal.SIGALRM, before)


def interrupted(times: int, data: mmiln.data.Dataset, undisturbed: dict[str, Any], folder: Path) -> None:
    """A run that is interrupted again and again, each time goes on, and ends as if it never was."""
    rng = random.Random(times)
    before = setting()
    hits, number = 0, 0
    while hits < times:
        number += 1
        while True:  # one run, from its start to its end
            model = build()
            try:
                with ctrl_c_after(rng.uniform(1e-4, 0.25)):
                    history = model.fit(
                        data.train,
                        data.valid,
                        epochs=EPOCHS,
                        progress=bool(number % 2),
                        checkpoint_dir=folder / str(number),
                        checkpoint_every=0,
                    )
                break
            except KeyboardInterrupt:
                hits += 1
            assert setting() == before
            assert len(model.predict(data.valid)) == 12
            if hits % 4 == 0:  # and trains on as a new model with its weights would
                fresh = build()
                fresh.predict(data.valid)
                fresh.load_state_dict(model.state_dict())
                again = [one.fit(data.train, epochs=1, progress=False) for one in (model, fresh)]
                assert again[0]["train_total"] == again[1]["train_total"]
        assert result(model, history) == undisturbed


# Python drops a Ctrl-C that comes while an object is being deleted, and says so by a warning.
IGNORED = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@IGNORED
def test_ctrl_c_at_some_moments(data, undisturbed, tmp_path):
    interrupted(40, data, undisturbed, tmp_path)


@IGNORED
@pytest.mark.slow
def test_ctrl_c_at_three_hundred_moments(data, undisturbed, tmp_path):
    interrupted(300, data, undisturbed, tmp_path)


@IGNORED
def test_ctrl_c_while_saving(data, tmp_path):
    """The old files or the new ones, never half of each."""
    rng = random.Random(1)
    models = [build(seed=seed) for seed in (1, 2)]
    for model in models:
        model.fit(data.train, epochs=1, progress=False)
    scores = [model.predict(data.test).score.tolist() for model in models]
    models[0].save_pretrained(tmp_path)
    for _ in range(60):
        try:
            with ctrl_c_after(rng.uniform(1e-4, 0.01)):
                models[1].save_pretrained(tmp_path)
        except KeyboardInterrupt:
            pass
        assert mmiln.Model.from_pretrained(tmp_path).predict(data.test).score.tolist() in scores
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "README.md",
            "config.json",
            "model.safetensors",
        ]
        models[0].save_pretrained(tmp_path)


# Memory


# Large batches need more memory than is allowed; small ones must still be possible afterwards.
OUT_OF_MEMORY = """
import resource, sys
import numpy as np, torch
import mmiln

torch.set_num_threads(2)
free = int(sys.argv[1]) << 20

def batch(size, length):
    rng = np.random.default_rng(0)
    frames = {m: [rng.normal(size=(length, w)).astype(np.float32) for _ in range(size)]
              for m, w in (("text", 7), ("audio", 5), ("vision", 6))}
    return frames | {"labels": rng.uniform(-3, 3, size), "index": np.arange(size) % 3}

def model():
    return mmiln.Model("mosi", text_dim=7, audio_dim=5, vision_dim=6, num_layers=2, accumulate=1, seed=1)

small, large = batch(3, 4), batch(16, 3000)
built, other = model(), model()
built.fit([small], epochs=1, progress=False)
before = {name: weight.clone() for name, weight in built.state_dict().items()}
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
_, hard = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (now + free, hard))
said = []
fit = lambda batch: built.fit([batch], epochs=1, progress=False)
for what in (built.predict, built.losses, built.gradients, fit):
    try:
        what(large)
        said.append("fits")
    except MemoryError as error:
        said.append("MemoryError")
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
if said[-1] != "fits":
    assert all(torch.equal(weight, before[name]) for name, weight in built.state_dict().items())
other.load_state_dict(built.state_dict())
histories = [m.fit([small, small], epochs=2, progress=False) for m in (built, other)]
assert histories[0]["train_total"] == histories[1]["train_total"]
print(*said)
"""


@pytest.mark.parametrize("megabytes", [0, 30, 250])
def test_memory_that_runs_out(megabytes):
    done = subprocess.run(
        [sys.executable, "-c", OUT_OF_MEMORY, str(megabytes)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "MemoryError"


# Loaders


def good(data: mmiln.data.Dataset) -> list[dict[str, Any]]:
    return list(data.train.loader(7))


class Late:
    """A loader that is in order for an epoch."""

    def __init__(self, batches: list[Any], then: Any) -> None:
        self.dataset = range(24)
        self.batches, self.then, self.passes = batches, then, 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(self.batches) if self.passes == 1 else self.then()


def breaks(batches: list[Any], error: BaseException) -> Iterator[Any]:
    yield from batches
    raise error


@pytest.mark.parametrize("number", [0, 1, 3])
@pytest.mark.parametrize(
    "error", [OSError("disk"), MemoryError("loader"), StopAsyncIteration(), SystemExit(3), GeneratorExit()]
)
def test_a_loader_that_raises_in_the_second_epoch(number, error, data):
    batches = good(data)
    model = build()
    with pytest.raises(type(error)) as caught:
        model.fit(Late(batches, lambda: breaks(batches[:number], error)), epochs=3, progress=False)
    assert caught.value is error
    assert len(model.history_["train_total"]) == 1
    assert len(model.predict(data.test)) == 12
    assert model.fit(batches, epochs=1, progress=False)["train_total"]


@pytest.mark.parametrize("empty", [list, lambda: iter(())])
def test_a_loader_that_yields_nothing(empty, data):
    model = build()
    for loader in (empty(), Late(good(data), lambda: iter(()))):
        with pytest.raises(BatchError):
            model.fit(loader, epochs=2, progress=False)
    for call in (model.predict, model.evaluate):
        with pytest.raises(BatchError, match="no batch"):
            call(empty())
    assert model.fit(good(data), epochs=1, progress=False)["train_total"]


@pytest.mark.parametrize(
    "wrong", [None, 3, {}, {"text": None}, {"text": [[1.0]]}, {"nonsense": 1}, [], "text", float("nan")]
)
def test_a_loader_that_yields_something_else_half_way(wrong, data):
    batches = good(data)
    model = build()
    model.fit(batches, epochs=1, progress=False)
    before = model.state_dict()
    with pytest.raises(BatchError):
        model.fit(Late([*batches[:2], wrong], lambda: iter(batches)), epochs=2, progress=False)
    assert not torch.equal(before["text.conv.weight"], model.state_dict()["text.conv.weight"])
    assert model.fit(batches, epochs=1, progress=False)["train_total"]


def test_a_slow_reader_is_interrupted_at_once(data):
    """Ctrl-C reaches a loader that waits for its data."""

    def waits() -> Iterator[Any]:
        yield good(data)[0]
        with ctrl_c_after(0.01):
            time.sleep(HANG_S)

    model = build()
    with pytest.raises(KeyboardInterrupt):
        model.fit(Late(good(data), waits), epochs=2, progress=False)
    assert len(model.predict(data.test)) == 12
