"""One model in several threads, and in processes that were forked or spawned."""

import copy
import multiprocessing
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

import mmiln
from mmiln.callbacks import Callback
from mmiln.errors import StateError
from support.small_runs import build, result, run
from support.waiting import HANG_S


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(24, 12, 12)


@pytest.fixture
def fitted(data):
    model = build()
    model.fit(data.train, data.valid, epochs=1, progress=False)
    return model


@pytest.fixture(params=[1, 2])
def threads(request):
    """Threads of the kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def in_threads(count: int, work: Callable[[], Any]) -> list[Any]:
    """What each of several threads gets at the same time."""
    results: list[Any] = []
    ready = threading.Barrier(count)

    def one() -> None:
        ready.wait()
        results.append(work())

    everyone = [threading.Thread(target=one) for _ in range(count)]
    for thread in everyone:
        thread.start()
    for thread in everyone:
        thread.join(HANG_S)
    assert len(results) == count
    return results


# Threads


@pytest.mark.usefixtures("threads")
def test_one_model_called_from_several_threads(fitted, data):
    alone = fitted.predict(data.test).score.tobytes()
    found = in_threads(4, lambda: {fitted.predict(data.test).score.tobytes() for _ in range(10)})
    assert all(scores == {alone} for scores in found)


@pytest.mark.usefixtures("threads")
def test_others_may_look_at_a_model_in_training(data):
    undisturbed = run(data)
    model, stop = build(), threading.Event()
    model.predict(data.test)

    def look() -> None:
        while not stop.is_set():
            assert len(model.predict(data.test)) == 12
            model.losses(next(iter(data.train.loader(5))))
            model.gradients(next(iter(data.train.loader(5))))
            assert model.state_dict()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        history = model.fit(data.train, data.valid, epochs=4, progress=False)
    finally:
        stop.set()
        looking.join()
    assert result(model, history) == undisturbed


def test_a_model_is_trained_by_one_at_a_time(data):
    model, waiting, go_on = build(), threading.Event(), threading.Event()

    class Wait(Callback):
        def on_epoch_begin(self, model, epoch):
            waiting.set()
            go_on.wait(HANG_S)

    fit = {"epochs": 1, "progress": False}
    first = threading.Thread(target=model.fit, args=(data.train,), kwargs={**fit, "callbacks": [Wait()]})
    first.start()
    waiting.wait(HANG_S)
    with pytest.raises(StateError, match="being trained already"):
        model.fit(data.train, **fit)
    go_on.set()
    first.join(HANG_S)
    assert model.fit(data.train, **fit)["train_total"]


def test_a_callback_does_not_train_the_model_that_calls_it(data):
    class Again(Callback):
        def on_batch_end(self, model, epoch, batch):
            model.fit(data.train, epochs=1, progress=False)

    model = build()
    with pytest.raises(StateError, match="being trained already"):
        model.fit(data.train, epochs=1, progress=False, callbacks=[Again()])
    assert model.fit(data.train, epochs=1, progress=False)["train_total"]


def test_the_first_use_in_several_threads_makes_one_set_of_weights(data):
    for _ in range(5):
        model = build()
        cores = in_threads(4, lambda m=model: (m.predict(data.test).score.tobytes(), id(m.core)))
        assert len(set(cores)) == 1


# Processes


def in_process(method: str, work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of ``work`` in another process; fails where that hangs or dies."""
    context = multiprocessing.get_context(method)
    there, here = context.Pipe(False)
    process = context.Process(target=_send, args=(here, work, *arguments))
    with warnings.catch_warnings():
        # Python 3.12 says that forking beside threads is dangerous, which is what is tried here.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    here.close()
    try:
        assert there.poll(HANG_S), "the process hangs"
        try:
            return there.recv()
        except EOFError:
            process.join()
            pytest.fail(f"the process died with {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _send(pipe: Any, work: Callable[..., Any], *arguments: Any) -> None:
    torch.set_num_threads(2)
    try:
        outcome = work(*arguments)
    except StateError as error:
        outcome = f"StateError: {error}"
    pipe.send(outcome)
    pipe.close()


def predict(model: mmiln.Model, split: mmiln.data.Split) -> bytes:
    return model.predict(split).score.tobytes()


def train_on(model: mmiln.Model, data: mmiln.data.Dataset) -> dict[str, Any]:
    return result(model, model.fit(data.train, data.valid, epochs=2, progress=False))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_used_model_in_another_process(method, fitted, data):
    assert in_process(method, predict, fitted, data.test) == predict(fitted, data.test)
    there = in_process(method, train_on, fitted, data)
    assert there["weights"] == train_on(fitted, data)["weights"]


def test_forked_while_threads_are_at_work(data, fitted):
    """Whatever lock a thread holds at that moment, the child does not wait for it for ever."""
    model, stop = build(), threading.Event()
    other = predict(fitted, data.test)
    model.predict(data.test)
    large = data.train.subset(list(range(24)) * 8)

    def work() -> None:
        torch.set_num_threads(2)
        while not stop.is_set():
            model.predict(large)

    worker = threading.Thread(target=work)
    worker.start()
    outcomes = set()
    try:
        for _ in range(12):
            time.sleep(0.003)
            assert in_process("fork", predict, fitted, data.test) == other
            outcomes.add(in_process("fork", predict, model, data.test))
    finally:
        stop.set()
        worker.join()
    told = {outcome for outcome in outcomes if isinstance(outcome, str)}
    assert outcomes - told <= {predict(model, data.test)}
    assert all("this process was forked while another thread of its parent used the model" in t for t in told)


class Scored(torch.utils.data.Dataset):
    """Asks a model in the workers of a loader."""

    def __init__(self, model: mmiln.Model, split: mmiln.data.Split) -> None:
        self.model, self.split = model, split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> float:
        return float(self.model.predict(self.split.subset([index])).score[0])


def test_a_used_model_in_the_workers_of_a_loader(fitted, data):
    scores = np.concatenate(
        [batch.numpy() for batch in DataLoader(Scored(fitted, data.test), 4, num_workers=2)]
    )
    assert np.allclose(scores, fitted.predict(data.test).score, atol=1e-6)


def test_training_from_workers_after_use(fitted, data):
    """The same order and the same bits as without workers."""
    histories = []
    for workers in (0, 2):
        model = copy.deepcopy(fitted)
        loader = data.train.loader(7, shuffle=True, seed=4, num_workers=workers)
        histories.append(result(model, model.fit(loader, data.valid, epochs=2, progress=False)))
    assert histories[0] == histories[1]
