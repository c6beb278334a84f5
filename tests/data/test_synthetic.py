"""The synthetic data set: MOSI's shape, and a structure that can be measured."""

from __future__ import annotations

import cProfile
import os
import pstats
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression, Ridge

from mmiln.data import Split, synthetic
from mmiln.data.synthetic import Ceiling, SyntheticDataset
from mmiln.data.words import POLARITIES, embedding, phrases
from mmiln.errors import ConfigError


@pytest.fixture(scope="module")
def dataset() -> SyntheticDataset:
    return synthetic(3000, 50, 3000)


def _score(predicted: np.ndarray, split: Split) -> Ceiling:
    error = float(np.abs(predicted - split.labels).mean())
    return Ceiling(error, float(np.corrcoef(predicted, split.labels)[0, 1]))


def test_lengths_are_those_of_mosi(dataset: SyntheticDataset) -> None:
    means = {name: dataset.train.lengths(name).mean() for name in ("text", "audio", "vision")}
    assert means == pytest.approx({"text": 14.8, "audio": 38.8, "vision": 42.6}, rel=0.05)
    for name, most in {"text": 50, "audio": 375, "vision": 500}.items():
        lengths = dataset.train.lengths(name)
        assert lengths.max() <= most
        assert np.median(lengths) < 0.92 * lengths.mean()  # skewed
    words = [len(text.split()) + 2 for text in dataset.train.raw_text]
    assert words == dataset.train.lengths("text").tolist()
    audio = dataset.train.lengths("audio")
    assert np.corrcoef(audio, words)[0, 1] > 0.7


def test_labels_are_those_of_mosi(dataset: SyntheticDataset) -> None:
    labels = dataset.train.labels
    np.testing.assert_allclose(labels * 5, np.rint(labels * 5), atol=1e-5)
    shares = np.bincount(np.rint(labels).astype(int) + 3, minlength=7) / len(labels)
    expected = [0.019, 0.155, 0.177, 0.193, 0.177, 0.244, 0.035]
    np.testing.assert_allclose(shares, expected, atol=0.03)
    assert dataset.dims == {"text": 64, "audio": 5, "vision": 20}


def test_videos_are_disjoint_and_have_several_clips(dataset: SyntheticDataset) -> None:
    videos = [{name.split("$_$")[0] for name in split.id} for split in dataset.splits.values()]
    assert len(set().union(*videos)) == sum(map(len, videos))
    assert len(dataset.train) / len(videos[0]) > 10
    assert len(set(dataset.train.id)) == len(dataset.train)


def test_words_alone_are_worse_than_everything(dataset: SyntheticDataset) -> None:
    train, test = dataset.latents["train"], dataset.latents["test"]
    text = LinearRegression().fit(train[:, :1], dataset.train.labels).predict(test[:, :1])
    full = LinearRegression().fit(train, dataset.train.labels).predict(test)
    text_score, full_score = _score(text, dataset.test), _score(full, dataset.test)
    assert full_score.mae < text_score.mae - 0.05
    assert full_score.corr > text_score.corr + 0.08
    # A linear model comes near the ceiling and does not pass it.
    for score, name in ((text_score, "text"), (full_score, "full")):
        ceiling = dataset.ceiling[name]
        assert ceiling.mae < score.mae < ceiling.mae + 0.15
        assert ceiling.corr - 0.1 < score.corr < ceiling.corr


def test_the_text_ceiling_is_the_conditional_expectation(dataset: SyntheticDataset) -> None:
    # The same from samples: mean and median label of each polarity in 3000 other utterances.
    polarity, labels = dataset.latents["train"][:, 0], dataset.train.labels
    mean = {p: labels[polarity == p].mean() for p in POLARITIES}
    median = {p: np.median(labels[polarity == p]) for p in POLARITIES}
    said = dataset.latents["test"][:, 0]
    corr = _score(np.array([mean[p] for p in said]), dataset.test).corr
    mae = _score(np.array([median[p] for p in said]), dataset.test).mae
    assert dataset.ceiling["text"] == pytest.approx((mae, corr), abs=0.015)


def test_the_frames_and_words_show_the_latents(dataset: SyntheticDataset) -> None:
    for name, column in {"text": 0, "audio": 1, "vision": 2}.items():
        summary = [
            np.stack([f.sum(axis=0) if name == "text" else f.mean(axis=0) for f in frames])
            for frames in (getattr(dataset.train, name), getattr(dataset.test, name))
        ]
        model = Ridge(1.0).fit(summary[0], dataset.latents["train"][:, column])
        predicted = model.predict(summary[1])
        assert np.corrcoef(predicted, dataset.latents["test"][:, column])[0, 1] > 0.6, name


def test_events_tell_what_a_mean_can_not(dataset: SyntheticDataset) -> None:
    latent = dataset.latents["train"][:, 1]
    column = [frames[:, 1] for frames in dataset.train.audio]
    shape = np.sin(np.linspace(0, 2 * np.pi, 9))[1:-1]
    matched = [np.correlate(c, shape, "same") for c in column]
    swing = [m.max() + m.min() for m in matched]
    assert abs(np.corrcoef([c.mean() for c in column], latent)[0, 1]) < 0.1
    assert np.corrcoef(swing, latent)[0, 1] > 0.4


def test_equal_seeds_give_equal_bytes_in_every_process() -> None:
    code = "from mmiln.data import synthetic; print(synthetic(30, 5, 5, seed=3).fingerprint())"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", code]
    there = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    assert synthetic(30, 5, 5, seed=3).fingerprint() == there.strip()
    assert synthetic(30, 5, 5, seed=4).fingerprint() != there.strip()


def test_splits_do_not_depend_on_each_other() -> None:
    one, other = synthetic(30, 5, 5), synthetic(60, 9, 5)
    assert one.test.raw_text == other.test.raw_text
    np.testing.assert_array_equal(one.test.vision[3], other.test.vision[3])


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    synthetic(20, 5, 5)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def test_the_default_sizes_need_few_steps_of_python() -> None:
    """Counts Python steps: an utterance has some hundred frames, and no Python loop goes over them."""
    with cProfile.Profile() as profile:
        made = synthetic()
    assert [len(s) for s in made.splits.values()] == [600, 150, 300]
    assert pstats.Stats(profile).total_calls < 300 * 1050


def test_a_phrase_has_one_polarity() -> None:
    ways = [phrase for polarity in POLARITIES for phrase in phrases(polarity)]
    assert len(ways) == len(set(ways))
    assert min(len(phrases(polarity)) for polarity in POLARITIES if polarity) >= 8


def test_embeddings_are_fixed() -> None:
    expected = [0.013835, -0.456600, -0.773220]
    np.testing.assert_allclose(embedding("good", 64)[:3], expected, atol=1e-6)


def test_widths_and_sizes_are_checked() -> None:
    assert synthetic(20, 5, 5, text_dim=8, audio_dim=2, vision_dim=3).dims == {
        "text": 8,
        "audio": 2,
        "vision": 3,
    }
    with pytest.raises(ConfigError, match="at least 2"):
        synthetic(20, 5, 1)
