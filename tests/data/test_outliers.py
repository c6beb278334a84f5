"""Values far from others of their column are counted and named when data is loaded; usual ones are not."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from mmiln.data import Dataset, Split, convert, load
from mmiln.data.clean import clean_nonfinite
from mmiln.errors import DataWarning

WIDTH = 6


def _part(prefix: str, count: int, seed: int) -> Split:
    rng = np.random.default_rng(seed)
    frames = [rng.normal(3, 2, (int(rng.integers(1, 30)), WIDTH)) for _ in range(count)]
    return Split([f"{prefix}{i}" for i in range(count)], rng.uniform(-3, 3, count), audio=frames)


def _dataset() -> Dataset:
    return Dataset(_part("a", 60, 0), _part("b", 9, 1), _part("c", 9, 2), name="x")


def test_far_values_are_counted_and_named() -> None:
    dataset = _dataset()
    dataset.train.audio[3][0, [1, 4]] = 1e30
    dataset.train.audio[8][-1, 4] = -1e30
    dataset.test.audio[5][:] = 1e7
    clean_nonfinite(dataset, "zero")
    far = dataset.test.audio[5].size
    assert dataset.report.counts == {"train.audio.far": 3, "test.audio.far": far}
    of_train, of_test = dataset.report.warnings
    assert of_train.startswith("train audio: 3 values in 2 utterances lie more than 10000 times")
    assert "in columns 1, 4 of 'a3', 'a8':" in of_train
    assert "in columns 0, 1, 2, 3, 4, 5 of 'c5':" in of_test
    assert dataset.report.notes == dataset.report.warnings
    assert dataset.train.audio[3][0, 1] == np.float32(1e30), "they stay"


def test_not_more_than_five_utterances_are_named() -> None:
    dataset = _dataset()
    for frames in dataset.train.audio[:7]:
        frames[0, 0] = 1e20
    clean_nonfinite(dataset, "zero")
    (note,) = dataset.report.warnings
    assert "7 values in 7 utterances" in note
    assert "of 'a0', 'a1', 'a2', 'a3', 'a4', ...:" in note


def test_values_that_are_not_finite_are_not_far() -> None:
    dataset = _dataset()
    dataset.train.audio[3][0] = [np.nan, np.inf, -np.inf, 1e30, 0, 0]
    clean_nonfinite(dataset, "zero")
    assert dataset.report.counts == {"train.audio.far": 1, "train.audio.nonfinite": 3}


def test_the_spread_is_that_of_train_and_of_each_column() -> None:
    dataset = _dataset()
    for split in dataset.splits.values():
        for frames in split.audio:
            frames[:, 0] *= 1e9
    dataset.test.audio[0][0, 0] = 5e9  # usual in this column alone
    clean_nonfinite(dataset, "zero")
    assert not dataset.report.counts
    dataset.test.audio[0][0, 1] = 5e9
    clean_nonfinite(dataset, "zero")
    assert dataset.report.counts == {"test.audio.far": 1}


@pytest.mark.parametrize(
    "column",
    [
        lambda rng, n: np.zeros(n),
        lambda rng, n: np.where(np.arange(n) == n // 2, 300, 0),  # once, such as a pitch in Hz
        lambda rng, n: np.where(rng.random(n) < 0.03, rng.normal(200, 50, n), 0),  # seldom
        lambda rng, n: rng.integers(0, 2, n),
        lambda rng, n: np.exp(rng.normal(0, 2, n)),  # a heavy tail
        lambda rng, n: rng.normal(1e6, 1e-3, n),
        lambda rng, n: np.where(rng.random(n) < 0.5, -np.inf, rng.normal(-60, 9, n)),  # as COVAREP has them
        lambda rng, n: rng.normal(0, 1e-12, n) + (np.arange(n) == 7) * 0.5,  # constant but for noise
    ],
)  # fmt: skip
def test_what_features_usually_look_like_is_not_far(column: object) -> None:
    dataset = _dataset()
    rng = np.random.default_rng(5)
    total = sum(map(len, dataset.train.audio))
    ends = np.cumsum([len(frames) for frames in dataset.train.audio])[:-1]
    values = np.split(column(rng, total), ends)
    for frames, of_one in zip(dataset.train.audio, values, strict=True):
        frames[:, 2] = of_one
    for split in (dataset.valid, dataset.test):
        for frames in split.audio:
            frames[:, 2] = 0 if np.median(values[0]) < 1e5 else 1e6
    clean_nonfinite(dataset, "zero")
    assert not dataset.report.warnings


def test_a_file_and_its_conversion_warn_alike(tmp_path: Path) -> None:
    part = _part("a", 60, 0)
    padded = np.zeros((60, 30, WIDTH))
    for row, frames in zip(padded, part.audio, strict=True):
        row[: len(frames)] = frames
    padded[7, 0, 2] = 1e30
    lengths = part.lengths("audio")
    content = {"id": part.id, "audio": padded, "audio_lengths": lengths, "regression_labels": part.labels}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"train": content}))
    far = "train audio: 1 values in 1 utterances lie more than"
    with pytest.warns(DataWarning, match=far):
        read = load(tmp_path / "x.pkl")
    with pytest.warns(DataWarning, match=far):
        opened = convert(tmp_path / "x.pkl", tmp_path / "x.mmiln", progress=False)
    assert read.report.warnings == opened.report.warnings != []
    assert read.report.counts == opened.report.counts
    assert read.report.counts["train.audio.far"] == 1
