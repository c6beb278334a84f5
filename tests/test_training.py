"""Training: the optimiser against the oracle, determinism, early stopping, interruptions, threads."""

import json
import multiprocessing
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmiln
from reference import adam, batches, configs, losses, model, params, ulgm

Batch = dict[str, Any]
MODALITIES = ("text", "audio", "vision")
DROPOUTS = [f"{part}_dropout" for part in ("multimodal", "audio", "vision", "attn", "residual", "embed")]
NO_DROPOUT = dict.fromkeys(DROPOUTS, 0.0)
RATES = {
    **{"lr_text": 2e-3, "lr_audio": 5e-3, "lr_vision": 1e-2, "lr_other": 3e-3},
    **{"decay_text": 0.3, "decay_audio": 0.1, "decay_vision": 0.05, "decay_other": 0.2},
}
STILL = dict.fromkeys(RATES, 0.0)
BERT = configs.TINY_BERT | {"num_hidden_layers": 1}


def save_bert(directory: Path, **dropout: float) -> Path:
    transformers = pytest.importorskip("transformers", reason="BertModel writes the encoder")
    settings = transformers.BertConfig(**BERT, **{"hidden_dropout_prob": 0.0} | dropout)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(settings, add_pooling_layer=False).save_pretrained(directory)
    return directory


def some_batches(config: dict, sizes: tuple[int, ...] = (3, 2, 2), bert: dict | None = None) -> list[Batch]:
    """Batches of these sizes over one dataset, labels in float32."""
    out, start = [], 0
    for number, size in enumerate(sizes):
        lengths = {m: [1 + (i * (k + 2)) % 5 for i in range(size)] for k, m in enumerate(MODALITIES)}
        batch = batches.random_batch(config, lengths, number, bert)
        batch["labels"] = batch["labels"].float()
        out.append({**batch, "index": np.arange(start, start + size)})
        start += size
    return out


def same_weights(first: mmiln.Model | dict, second: mmiln.Model | dict) -> bool:
    a, b = (m.state_dict() if isinstance(m, mmiln.Model) else m for m in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(history: mmiln.History) -> dict[str, list[float]]:
    return dict(history) | {"seconds": []}


def small(**changes: Any) -> mmiln.Model:
    """A small model with dropout and quick learning."""
    return mmiln.Model("mosi", **{**configs.tiny(num_layers=1), **RATES, "accumulate": 2, **changes})


@pytest.fixture(scope="module")
def data() -> list[Batch]:
    return some_batches(configs.tiny())


def oracle_fit(p: dict[str, Tensor], config: dict, train: dict, data: list[Batch], epochs: int) -> None:
    """Changes `p` as training should, without dropout."""
    dims = {u: config[f"{u}_features"] for u in ("multimodal", *model.sources(config))}
    state = ulgm.Ulgm(sum(len(batch["index"]) for batch in data), dims, config["label_bound"])
    optimizer = adam.Adam(p, adam.groups(p, train), train["optimizer"])
    for epoch in range(1, epochs + 1):
        window: list[dict[str, Tensor]] = []
        for number, batch in enumerate(data, start=1):
            leaves = {name: weight.clone().requires_grad_() for name, weight in p.items()}
            y_m = batch["labels"].double()
            out = model.forward(leaves, config, batch, BERT)
            pseudo = {n: torch.from_numpy(y) for n, y in state.pseudo(batch["index"], y_m).items()}
            total = losses.losses(out, y_m, pseudo, config)["total"]
            window.append(dict(zip(p, torch.autograd.grad(total, list(leaves.values())), strict=True)))
            features = {f"F_{u[0]}": out[f"F_{u}"].detach() for u in dims}
            state.step(epoch, batch["index"], y_m, **features)
            if len(window) == train["accumulate"] or number == len(data):
                scale = 1 / len(window) if train["accumulate_mode"] == "mean" else 1.0
                optimizer.step({name: scale * sum(g[name] for g in window) for name in p})
                window = []


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
@pytest.mark.parametrize(
    ("accumulate", "mode", "present"), [(1, "sum", {}), (2, "sum", {"audio_dim": 0}), (2, "mean", {})]
)
def test_weights_after_several_epochs(
    optimizer: str, accumulate: int, mode: str, present: dict, tmp_path: Path
) -> None:
    train = {"optimizer": optimizer, "accumulate": accumulate, "accumulate_mode": mode}
    check_training(train, present, tmp_path)


def check_training(train: dict, present: dict, directory: Path, **arguments: Any) -> None:
    """Groups, rates, decays, windows (the last of an epoch incomplete), moments, pseudo-labels."""
    config = configs.tiny(text_dim=8, num_layers=1, **present)
    train = RATES | train
    save_bert(directory, attention_probs_dropout_prob=0.0)
    settings = {**config, **NO_DROPOUT, **train, **arguments}
    built = mmiln.Model("mosi", text_encoder=directory, dtype="float64", **settings)
    # Not from zero: a key's bias has no gradient but rounding noise, which Adam would blow up.
    p = params.perturb({name: weight.cpu() for name, weight in built.state_dict().items()}, 1)
    built.load_state_dict(p)
    start = {name: weight.clone() for name, weight in p.items()}
    data = some_batches(config, bert=BERT)
    oracle_fit(p, config, train, data, epochs=3)
    built.fit(data, epochs=3, progress=False)
    for name, weight in built.state_dict().items():
        torch.testing.assert_close(
            weight.cpu(), p[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert not any(torch.equal(weight, start[name]) for name, weight in p.items())


@pytest.mark.parametrize("where", [*DROPOUTS, "hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_each_dropout_drops(where: str, tmp_path: Path) -> None:
    """With weights that stay, training's losses are evaluation's without dropout and others with it."""
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
        # dropout before a unimodal head tells only once pseudo-labels part from the labels
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


class Disturb(mmiln.Callback):
    """Reseeds and draws from every global generator and trains another model, after each batch."""

    def on_batch_end(self, built: mmiln.Model, epoch: int, batch: int) -> None:
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(batch)
        torch.rand(batch)
        small(seed=9).fit(some_batches(configs.tiny(), (2,)), epochs=1, progress=False)


def split(n: int = 8) -> mmiln.data.Split:
    (batch,) = some_batches(configs.tiny(), (n,))
    frames = {m: [u.numpy() for u in batch[m]] for m in MODALITIES}
    return mmiln.data.Split([f"u{i}" for i in range(n)], batch["labels"].numpy(), **frames)


@pytest.mark.parametrize("loader", ["list", "split"])
def test_the_same_seed_gives_the_same_bits(loader: str, data: list[Batch]) -> None:
    check_seeds(data if loader == "list" else split())


def check_seeds(given: Any, **changes: Any) -> None:
    runs = []
    for seed, callbacks in ((1, []), (1, [Disturb()]), (2, [])):
        built = small(seed=seed, batch_size=3, **changes)
        history = built.fit(given, given, epochs=3, callbacks=callbacks, progress=False)
        runs.append((built, without_time(history)))
    assert same_weights(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not same_weights(runs[0][0], runs[2][0])
    assert runs[0][1] != runs[2][1]


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
    built.fit(given, given, epochs=2, progress=False)
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


def check_settings(setting: Callable[[], Any], data: list[Batch], **changes: Any) -> None:
    results = []
    for context in (nullcontext, setting):
        built = small(**changes)
        with context():
            history = built.fit(data, data, epochs=2, progress=False)
            found = [built.gradients(data[0]), built.losses(data[0]), built.forward(data[0])]
        built.fit(data, epochs=1, progress=False)
        results.append(([*found, built.state_dict()], without_time(history)))
    assert torch.is_grad_enabled()
    assert all(same_weights(*pair) for pair in zip(results[0][0], results[1][0], strict=True))
    assert results[0][1] == results[1][1]


def test_inference_mode_does_not_matter(data: list[Batch]) -> None:
    """In a process of its own, whose end is part of the result."""
    process = multiprocessing.get_context("spawn").Process(target=in_inference_mode, args=(data,))
    process.start()
    process.join()
    assert process.exitcode == 0


def in_inference_mode(data: list[Batch]) -> None:
    torch.set_num_threads(1)
    check_settings(torch.inference_mode, data)


class Snapshots(mmiln.Callback):
    def __init__(self) -> None:
        self.epochs: list[dict[str, Tensor]] = []
        self.batches: list[dict[str, Tensor]] = []

    def on_batch_end(self, built: mmiln.Model, epoch: int, batch: int) -> None:
        self.batches.append(built.state_dict())

    def on_epoch_end(self, built: mmiln.Model, epoch: int, logs: dict[str, float]) -> None:
        self.epochs.append(built.state_dict())


def test_the_best_epoch_is_the_result(data: list[Batch]) -> None:
    check_best_epoch(data)


def check_best_epoch(data: list[Batch], **changes: Any) -> None:
    seen = Snapshots()
    built = small(patience=3, **changes)
    valid = [{**batch, "labels": -batch["labels"]} for batch in data]  # fitting makes it worse
    history = built.fit(data, valid, epochs=30, callbacks=[seen], progress=False)
    mae = history["valid_mae"]
    best = int(np.argmin(mae))
    assert history.best_epoch == best + 1
    assert len(mae) == best + 1 + 3 < 30  # stopped `patience` epochs later
    assert same_weights(built, seen.epochs[best])
    assert not same_weights(built, seen.epochs[-1])
    assert built.evaluate(valid).mae == mae[best]
    assert built.history_ is history


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


class Breaking(list):
    """A loader that breaks before its third batch."""

    def __iter__(self) -> Iterator[Batch]:
        yield from self[:2]
        raise self.error


class Raising(mmiln.Callback):
    def __init__(self, event: str, error: type[BaseException]) -> None:
        setattr(self, event, lambda *arguments: (_ for _ in ()).throw(error))


CALLBACKS = ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")


@pytest.mark.parametrize(
    ("where", "error"),
    [*((where, KeyboardInterrupt) for where in (*CALLBACKS, "loader", "valid")), ("loader", LookupError)],
)
def test_an_interrupted_model_is_whole(where: str, error: type[BaseException], data: list[Batch]) -> None:
    check_interruption(where, error, data)


def check_interruption(where: str, error: type[BaseException], data: list[Batch], **changes: Any) -> None:
    """It has the weights of its last step, and trains on as a new model with these weights would."""
    changes |= {"accumulate": 3 if where == "loader" else 1}
    built, fresh, seen = small(**changes), small(**changes), Snapshots()
    start, broken = built.state_dict(), Breaking(data)
    broken.error = error
    callbacks = [seen, Raising(where, error)] if where in CALLBACKS else [seen]
    loaders = [broken if where == name else data for name in ("loader", "valid")]
    with pytest.raises(error):
        built.fit(*loaders, epochs=1, callbacks=callbacks, progress=False)
    assert same_weights(built, seen.batches[-1] if seen.batches else start)
    stopped = built.state_dict()
    assert built.predict(data).score.shape == (7,)
    fresh.load_state_dict(stopped)
    histories = [without_time(m.fit(data, data, epochs=2, progress=False)) for m in (built, fresh)]
    assert same_weights(built, fresh)
    assert histories[0] == histories[1]
    assert not same_weights(built, stopped)


def test_two_models_in_two_threads(data: list[Batch]) -> None:
    check_two_threads(data)


def check_two_threads(data: list[Batch], **changes: Any) -> None:
    def train(built: mmiln.Model) -> None:
        torch.set_num_threads(1)
        built.fit(data, data, epochs=3, progress=False)

    alone, together = ([small(seed=seed, **changes) for seed in (1, 2)] for _ in range(2))
    for built in alone:
        train(built)
    threads = [threading.Thread(target=train, args=(built,)) for built in together]
    for act in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            act(thread)
    assert all(same_weights(a, b) for a, b in zip(alone, together, strict=True))


def test_a_step_lets_other_threads_run() -> None:
    config = configs.tiny(d_model=32, num_layers=3)
    built = mmiln.Model("mosi", **config)
    batch = {**batches.random_batch(config, {m: [60] * 16 for m in MODALITIES}, 0), "index": np.arange(16)}
    packed = built._pack(batch)
    built._core.begin_training(16, json.dumps(built.config.train))
    built._core.begin_epoch(1)
    stop, turns = threading.Event(), []

    def count() -> None:
        while not stop.wait(1e-4):
            turns.append(1)

    counter = threading.Thread(target=count)
    counter.start()
    before = len(turns)
    built._core.train_step(packed)
    during = len(turns) - before
    stop.set()
    counter.join()
    assert during >= 5  # a step that held the GIL would let the other have one turn, on its way in
