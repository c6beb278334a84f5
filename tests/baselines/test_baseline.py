"""The trainer of a network: the protocol of mmiln.Model, with a user-defined network."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmiln
from mmiln.baselines import Baseline, Inputs, Network
from mmiln.baselines.blocks import LSTM, MLP
from mmiln.errors import BatchError, CheckpointError, ConfigError, NonFiniteError, StateError, WeightsError


class Late(Network):
    """Last states of an LSTM a modality."""

    NEEDS = ("text",)

    def __init__(self, settings, widths, bert=None) -> None:
        super().__init__(settings, widths, bert)
        self.rnns = nn.ModuleDict({name: LSTM(width, 8) for name, width in widths.items() if width})
        self.head = MLP(8 * len(self.rnns), 8, 1, dropout=0.2)

    def forward(self, x: Inputs) -> dict[str, Tensor]:
        frames = {"text": self.read_text(x), "audio": x.audio, "vision": x.vision}
        last = [rnn(frames[name])[1] for name, rnn in self.rnns.items()]
        return {"M": self.head(torch.cat(last, 1))[:, 0]}


class Cut(mmiln.Callback):
    """Ends training in the middle."""

    def on_batch_end(self, model, epoch, batch):
        if (epoch, batch) == (2, 2):
            raise KeyError("cut")


@pytest.fixture(scope="module")
def data() -> mmiln.data.Dataset:
    return mmiln.data.synthetic(40, 16, 16)


def build(**fields) -> Baseline:
    return Baseline(Late, **({"batch_size": 10, "clip": 1.0} | fields))


@pytest.fixture(scope="module")
def fitted(data) -> Baseline:
    model = build()
    model.fit(data.train, data.valid, epochs=3, progress=False)
    return model


def bits(model: Baseline) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def test_it_learns(data, fitted):
    history = fitted.history_
    assert next(iter(history)) == "train_total"
    assert history["train_total"][-1] < history["train_total"][0]
    assert fitted.evaluate(data.test).n == 16
    assert fitted.summary().total == sum(tensor.numel() for tensor in fitted.state_dict().values())


def test_the_epoch_of_the_lowest_validation_mae_is_kept(data):
    model = build(lr=0.05)
    history = model.fit(data.train, data.valid, epochs=6, progress=False)
    assert model.evaluate(data.valid).mae == min(history["valid_mae"])


@pytest.mark.parametrize("changes", [{}, {"optimizer": "adamw", "decay": 0.1}, {"accumulate": 3}])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(changes, data, tmp_path):
    whole = build(**changes)
    whole.fit(data.train, data.valid, epochs=3, progress=False)
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 0}
    with pytest.raises(KeyError, match="cut"):
        build(**changes).fit(data.train, data.valid, epochs=3, progress=False, callbacks=[Cut()], **kept)
    torch.manual_seed(99)  # nothing is drawn from the global generator
    resumed = build(**changes)
    resumed.fit(data.train, data.valid, epochs=3, progress=False, resume=True, **kept)
    assert bits(resumed) == bits(whole)
    assert resumed.history_["valid_mae"] == whole.history_["valid_mae"]


@pytest.mark.parametrize(("batch_size", "accumulate"), [(6, 4), (8, 9)])
def test_gradients_are_summed_over_batches(batch_size, accumulate, data):
    """A window of batches makes one step on the sum of their losses; so does an incomplete window."""

    class Scaled(Late):
        scale = 1.0

        def losses(self, outputs, x):
            return {"total": ((outputs["M"] - x.labels) ** 2).mean() * self.scale}

    def fitted(size: int, accumulate: int) -> dict[str, Tensor]:
        model = Baseline(Scaled, batch_size=size, accumulate=accumulate, dtype="float64")
        model.forward(next(iter(few.loader(2))))
        for module in model.core.network.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.fit(list(few.loader(size)), epochs=1, progress=False)
        return model.state_dict()

    few = data.train.subset(range(24))
    summed = fitted(batch_size, accumulate)
    Scaled.scale = 24 / batch_size
    torch.testing.assert_close(summed, fitted(24, 1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("how", "bound"), [("clip", 1e-3), ("clip_value", 1e-4)])
def test_gradients_are_clipped(how, bound, data, monkeypatch):
    seen: list[Tensor] = []
    step = torch.optim.Adam.step

    def looked_at(self, *args, **kwargs):
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.append(torch.cat(gradients))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", looked_at)
    build(clip=0.0).fit(data.train, epochs=1, progress=False)
    free, seen = seen[0], []
    build(**{"clip": 0.0, how: bound}).fit(data.train, epochs=1, progress=False)
    expected = free * bound / free.norm() if how == "clip" else free.clamp(-bound, bound)
    torch.testing.assert_close(seen[0], expected)
    assert not torch.equal(free, expected)


def test_another_network_or_field_is_another_run(data, tmp_path):
    build().fit(data.train, epochs=1, progress=False, checkpoint_dir=tmp_path)
    with pytest.raises(StateError, match=r"batch_size 10 \(now 8\)"):
        build(batch_size=8).fit(data.train, epochs=2, progress=False, checkpoint_dir=tmp_path)
    with pytest.raises(StateError, match="of another run"):
        mmiln.Model("mosi", num_layers=1).fit(data.train, epochs=2, progress=False, checkpoint_dir=tmp_path)
    with pytest.raises(StateError, match="resume="):
        build(lr=0.1).fit(data.train, epochs=2, progress=False, checkpoint_dir=tmp_path)
    adopted = build(lr=0.1).fit(data.train, epochs=2, progress=False, checkpoint_dir=tmp_path, resume="adopt")
    assert len(adopted["train_total"]) == 2


def test_a_state_that_is_none_is_refused(data, fitted):
    engine = copy.deepcopy(fitted)._core
    engine.begin_training(None, "{}")
    state, counters = engine.training_state()
    for wrong, count in [
        ({n: t for n, t in state.items() if n != "first.head.0.bias"}, counters),
        (state | {"weights.head.0.bias": torch.zeros(3)}, counters),
        (state | {"best.nonsense": torch.zeros(1)}, counters),
        (state | {"summed.head.0.bias": torch.zeros(3)}, counters),
        (state, '{"epoch": -1, "step": 0, "summed": 0}'),
        (state, '{"epoch": 0, "step": 0}'),
        (state, "nonsense"),
    ]:
        with pytest.raises(CheckpointError, match="not the state of such a run"):
            engine.load_training_state(wrong, count)


def test_saved_and_loaded(data, fitted, tmp_path):
    scores = fitted.predict(data.test).score
    fitted.save_pretrained(tmp_path)
    assert np.array_equal(Baseline.from_pretrained(tmp_path, network=Late).predict(data.test).score, scores)
    with pytest.raises(ConfigError, match="there is no baseline 'Late'"):
        mmiln.load_pretrained(tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    config = (tmp_path / "config.json").read_text()
    for wrong in (config.replace('"audio": 5', '"audio": 90000'), config.replace('"text": 64', '"text": 0')):
        assert wrong != config
        (tmp_path / "config.json").write_text(wrong)
        with pytest.raises((WeightsError, BatchError)):
            Baseline.from_pretrained(tmp_path, network=Late)
    (tmp_path / "config.json").write_text(config.replace('"settings": {', '"settings": {"nonsense": 1, '))
    with pytest.raises(ConfigError, match="no field 'nonsense'"):
        Baseline.from_pretrained(tmp_path, network=Late)
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(WeightsError):
        Baseline.from_pretrained(tmp_path, network=Late)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(copied, data, fitted):
    other = copied(fitted)
    assert bits(other) == bits(fitted)
    assert np.array_equal(other.predict(data.test).score, fitted.predict(data.test).score)
    other.fit(data.train, epochs=1, progress=False)
    assert bits(other) != bits(fitted)


def test_what_is_not_finite_is_named_and_not_applied(data):
    model = build()
    model.fit(data.train, epochs=1, progress=False)
    state = model.state_dict()
    state["head.0.weight"][0, 0] = float("inf")
    model.load_state_dict(state)
    before = bits(model)
    with pytest.raises(
        NonFiniteError, match=r"First not finite: head\.0\. What goes in: input in .* 1 not finite"
    ):
        model.fit(data.train, epochs=1, progress=False)
    assert bits(model) == before


def test_padding_changes_nothing(data, fitted):
    batch = next(iter(data.test.loader(16)))
    wide = {
        name: np.stack([np.pad(u, ((0, 400 - len(u)), (0, 0)), constant_values=np.nan) for u in batch[name]])
        for name in ("text", "audio", "vision")
    }
    lengths = {f"{name}_lengths": [len(u) for u in batch[name]] for name in wide}
    assert np.array_equal(fitted.predict(wide | lengths).score, fitted.predict(batch).score)


def test_wrong_calls(data, fitted):
    for fields, said in [
        ({"lr": -1}, "lr: "),
        ({"nonsense": 1}, "no field 'nonsense': config.to_dict"),
        ({"learning_rate": 1}, "no field 'learning_rate'; did you mean 'lr' or 'lr_text'"),
        ({"batch_size": 10**9}, "batch_size must be at most"),
        ({"preset": "x"}, "has the presets mosi, mosei"),
        ({"dtype": "float16"}, "dtype must be"),
    ]:
        with pytest.raises(ConfigError, match=said):
            Baseline(Late, **fields)
    with pytest.raises(ConfigError, match="did you mean 'tfn'"):
        Baseline("tfm")
    with pytest.raises(StateError, match="no weights yet"):
        build().state_dict()
    with pytest.raises(WeightsError, match="missing: head"):
        fitted.load_state_dict({})
    batch = next(iter(data.test.loader(4)))
    with pytest.raises(BatchError, match="width 5, got 4"):
        fitted.predict(batch | {"audio": [u[:, :4] for u in batch["audio"]]})
    with pytest.raises(BatchError, match="needs text"):
        Baseline(Late, text_dim=0).predict(batch)
    with pytest.raises(StateError, match="no pseudo-labels"):
        fitted.pseudo_labels  # noqa: B018


def test_a_text_encoder_is_fine_tuned_and_saved(tmp_path, tiny_bert: Path):
    text = ["good film", "the film was bad", "very", "not very good"]
    rng = np.random.default_rng(0)
    frames = {
        name: [rng.normal(size=(3, w)).astype(np.float32) for _ in text]
        for name, w in (("audio", 5), ("vision", 4))
    }
    batch = {"raw_text": text, **frames, "labels": np.array([1.0, -1.0, 2.0, -2.0]), "index": np.arange(4)}
    model = build(text_encoder=tiny_bert)
    model.forward(batch)
    before = bits(model)
    model.fit([batch], epochs=1, progress=False)
    assert (
        bits(model)["bert.embeddings.word_embeddings.weight"]
        != before["bert.embeddings.word_embeddings.weight"]
    )
    model.save_pretrained(tmp_path)
    again = Baseline.from_pretrained(tmp_path, network=Late)
    assert np.array_equal(again.predict(batch).score, model.predict(batch).score)


def test_first_layers_of_a_text_encoder_can_be_frozen(tmp_path, tiny_bert: Path):
    batch = {"raw_text": ["good film", "the film was bad", "very"], "labels": np.array([1.0, -1.0, 2.0])}
    model = build(text_encoder=tiny_bert, freeze_text=1, decay_text=0.1)
    model.forward(batch)
    before = bits(model)
    model.fit([batch], epochs=2, progress=False, checkpoint_dir=tmp_path, checkpoint_every=0)
    moved = {name for name, after in bits(model).items() if after != before[name]}
    frozen = {name for name in before if name.startswith(("bert.embeddings.", "bert.encoder.layer.0."))}
    assert moved == before.keys() - frozen
    assert model.summary().frozen == {"bert": sum(model.state_dict()[name].numel() for name in frozen)}
    bert = model.core.network.train().bert
    assert [bert.embeddings.training, *(layer.training for layer in bert.encoder.layer)] == [
        False,
        False,
        True,
    ]
    with pytest.raises(ConfigError, match=r"at most the text encoder's 2 layers, got 9"):
        build(text_encoder=tiny_bert, freeze_text=9)
    with pytest.raises(ConfigError, match="freeze_text"):
        build(text_encoder=tiny_bert, freeze_text="half")
