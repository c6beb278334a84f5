"""Which modalities a network reads, and what becomes of those that need not be there."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from mmiln.baselines import NETWORKS, Baseline
from mmiln.data import Split
from mmiln.data.names import MODALITIES
from mmiln.errors import BatchError, ConfigError

WHOLE = mmiln.data.synthetic(20, 8, 8)
ANY_TWO = ("tfn", "lmf", "mult", "misa", "self_mm")
PAIRS = list(itertools.combinations(MODALITIES, 2))
SMALL = {
    "tfn": {"text_out": 8, "audio_hidden": 8, "vision_hidden": 8},
    "mult": {"layers": 1, "width": 8, "heads": 2},
}
READ = [
    *((name, pair) for name in ANY_TWO for pair in PAIRS),
    *(("mmim", pair) for pair in PAIRS if "text" in pair),
    *(("lf_lstm", some) for n in (1, 2) for some in itertools.combinations(MODALITIES, n)),
]
REFUSED = [
    *(
        (name, (alone,))
        for name in (*ANY_TWO, "mmim")
        for alone in MODALITIES
        if name != "mmim" or alone == "text"
    ),
    *((name, pair) for name in ("amml", "emt", "mfn", "mfm", "raven", "mag_bert") for pair in PAIRS),
    *((name, ("audio", "vision")) for name in ("mmim", "text_only", "ef_lstm")),
]


def only(split: Split, some: tuple[str, ...]) -> Split:
    """The split with these modalities alone."""
    return Split(split.id, split.labels, **{m: getattr(split, m) for m in some})


def build(name: str, **fields: Any) -> Baseline:
    return Baseline(name, batch_size=8, **SMALL.get(name, {}) | fields)


@pytest.mark.parametrize(("name", "some"), READ)
def test_it_trains_is_saved_and_predicts_the_same(name, some, tmp_path):
    train, valid, test = (only(part, some) for part in (WHOLE.train, WHOLE.valid, WHOLE.test))
    model = build(name)
    history = model.fit(train, valid, epochs=2, progress=False)
    assert len(history["valid_mae"]) == 2
    scores = model.predict(test).score
    assert np.ptp(scores) > 1e-5
    for i in (0, 7):  # batches of one
        np.testing.assert_allclose(model.predict(test.subset([i])).score, scores[[i]], atol=2e-5)
    model.save_pretrained(tmp_path)
    again = mmiln.load_pretrained(tmp_path)
    assert np.array_equal(again.predict(test).score, scores)
    # What the data have besides is not read.
    assert np.array_equal(again.predict(WHOLE.test).score, scores)
    with pytest.raises(BatchError, match=f"the batch has no '{some[0]}'.* model"):
        again.predict(only(WHOLE.test, tuple(m for m in MODALITIES if m != some[0])))


@pytest.mark.parametrize("name", [*ANY_TWO, "mmim", "lf_lstm"])
def test_a_width_of_0_is_as_good_as_data_without(name):
    absent = build(name, vision_dim=0)
    absent.fit(WHOLE.train, epochs=1, progress=False)
    lacking = build(name)
    lacking.fit(only(WHOLE.train, ("text", "audio")), epochs=1, progress=False)
    for key, weight in lacking.state_dict().items():
        assert np.array_equal(absent.state_dict()[key], weight), key
    assert not any("vision" in key for key in absent.state_dict())


@pytest.mark.parametrize("name", [*ANY_TWO, "mmim", "lf_lstm"])
def test_a_text_encoder_and_one_other(name, tiny_bert):
    batch = {
        "raw_text": ["good film", "the film was bad", "very", "not very good"],
        "vision": [np.random.default_rng(i).normal(size=(6, 5)).astype(np.float32) for i in range(4)],
        "labels": np.array([1.0, -1.0, 2.0, -2.0]),
        "index": np.arange(4),
    }
    model = build(name, text_encoder=tiny_bert, lr_text=1e-3)
    before = model.forward(batch)["M"]
    model.fit([batch], epochs=1, progress=False)
    assert not torch.equal(model.forward(batch)["M"], before)
    # Sentences that nothing reads are not left out without a word.
    without = "" if name == "mmim" else ", or text_dim=0 to leave text out"
    with pytest.raises(BatchError, match=f"without text_encoder: give one to read raw_text{without}$"):
        build(name).predict(batch)
    if name == "lf_lstm":
        assert build(name, text_dim=0).predict(batch).score.shape == (4,)


def test_pseudo_labels_are_of_the_modalities_that_are_there():
    model = build("self_mm", text_dim=0)
    model.fit(WHOLE.train, epochs=2, progress=False)
    assert list(model.pseudo_labels) == ["audio", "vision"]


@pytest.mark.parametrize(("name", "some"), REFUSED)
def test_what_is_too_little_is_refused_with_what_is_needed(name, some):
    needs = [m for m in NETWORKS[name].NEEDS if m not in some]
    expected = (
        f"{name} needs {' and '.join(needs)}, which these data have not"
        if needs
        else f"{name} needs at least 2 of text, audio and vision, got {some[0]}"
    )
    with pytest.raises(BatchError, match=f"^{expected}$"):
        build(name).predict(only(WHOLE.test, some))


def test_every_network_is_one_that_reads_less_or_is_refused():
    assert {name for name, _ in (*READ, *REFUSED)} == set(NETWORKS) - {"mean"}


def test_mmiln_without_text_says_which_models_do_without():
    others = "tfn, lmf, mult, misa, self_mm, lf_lstm, mean"
    sentence = (
        f"MMILN needs text: .*text_dim=0, needs exactly one of .*; of mmiln.baselines, {others} do without"
    )
    with pytest.raises(BatchError, match=f"^the batch has no text features, and {sentence}"):
        mmiln.Model(num_layers=1).fit(only(WHOLE.train, ("audio", "vision")), epochs=1, progress=False)
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        mmiln.Model(text_dim=0)
    for name in ("audio", "vision"):
        model = mmiln.Model(text_dim=0, **{f"{name}_dim": 0}, num_layers=1)
        assert np.isfinite(model.predict(WHOLE.test).score).all()
