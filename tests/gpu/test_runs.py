"""Training on a card: the CPU's numbers, the same bits again and as graphs, nothing waited for or leaked."""

import json
import multiprocessing
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmiln
from mmiln.errors import BatchError
from mmiln.training.graphs import Steps, cuda_capture, packed_ahead
from reference import configs
from support import kernels
from support.device_runs import Batch, Counted, Run, begin, eager, graphed, new_model, train
from support.pseudo_labels import labels, random_schedule, replay
from support.training_checks import (
    BERT,
    CALLBACKS,
    RATES,
    STILL,
    check_best_epoch,
    check_interruption,
    check_seeds,
    check_settings,
    check_training,
    check_two_threads,
    save_bert,
    small,
    some_batches,
)
from support.utterances import MOSI, SMALL, ragged

EPOCHS = 4  # over five batches: 20 steps
ACCUMULATE = pytest.mark.parametrize("accumulate", [1, 4])
TEXT = pytest.mark.parametrize("text", ["features", "bert"])
WAYS = pytest.mark.parametrize("way", ["eager", "graphs"])


@pytest.fixture(scope="module")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh small BERT with dropout."""
    dropout = {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    return save_bert(tmp_path_factory.mktemp("bert"), **dropout)


@pytest.fixture
def data() -> list[Batch]:
    return some_batches(configs.tiny())


def tiny(text: str, bert_dir: Path) -> tuple[dict[str, Any], list[Batch]]:
    """A small model with every dropout, and five ragged batches."""
    config = configs.tiny(text_dim=8, embed_dropout=0.1)
    bert = {"text_encoder": bert_dir} if text == "bert" else {}
    data = ragged(config, SMALL, (5, 4, 5, 5, 3), BERT if bert else None)
    return {**config, **RATES, **bert, "accumulate": 1}, data


def preset() -> tuple[dict[str, Any], list[Batch]]:
    """The preset's model over batches of CMU-MOSI's lengths."""
    widths = {"text_dim": 768, "audio_dim": 5, "vision_dim": 20}
    return {**widths, "accumulate": 1}, ragged({**configs.tiny(), **widths}, MOSI, (32,) * 5)


# Numbers


@TEXT
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-2)])
def test_twenty_steps_as_on_the_cpu(
    text: str, dtype: str, tolerance: float, bert_dir: Path, device: str
) -> None:
    settings, data = tiny(text, bert_dir)
    settings |= {"dtype": dtype}
    found = train(new_model(device, **settings), data)
    with kernels.of_the_cpu():
        right = train(new_model("cpu", **settings), data)
    assert len(found.losses) == 20
    moved = right.pseudo_labels["audio"] - torch.cat([batch["labels"] for batch in data])
    assert float(moved.abs().max()) > 0.1
    found.assert_near(right, tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 2e-2)])
def test_twenty_steps_of_the_preset_as_on_the_cpu(dtype: str, tolerance: float, card: str) -> None:
    settings, data = preset()
    settings |= {"dtype": dtype}
    found, right = (train(new_model(name, **settings), data) for name in (card, "cpu"))
    found.assert_near(right, tolerance)


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize(
    ("accumulate", "mode", "present"), [(1, "sum", {}), (2, "sum", {"audio_dim": 0}), (2, "mean", {})]
)
def test_weights_after_several_epochs(
    optimizer: str, accumulate: int, mode: str, present: dict, tmp_path: Path, device: str
) -> None:
    """Weights after `fit` agree with the oracle."""
    train = {"optimizer": optimizer, "accumulate": accumulate, "accumulate_mode": mode}
    check_training(train, present, tmp_path, device=device)


@pytest.mark.parametrize("changes", [{}, {"audio_dim": 0}, {"vision_dim": 0}], ids=["all", "vision", "audio"])
@pytest.mark.parametrize("exclude_zero", [True, False])
def test_pseudo_labels_against_the_oracle(exclude_zero: bool, changes: dict, device: str) -> None:
    config = configs.tiny(exclude_zero=exclude_zero, num_layers=1, **changes)
    replay(random_schedule(config, labels(9), sizes=[4, 3], epochs=5), config, device=device)


@pytest.mark.parametrize("field", ["freeze_audio", "freeze_vision"])
def test_frozen_encoders_as_on_the_cpu(field: str, bert_dir: Path, device: str) -> None:
    settings, data = tiny("features", bert_dir)
    settings |= {"dtype": "float64", field: True}
    found = train(new_model(device, **settings), data)
    with kernels.of_the_cpu():
        right = train(new_model("cpu", **settings), data)
    found.assert_near(right, 1e-8)


@WAYS
def test_weights_of_utterances_as_on_the_cpu(way: str, bert_dir: Path, device: str) -> None:
    settings, data = tiny("features", bert_dir)
    settings |= {"dtype": "float64"}
    data = [{**b, "weights": np.arange(len(b["index"])) + float(i)} for i, b in enumerate(data)]
    found = train(new_model(device, **settings), data, stepping(way, device))
    with kernels.of_the_cpu():
        right = train(new_model("cpu", **settings), data)
    found.assert_near(right, 1e-8)


@ACCUMULATE
def test_a_captured_step_follows_other_rates(accumulate: int, bert_dir: Path, device: str) -> None:
    """Rates that change after steps were captured: the same bits as launched one by one, as on the CPU."""
    settings, data = tiny("features", bert_dir)
    settings |= {"accumulate": accumulate, "dtype": "float64"}

    def changed(device: str, way: str) -> Run:
        model = new_model(device, **settings)
        train_ = model.config.train

        def rated(model: mmiln.Model) -> Any:
            step, count = stepping(way, device)(model), iter(range(10**6))

            def stepped(batch: Any) -> Tensor:
                factor = 0.5 ** (next(count) // 3)
                rates = {name: factor * rate for name, rate in RATES.items()}
                model.core.set_rates(json.dumps(train_ | rates))
                return step(batch)

            return stepped

        return train(model, data, rated)

    one_by_one = changed(device, "eager")
    assert changed(device, "graphs").same_bits(one_by_one)
    assert not one_by_one.same_bits(train(new_model(device, **settings), data))
    with kernels.of_the_cpu():
        one_by_one.assert_near(changed("cpu", "eager"), 1e-8)


# The same bits


@TEXT
@ACCUMULATE
def test_the_same_bits_twice(text: str, accumulate: int, bert_dir: Path, device: str) -> None:
    settings, data = tiny(text, bert_dir)
    settings |= {"accumulate": accumulate}
    first, second = (train(new_model(device, **settings), data) for _ in range(2))
    assert first.same_bits(second)
    assert not first.same_bits(train(new_model(device, **settings | {"seed": 2}), data))


def check_graphs(settings: dict[str, Any], data: list[Batch], device: str) -> None:
    one_by_one = train(new_model(device, **settings), data, epochs=EPOCHS)
    capture = Counted(device)
    as_graphs = train(new_model(device, **settings), data, lambda m: graphed(m, capture), epochs=EPOCHS)
    assert 1 <= capture.captured < len(data)  # batches of other lengths share a graph
    assert capture.replayed >= 2 * len(data)
    assert as_graphs.same_bits(one_by_one)


@TEXT
@ACCUMULATE
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_graphs_change_no_bit(text: str, accumulate: int, dtype: str, bert_dir: Path, device: str) -> None:
    """A graph may be replayed for any lengths, labels, seeds and windows."""
    settings, data = tiny(text, bert_dir)
    check_graphs(settings | {"accumulate": accumulate, "dtype": dtype}, data, device)


@ACCUMULATE
def test_graphs_of_the_preset_change_no_bit(accumulate: int, card: str) -> None:
    settings, data = preset()
    check_graphs(settings | {"accumulate": accumulate}, data, card)


@pytest.mark.parametrize("variant", ["no_mrm", "no_mfm", "no_gate_fusion"])
def test_graphs_of_the_variants_change_no_bit(variant: str, bert_dir: Path, device: str) -> None:
    settings, data = tiny("features", bert_dir)
    check_graphs(settings | {"variant": variant}, data, device)


@WAYS
def test_packing_ahead_changes_no_bit(way: str, bert_dir: Path, device: str) -> None:
    settings, data = tiny("features", bert_dir)

    def run(ahead: bool) -> Run:
        return train(new_model(device, **settings), data, stepping(way, device), ahead=ahead)

    assert run(ahead=True).same_bits(run(ahead=False))


def stepping(way: str, device: str) -> Callable[[mmiln.Model], Any]:
    return eager if way == "eager" else lambda model: graphed(model, Counted(device))


@TEXT
def test_fit_is_such_a_run(text: str, bert_dir: Path, device: str) -> None:
    settings, data = tiny(text, bert_dir)
    settings |= {"accumulate": 2}
    right = train(new_model(device, **settings), data)
    model = new_model(device, **settings)
    history = model.fit(data, epochs=EPOCHS, progress=False)
    weights = {name: weight.cpu() for name, weight in model.state_dict().items()}
    assert all(torch.equal(weights[name], weight) for name, weight in right.weights.items())
    for name, values in model.pseudo_labels.items():
        np.testing.assert_array_equal(values, right.pseudo_labels[name])
    sizes = [len(batch["index"]) for batch in data]
    per_epoch = right.losses.view(EPOCHS, len(data), 4).numpy()
    np.testing.assert_allclose(
        history["train_total"], np.average(per_epoch[..., 3], axis=1, weights=sizes), rtol=1e-6
    )


def test_an_error_comes_in_its_turn(bert_dir: Path, device: str) -> None:
    """A batch that can't be packed stops a run after the steps before it, not one earlier."""
    settings, data = tiny("features", bert_dir)
    model = new_model(device, **settings)
    given = [data[0], data[1], {**data[2], "audio": None}, data[3]]
    packed = packed_ahead(given, model.pack, device)
    assert [len(next(packed)), len(next(packed))] == [5, 4]
    with pytest.raises(BatchError, match="audio"):
        next(packed)


# Where capturing fails


def broken(work: Callable[[], Tensor]) -> Any:
    raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore words")


def test_a_notice_where_capturing_fails(bert_dir: Path, device: str) -> None:
    settings, data = tiny("features", bert_dir)
    right = train(new_model(device, **settings), data)
    with pytest.warns(RuntimeWarning, match=r"one by one.*: CUDA error.*is capturing$") as seen:
        found = train(new_model(device, **settings), data, lambda model: graphed(model, broken))
    assert len(seen) == 1
    assert found.same_bits(right)


def test_after_a_capture_that_cuda_refuses(card: str) -> None:
    """Runs in a process of its own, as the card's context may be lost."""
    process = multiprocessing.get_context("spawn").Process(target=_refused)
    process.start()
    process.join()
    assert process.exitcode == 0


def _refused() -> None:
    capture = cuda_capture("cuda")

    def waiting(work: Callable[[], Tensor]) -> Any:
        return capture(lambda: work() * work().sum().item())  # which waits for the card

    settings = {**configs.tiny(), **RATES, "accumulate": 1}
    data = ragged(settings, SMALL, (5, 4, 5, 5, 3))
    right = train(new_model("cuda", **settings), data)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = train(new_model("cuda", **settings), data, lambda model: graphed(model, waiting))
    assert any("one by one" in str(warning.message) for warning in seen)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert found.same_bits(right)


# What a step must not do


@contextmanager
def no_waiting() -> Iterator[None]:
    """Torch raises where the CPU would wait for the card."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@WAYS
@TEXT
def test_no_step_waits_for_the_card(way: str, text: str, bert_dir: Path, device: str) -> None:
    """Neither a step nor packing nor the end of an epoch waits."""
    settings, data = tiny(text, bert_dir)
    model = new_model(device, **settings | {"accumulate": 2})
    begin(model, data)
    take = stepping(way, device)(model)
    for epoch in (1, 2, 3, 4):  # the first compile, allocate and capture
        model.core.begin_epoch(epoch)
        with no_waiting() if epoch > 3 and device == "cuda" else nullcontext():
            losses = [take(packed) for packed in packed_ahead(data, model.pack, device)]
            model.core.end_epoch()
    assert torch.stack(losses).isfinite().all()


@contextmanager
def steady_memory(allowed: int) -> Iterator[None]:
    """The card's memory in use stays as it is, the process's grows by at most so many bytes."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    def in_use() -> tuple[int, int]:
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated(), torch.cuda.memory_reserved()

    before, host = in_use(), resident()
    yield
    assert in_use() == before
    assert resident() - host <= allowed


@WAYS
def test_memory_does_not_grow(way: str, card: str) -> None:
    """Runs 200 steps of the preset, each of which packs 1.5 MB."""
    settings, data = preset()
    model = new_model(card, **settings)
    begin(model, data)
    take = stepping(way, card)(model)
    model.core.begin_epoch(1)

    def steps(count: int) -> None:
        for _ in range(count // len(data)):
            for packed in packed_ahead(data, model.pack, card):
                take(packed)

    steps(50)
    with steady_memory(allowed=100 << 20):
        steps(200)


def test_a_run_gives_its_memory_back(card: str, bert_dir: Path) -> None:
    """All memory, that of graphs too, is released with the model."""
    settings, data = tiny("features", bert_dir)

    def run() -> None:
        train(new_model(card, **settings), data, stepping("graphs", card))

    run()  # allocations that CUDA and torch keep permanently
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    assert torch.cuda.memory_allocated() <= before


# The public face


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 1e-2)])
def test_fit_evaluate_predict_save_load(dtype: str, tolerance: float, tmp_path: Path, device: str) -> None:
    data = mmiln.data.synthetic(48, 16, 16, text_dim=8)
    fields = {"d_model": 10, "num_layers": 2, "batch_size": 16, "seed": 1, "dtype": dtype}

    def fitted(device: str) -> tuple[mmiln.Model, mmiln.History]:
        model = mmiln.Model("mosi", device=device, **fields)
        return model, model.fit(data.train, data.valid, epochs=3, progress=False)

    model, history = fitted(device)
    with kernels.of_the_cpu():
        peer, expected = fitted("cpu")
        right = peer.predict(data.test).score
        for name in ("train_total", "valid_mae"):
            np.testing.assert_allclose(history[name], expected[name], rtol=tolerance)
    score = model.predict(data.test).score
    np.testing.assert_allclose(score, right, rtol=10 * tolerance, atol=10 * tolerance)
    assert model.evaluate(data.test).mae == mmiln.Metrics.of(data.test.labels, score).mae

    model.save_pretrained(tmp_path)
    again = mmiln.Model.from_pretrained(tmp_path, device=device)
    np.testing.assert_array_equal(again.predict(data.test).score, score)
    with kernels.of_the_cpu():
        moved = mmiln.Model.from_pretrained(tmp_path)
        assert all(torch.equal(w, model.state_dict()[n].cpu()) for n, w in moved.state_dict().items())
        np.testing.assert_allclose(moved.predict(data.test).score, score, rtol=1e-4, atol=1e-4)


def test_the_same_seed_gives_the_same_bits(data: list[Batch], device: str) -> None:
    check_seeds(data, data, device=device)


def test_the_best_epoch_is_the_result(data: list[Batch], device: str) -> None:
    check_best_epoch(data, device=device)


@pytest.mark.parametrize("where", [*CALLBACKS, "loader", "valid"])
def test_an_interrupted_model_is_whole(where: str, data: list[Batch], device: str) -> None:
    check_interruption(where, KeyboardInterrupt, data, device=device)


SETTINGS: dict[str, Callable[[str], Any]] = {
    "no_grad": lambda device: torch.no_grad(),
    "autocast": lambda device: torch.autocast(device, dtype=torch.bfloat16),
    "default device": torch.device,
    "another default device": lambda device: torch.device("meta"),
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_callers_settings_do_not_matter(setting: str, data: list[Batch], device: str) -> None:
    check_settings(lambda: SETTINGS[setting](device), data, device=device)


def test_weights_that_stay(data: list[Batch], device: str) -> None:
    """Rates of 0 leave every bit of the weights, also by way of graphs."""
    model = small(device=device, **STILL)
    before = model.state_dict()
    model.fit(data, epochs=4, progress=False)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


# Threads and cards


def test_two_models_in_two_threads(data: list[Batch], device: str) -> None:
    check_two_threads(data, device=device)


def test_two_threads_that_capture(bert_dir: Path, device: str) -> None:
    """Each captures and replays its own while the other launches."""
    settings, data = tiny("features", bert_dir)
    ways = {seed: ("eager" if seed == 3 else "graphs") for seed in (1, 2, 3)}
    found: dict[int, Run] = {}

    def run(seed: int) -> Run:
        model = new_model(device, **settings | {"seed": seed})
        return train(model, data, stepping(ways[seed], device))

    threads = [threading.Thread(target=lambda s=seed: found.update({s: run(s)})) for seed in ways]
    for act in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            act(thread)
    assert all(found[seed].same_bits(run(seed)) for seed in ways)


@WAYS
def test_the_second_card(way: str, bert_dir: Path, card: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    settings, data = tiny("bert", bert_dir)
    first, second = (train(new_model(n, **settings), data, stepping(way, n)) for n in ("cuda:0", "cuda:1"))
    assert torch.cuda.current_device() == 0
    assert second.same_bits(first)


def test_a_model_that_is_trained_as_a_whole_can_be_captured(bert_dir: Path, device: str) -> None:
    model = new_model(device, **tiny("bert", bert_dir)[0])
    with warnings.catch_warnings(action="error"):
        Steps(model.core, Counted(device))
