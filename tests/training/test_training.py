"""Training: the optimiser against the oracle, determinism, early stopping, interruptions, threads."""

import json
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from reference import batches, configs
from support.training_checks import (
    BERT,
    CALLBACKS,
    DROPOUTS,
    MODALITIES,
    NO_DROPOUT,
    STILL,
    Batch,
    Snapshots,
    check_best_epoch,
    check_interruption,
    check_seeds,
    check_settings,
    check_training,
    check_two_threads,
    same_weights,
    save_bert,
    small,
    some_batches,
)


@pytest.fixture(scope="module")
def data() -> list[Batch]:
    return some_batches(configs.tiny())


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize(
    ("accumulate", "mode", "present"), [(1, "sum", {}), (2, "sum", {"audio_dim": 0}), (2, "mean", {})]
)
def test_weights_after_several_epochs(
    optimizer: str, accumulate: int, mode: str, present: dict, tmp_path: Path
) -> None:
    train = {"optimizer": optimizer, "accumulate": accumulate, "accumulate_mode": mode}
    check_training(train, present, tmp_path)


@pytest.mark.parametrize("present", [{}, {"audio_dim": 0}, {"vision_dim": 0}])
def test_heads_trained_on_human_labels(present: dict, tmp_path: Path) -> None:
    check_training(
        {"optimizer": "adam", "accumulate": 2, "accumulate_mode": "sum", "unimodal_labels": "human"},
        present,
        tmp_path,
    )


@pytest.mark.parametrize("where", [*DROPOUTS, "hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_drops(where: str, tmp_path: Path) -> None:
    """With constant weights, losses of training and evaluation differ with dropout, and only then."""
    config = configs.tiny(text_dim=8, num_layers=1)
    data = some_batches(config, (4,), BERT)
    found = []
    for p in (0.0, 0.5):
        in_bert = {"attention_probs_dropout_prob": 0.0} | ({where: p} if where.endswith("_prob") else {})
        directory = save_bert(tmp_path / str(p), **in_bert)
        changes = {**config, **NO_DROPOUT, **STILL} | ({where: p} if where.endswith("_dropout") else {})
        built = mmiln.Model("mosi", text_encoder=directory, dtype="float64", **changes)
        found.append(built.fit(data, epochs=4, progress=False)["train_total"])
        once = float(built.losses({**data[0], "index": None})["total"])
        # dropout before a unimodal head has an effect only once pseudo-labels differ from the labels
        early = where not in ("audio_dropout", "vision_dropout")
        assert (found[-1][0] == pytest.approx(once, rel=1e-12)) == (p == 0.0 or not early)
        assert len(set(found[-1])) > 1  # new pseudo-labels, and another mask at each step
    assert found[0][-1] != pytest.approx(found[1][-1], rel=1e-6)


def test_dropout_keeps_the_mean() -> None:
    """Over a long utterance the kept frames, scaled up, average to what evaluation sees."""
    config = configs.tiny(audio_dim=0, vision_dim=0)
    batch = batches.random_batch(config, {"text": [20_000]}, 0)
    batch["text"] = [batch["text"][0] * 0.1 + 5]
    long = mmiln.Model("mosi", **{**config, **NO_DROPOUT, **STILL, "embed_dropout": 0.4})
    task = long.fit([batch], epochs=1, progress=False)["train_task"][0]
    expected = float(long.losses(batch)["task"])
    assert task == pytest.approx(expected, rel=0.05)
    assert task != pytest.approx(expected, rel=1e-6)


def split(n: int = 8, name: str = "u") -> mmiln.data.Split:
    (batch,) = some_batches(configs.tiny(), (n,))
    frames = {m: [u.numpy() for u in batch[m]] for m in MODALITIES}
    return mmiln.data.Split([f"{name}{i}" for i in range(n)], batch["labels"].numpy(), **frames)


@pytest.mark.parametrize("loader", ["list", "split"])
def test_the_same_seed_gives_the_same_bits(loader: str, data: list[Batch]) -> None:
    check_seeds(*((data, data) if loader == "list" else (split(), split(name="v"))))


def test_widths_given_or_read_off_the_first_batch() -> None:
    """Whether a model has its weights before `fit` changes nothing."""
    unknown = dict.fromkeys(("text_dim", "audio_dim", "vision_dim"))
    found = [small(batch_size=3), small(batch_size=3), small(batch_size=3, **unknown)]
    found[0].state_dict()
    for built in found:
        built.fit(split(), epochs=2, progress=False)
    assert same_weights(found[0], found[1])
    assert same_weights(found[0], found[2])


def test_global_generators_are_left_alone() -> None:
    def states() -> list[Any]:
        numpy = np.random.get_state()  # noqa: NPY002
        return [torch.get_rng_state().tolist(), *map(str, numpy), numpy[1].tolist(), random.getstate()]

    built, given = small(batch_size=3), split()
    before = states()
    built.fit(given, split(name="v"), epochs=2, progress=False)
    built.predict(given)
    assert states() == before


@contextmanager
def double_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


SETTINGS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default device": lambda: torch.device("meta"),  # stands for set_default_device("cuda")
    "default dtype": double_by_default,
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_callers_settings_do_not_matter(setting: Callable[[], Any], data: list[Batch]) -> None:
    check_settings(setting, data)


def test_inference_mode_does_not_matter(data: list[Batch]) -> None:
    """Runs in a process of its own, as its exit is part of the test."""
    process = multiprocessing.get_context("spawn").Process(target=in_inference_mode, args=(data,))
    process.start()
    process.join()
    assert process.exitcode == 0


def in_inference_mode(data: list[Batch]) -> None:
    torch.set_num_threads(1)
    check_settings(torch.inference_mode, data)


def test_the_best_epoch_is_the_result(data: list[Batch]) -> None:
    check_best_epoch(data)


@pytest.mark.parametrize(("given", "field", "epochs"), [(None, 2, 3), (4, 2, 5), (1, 8, 2), (None, 8, 6)])
def test_patience(given: int | None, field: int, epochs: int, data: list[Batch]) -> None:
    """An equal MAE is no lower one: weights that stay stop after 1 + patience epochs."""
    still = small(patience=field, **STILL)
    history = still.fit(data, data, epochs=6, patience=given, progress=False)
    assert (history.epochs, history.best_epoch) == (epochs, 1)


def test_validation_does_not_train(data: list[Batch]) -> None:
    """Each epoch's weights are those of a run without validation, which ends with its last epoch's."""
    runs = []
    for valid in (None, data, [{**data[0], "labels": -data[0]["labels"]}]):
        seen = Snapshots()
        built = small()
        history = built.fit(data, valid, epochs=4, callbacks=[seen], progress=False)
        runs.append((built, seen.epochs, history, built.pseudo_labels))
    assert runs[0][2].best_epoch is None
    assert same_weights(runs[0][0], runs[0][1][-1])
    for _, epochs, _, labels in runs[1:]:
        assert all(same_weights(a, b) for a, b in zip(epochs, runs[0][1], strict=True))
        for n, y in labels.items():
            np.testing.assert_array_equal(y, runs[0][3][n])


def test_callbacks_come_in_order(data: list[Batch]) -> None:
    events: list[tuple] = []

    class Recorder(mmiln.Callback):
        def __getattribute__(self, event: str) -> Callable[..., None]:
            def note(built: mmiln.Model, *arguments: Any) -> None:
                events.append((event, *arguments))
                if event == "on_epoch_end":
                    assert arguments[1] == {name: values[-1] for name, values in built.history_.items()}

            return note

    history = small().fit(data, data, epochs=2, callbacks=[Recorder(), Recorder()], progress=False)
    expected: list[tuple] = [("on_train_begin",)]
    for epoch in (1, 2):
        logs = {name: values[epoch - 1] for name, values in history.items()}
        assert {"train_task", "train_sim", "train_diff", "train_total", "valid_mae"} <= logs.keys()
        expected += [("on_epoch_begin", epoch), *(("on_batch_end", epoch, number) for number in (1, 2, 3))]
        expected.append(("on_epoch_end", epoch, logs))
    expected.append(("on_train_end",))
    assert events == [event for event in expected for _ in "ab"]


@pytest.mark.parametrize(
    ("where", "error"),
    [*((where, KeyboardInterrupt) for where in (*CALLBACKS, "loader", "valid")), ("loader", LookupError)],
)
def test_an_interrupted_model_is_whole(where: str, error: type[BaseException], data: list[Batch]) -> None:
    check_interruption(where, error, data)


def test_two_models_in_two_threads(data: list[Batch]) -> None:
    check_two_threads(data)


def test_a_step_lets_other_threads_run() -> None:
    config = configs.tiny(d_model=32, num_layers=3)
    built = mmiln.Model("mosi", **config)
    batch = {**batches.random_batch(config, {m: [60] * 16 for m in MODALITIES}, 0), "index": np.arange(16)}
    packed = built.pack(batch)
    built.core.begin_training(16, json.dumps(built.config.train))
    built.core.begin_epoch(1)
    stop, turns = threading.Event(), []

    def count() -> None:
        while not stop.wait(1e-4):
            turns.append(1)

    counter = threading.Thread(target=count)
    counter.start()
    during = 0
    for _ in range(200):  # on a busy machine the other thread may have to wait for its turn at a core
        before = len(turns)
        built.core.train_step(packed)
        during = max(during, len(turns) - before)
        if during >= 5:
            break
    stop.set()
    counter.join()
    assert during >= 5  # a step that held the GIL would let the other have one turn, on its way in
