"""Training against the oracle and itself: what the tests on the CPU and on a card have in common."""

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
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


def with_human_labels(data: list[Batch]) -> list[Batch]:
    """The same batches with labels of audio and vision that are not those of the utterance."""
    rng = np.random.default_rng(3)
    return [
        batch
        | {
            "labels": {"M": batch["labels"]}
            | {key: torch.from_numpy(rng.uniform(-3, 3, len(batch["labels"]))).float() for key in "TAV"}
        }
        for batch in data
    ]


def same_weights(first: mmiln.Model | dict, second: mmiln.Model | dict) -> bool:
    a, b = (m.state_dict() if isinstance(m, mmiln.Model) else m for m in (first, second))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_time(history: mmiln.History) -> dict[str, list[float]]:
    return dict(history) | {"seconds": []}


def small(**changes: Any) -> mmiln.Model:
    """A small model with dropout and quick learning."""
    return mmiln.Model("mosi", **{**configs.tiny(num_layers=1), **RATES, "accumulate": 2, **changes})


def oracle_fit(p: dict[str, Tensor], config: dict, train: dict, data: list[Batch], epochs: int) -> None:
    """The oracle's training: changes `p` as the core should, without dropout."""
    dims = {u: config[f"{u}_features"] for u in ("multimodal", *model.sources(config))}
    state = ulgm.Ulgm(sum(len(batch["index"]) for batch in data), dims, config["label_bound"])
    optimizer = adam.Adam(p, adam.groups(p, train), train["optimizer"])
    for epoch in range(1, epochs + 1):
        window: list[dict[str, Tensor]] = []
        for number, batch in enumerate(data, start=1):
            leaves = {name: weight.clone().requires_grad_() for name, weight in p.items()}
            given = batch["labels"]
            human = (
                {n: given[n[0].upper()].double() for n in model.sources(config)}
                if isinstance(given, dict)
                else {}
            )
            y_m = (given["M"] if human else given).double()
            out = model.forward(leaves, config, batch, BERT)
            pseudo = human or {n: torch.from_numpy(y) for n, y in state.pseudo(batch["index"], y_m).items()}
            total = losses.losses(out, y_m, pseudo, config)["total"]
            window.append(dict(zip(p, torch.autograd.grad(total, list(leaves.values())), strict=True)))
            features = {f"F_{u[0]}": out[f"F_{u}"].detach() for u in dims}
            if not human:
                state.step(epoch, batch["index"], y_m, **features)
            if len(window) == train["accumulate"] or number == len(data):
                scale = 1 / len(window) if train["accumulate_mode"] == "mean" else 1.0
                optimizer.step({name: scale * sum(g[name] for g in window) for name in p})
                window = []


def check_training(train: dict, present: dict, directory: Path, **arguments: Any) -> None:
    """Groups, rates, decays, windows (the last of an epoch incomplete), moments, pseudo-labels."""
    config = configs.tiny(text_dim=8, num_layers=1, **present)
    train = RATES | train
    save_bert(directory, attention_probs_dropout_prob=0.0)
    settings = {**config, **NO_DROPOUT, **train, **arguments}
    built = mmiln.Model("mosi", text_encoder=directory, dtype="float64", **settings)
    # Weights do not start from zero: a key's bias has only rounding as gradient, which Adam would amplify.
    p = params.perturb({name: weight.cpu() for name, weight in built.state_dict().items()}, 1)
    built.load_state_dict(p)
    start = {name: weight.clone() for name, weight in p.items()}
    data = some_batches(config, bert=BERT)
    if train.get("unimodal_labels") == "human":
        data = with_human_labels(data)
    oracle_fit(p, config, train, data, epochs=3)
    built.fit(data, epochs=3, progress=False)
    for name, weight in built.state_dict().items():
        torch.testing.assert_close(
            weight.cpu(), p[name], rtol=1e-9, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert not any(torch.equal(weight, start[name]) for name, weight in p.items())


class Disturb(mmiln.Callback):
    """Reseeds and draws from every global generator and trains another model, after each batch."""

    def on_batch_end(self, built: mmiln.Model, epoch: int, batch: int) -> None:
        for seed in (torch.manual_seed, np.random.seed, random.seed):
            seed(batch)
        torch.rand(batch)
        small(seed=9).fit(some_batches(configs.tiny(), (2,)), epochs=1, progress=False)


def check_seeds(given: Any, valid: Any, **changes: Any) -> None:
    runs = []
    for seed, callbacks in ((1, []), (1, [Disturb()]), (2, [])):
        built = small(seed=seed, batch_size=3, **changes)
        history = built.fit(given, valid, epochs=3, callbacks=callbacks, progress=False)
        runs.append((built, without_time(history)))
    assert same_weights(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]
    assert not same_weights(runs[0][0], runs[2][0])
    assert runs[0][1] != runs[2][1]


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


class Snapshots(mmiln.Callback):
    def __init__(self) -> None:
        self.epochs: list[dict[str, Tensor]] = []
        self.batches: list[dict[str, Tensor]] = []

    def on_batch_end(self, built: mmiln.Model, epoch: int, batch: int) -> None:
        self.batches.append(built.state_dict())

    def on_epoch_end(self, built: mmiln.Model, epoch: int, logs: dict[str, float]) -> None:
        self.epochs.append(built.state_dict())


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


class Breaking(list):
    """A loader that breaks before its third batch."""

    def __iter__(self) -> Iterator[Batch]:
        yield from self[:2]
        raise self.error


class Raising(mmiln.Callback):
    def __init__(self, event: str, error: type[BaseException]) -> None:
        setattr(self, event, lambda *arguments: (_ for _ in ()).throw(error))


CALLBACKS = ("on_train_begin", "on_epoch_begin", "on_batch_end", "on_epoch_end", "on_train_end")


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
