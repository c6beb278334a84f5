"""What every baseline must do, by its name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from baselines import checks
from mmiln.baselines import NETWORKS, Baseline, Network
from mmiln.data import Dataset, Split

# MAG-BERT reads tokens alone, the mean nothing at all: both have tests of their own.
LEARNING = [name for name in NETWORKS if name not in ("mean", "mag_bert")]


def aligned(split: Split) -> Split:
    """Audio and vision averaged to one frame a token."""

    def words(frames: list[np.ndarray]) -> list[np.ndarray]:
        return [
            np.stack([part.mean(0) for part in np.array_split(f, len(t))]).astype(np.float32)
            if len(f) >= len(t)
            else np.repeat(f, -(-len(t) // len(f)), 0)[: len(t)]
            for f, t in zip(frames, split.text, strict=True)
        ]

    return Split(
        split.id, split.labels, text=split.text, audio=words(split.audio), vision=words(split.vision)
    )


def test_every_network_has_tests_of_its_own():
    for network in NETWORKS.values():
        name = network.__module__.rpartition(".")[2]
        assert (Path(__file__).parent / f"test_{name}.py").is_file()


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Word-aligned data, which models that need no alignment read as well."""
    whole = mmiln.data.synthetic(160, 48, 48)
    return Dataset(*(aligned(part) for part in (whole.train, whole.valid, whole.test)), name="aligned")


def build(name: str, **fields: Any) -> Baseline:
    return Baseline(name, **fields)


@pytest.mark.parametrize("name", LEARNING)
def test_a_score_depends_on_its_utterance_alone(name, data):
    """It depends neither on padding nor on the rest of the batch."""
    model = build(name)
    together = model.predict(data.test.subset(range(9))).score
    alone = [float(model.predict(data.test.subset([i])).score[0]) for i in range(9)]
    np.testing.assert_allclose(together, alone, atol=2e-5)
    assert np.ptp(together) > 1e-4


# MAG-BERT has the loss of text_only; AMML divides a batch.
@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in ("amml", "mag_bert")])
def test_a_weight_is_a_number_of_repetitions_in_a_baseline(name: str) -> None:
    kind = NETWORKS[name]
    network = checks.build(kind)
    x = checks.inputs(aligned=kind.ALIGNED)
    few, repeated = x.select(torch.tensor([0, 1, 3])), x.select(torch.tensor([0, 1, 1, 1, 3, 3]))
    object.__setattr__(few, "weights", torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64))
    of = kind.LOSSES[0]  # the task loss
    found, right = (network.losses(network(part), part)[of] for part in (few, repeated))
    torch.testing.assert_close(found, right)


def test_a_weight_is_a_number_of_repetitions_in_both_halves_of_amml() -> None:
    network, x = checks.build(NETWORKS["amml"]), checks.inputs()
    repeated = x.select(torch.tensor([0, 1, 1, 2, 2, 3]))
    object.__setattr__(x, "weights", torch.tensor([1.0, 2.0, 2.0, 1.0], dtype=torch.float64))
    found, right = (network.losses(network(part), part) for part in (x, repeated))
    torch.testing.assert_close(found, right)


def keeps(network: type[Network]) -> bool:
    """Whether the network carries state between steps besides weights and their moments."""
    events = ("begin_training", "begin_epoch", "after_step")
    return len(network.STAGES) > 1 or any(getattr(network, e) is not getattr(Network, e) for e in events)


# The engine keeps weights, moments and the position of the run, for all alike. Two networks stand for those
# that keep no more: one draws random numbers for dropout alone, one for its losses as well.
RESUMED = [name for name in LEARNING if keeps(NETWORKS[name]) or name in ("lf_lstm", "mfm")]


def test_both_kinds_are_resumed():
    assert {"mmim", "self_mm", "lf_lstm", "mfm"} <= set(RESUMED)


@pytest.mark.parametrize("name", RESUMED)
def test_seed_and_resuming_give_the_same_bits(name, data, tmp_path):
    class Cut(mmiln.Callback):
        def on_batch_end(self, model, epoch, batch):
            if (epoch, batch) == (2, 1):
                raise KeyError("cut")

    few = data.train.subset(range(24))
    fields = {"batch_size": 8}
    whole = build(name, **fields)
    whole.fit(few, epochs=2, progress=False)
    kept = {"checkpoint_dir": tmp_path, "checkpoint_every": 0}
    with pytest.raises(KeyError, match="cut"):
        build(name, **fields).fit(few, epochs=2, progress=False, callbacks=[Cut()], **kept)
    torch.manual_seed(5)
    resumed = build(name, **fields)
    resumed.fit(few, epochs=2, progress=False, **kept)
    assert all(
        torch.equal(a, b)
        for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("name", LEARNING)
def test_saved_and_loaded_by_name(name, data, tmp_path):
    model = build(name)
    scores = model.predict(data.test).score
    model.save_pretrained(tmp_path)
    again = mmiln.load_pretrained(tmp_path)
    assert isinstance(again, Baseline)
    assert again.network == name
    assert np.array_equal(again.predict(data.test).score, scores)


# Changes for presets that take minutes to train; tests against the oracle have more than one layer.
SMALLER = {"mult": {"layers": 1}, "emt": {"layers": 1}, "tfn": {"text_out": 32}}


class Reached(mmiln.Callback):
    """Ends training once the validation part's MAE is below a bound."""

    def __init__(self, mae: float) -> None:
        self.mae = mae

    def on_epoch_end(self, model, epoch, logs):
        return logs["valid_mae"] < self.mae


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_it_overfits_sixteen_utterances(name, data):
    few = data.train.subset(range(16))
    settings = Baseline(name).settings
    quiet = {
        field: 0.0 for field in type(settings).model_fields if "dropout" in field or field.startswith("decay")
    }
    lr = 1e-3 if name == "misa" else 3e-3
    model = build(name, batch_size=16, lr=lr, **quiet, **SMALLER.get(name, {}))
    again = replace(few, id=[f"again {name}" for name in few.id])
    model.fit(few, again, epochs=150, patience=150, callbacks=[Reached(0.25)], progress=False)
    assert model.evaluate(few).mae < 0.25


@pytest.mark.slow
@pytest.mark.parametrize("name", LEARNING)
def test_it_beats_predicting_the_mean(name):
    whole = mmiln.data.synthetic(480, 96, 192)
    parts = Dataset(*(aligned(part) for part in (whole.train, whole.valid, whole.test)), name="aligned")
    constant = np.abs(parts.test.labels - parts.train.labels.mean()).mean()
    # Enough steps in spite of few utterances.
    model = build(name, batch_size=16, accumulate=1, **SMALLER.get(name, {}))
    model.fit(parts.train, parts.valid, epochs=8, callbacks=[Reached(0.8 * constant)], progress=False)
    assert model.evaluate(parts.test).mae < 0.9 * constant


@pytest.mark.parametrize("name", [name for name in LEARNING if not NETWORKS[name].ALIGNED])
def test_a_text_encoder_is_read_and_fine_tuned(name, tiny_bert):
    sentences = ["good film", "the film was bad", "very", "not very good"]
    rng = np.random.default_rng(0)
    frames = {
        n: [rng.normal(size=(6, w)).astype(np.float32) for _ in sentences]
        for n, w in (("audio", 5), ("vision", 4))
    }
    batch = {
        "raw_text": sentences,
        **frames,
        "labels": np.array([1.0, -1.0, 2.0, -2.0]),
        "index": np.arange(4),
    }
    model = build(name, text_encoder=tiny_bert, lr_text=1e-3)
    before = model.forward(batch)["M"]
    weight = model.state_dict().get("bert.embeddings.word_embeddings.weight")
    model.fit([batch], epochs=1, progress=False)
    assert not torch.equal(model.forward(batch)["M"], before)
    assert not torch.equal(model.state_dict()["bert.embeddings.word_embeddings.weight"], weight)


@pytest.mark.parametrize("name", [name for name in LEARNING if NETWORKS[name].ALIGNED])
def test_what_needs_words_says_so(name):
    batch = next(iter(mmiln.data.synthetic(8, 8, 8).train.loader(8)))
    with pytest.raises(mmiln.errors.MmilnError, match="align"):
        build(name).predict(batch)


def test_every_preset_can_be_built(data):
    for name, network in NETWORKS.items():
        assert set(network.PRESETS) >= {"mosi", "mosei"}
        for preset in network.PRESETS:
            Baseline(name, preset)
        assert network.__doc__
