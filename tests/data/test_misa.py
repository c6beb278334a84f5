"""MISA's lists of samples: variants, parts, and the split by video."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmiln.data import load
from mmiln.data.videos import video_of
from mmiln.errors import DataError, DataWarning, MissingFileError


def _samples(videos: int, clips: int = 5, *, lengths: bool = False, name: str = "v") -> list[Any]:
    rng = np.random.default_rng(0)
    samples = []
    for video in range(videos):
        for clip in range(clips):
            words = [f"word{i}" for i in range(int(rng.integers(1, 8)))]
            vision = rng.normal(size=(len(words), 4))
            audio = rng.normal(size=(len(words), 3))
            features: tuple[Any, ...] = (np.arange(len(words)), vision, audio, words)
            if lengths:
                wide = np.concatenate([vision, np.zeros((6, 4))])
                features = (features[0], wide, audio, words, len(words), np.int64(len(words)))
            samples.append((features, np.array([[1.5]]), f"{name}_{video}[{clip}]"))
    return samples


def _write(directory: Path, **parts: Any) -> Path:
    for name, samples in parts.items():
        (directory / f"{name}.pkl").write_bytes(pickle.dumps(samples, protocol=2))
    return directory


@pytest.mark.parametrize("valid", ["dev", "valid"])
def test_a_folder_of_parts(tmp_path: Path, valid: str) -> None:
    train = _samples(4, name="a")
    parts = {"train": train, valid: _samples(1, name="b"), "test": _samples(2, name="c")}
    dataset = load(_write(tmp_path, **parts))
    assert [len(split) for split in dataset.splits.values()] == [20, 5, 10]
    assert dataset.train.raw_text is not None
    assert dataset.train.raw_text[3] == " ".join(train[3][0][3])
    np.testing.assert_array_equal(dataset.train.vision[3], train[3][0][1].astype(np.float32))
    np.testing.assert_array_equal(dataset.train.audio[3], train[3][0][2].astype(np.float32))
    assert dataset.train.id[3] == "a_0[3]"
    assert dataset.train.labels[3] == 1.5


@pytest.mark.parametrize("lengths", [False, True])
def test_a_single_part_is_split_by_video(tmp_path: Path, lengths: bool) -> None:
    whole = _samples(20, lengths=lengths)
    path = _write(tmp_path, dev=whole) / "dev.pkl"
    alone = load(path)
    assert (list(alone.splits), len(alone.valid)) == (["valid"], 100)
    with pytest.raises(DataError, match=r"no train part, but valid: .* seed=0"):
        _ = alone.train
    with pytest.warns(DataWarning, match=r"one part alone \(valid, 100 utterances\)"):
        dataset = load(path, seed=3)
    videos = [{video_of(name) for name in split.id} for split in dataset.splits.values()]
    assert not (videos[0] & videos[1] or videos[0] & videos[2] or videos[1] & videos[2])
    assert [len(split) for split in dataset.splits.values()] == [60, 20, 20]
    assert "split by video with seed 3" in dataset.report.warnings[0]
    truth = {name: features for features, _, name in whole}
    for split in dataset.splits.values():
        for name, vision in zip(split.id, split.vision, strict=True):
            assert vision.shape == (len(truth[name][3]), 4)
    with pytest.warns(DataWarning):
        again = [load(path, seed=3), load(path, seed=4), load(tmp_path, seed=3)]
    assert [each.fingerprint() == dataset.fingerprint() for each in again] == [True, False, True]


def test_unequal_videos_stay_near_6_2_2(tmp_path: Path) -> None:
    whole = [s for video in range(30) for s in _samples(1, 1 + video % 9, name=f"u{video}")]
    with pytest.warns(DataWarning, match="141 utterances"):
        dataset = load(_write(tmp_path, train=whole), seed=0)
    shares = np.array([len(split) for split in dataset.splits.values()]) / len(whole)
    np.testing.assert_allclose(shares, [0.6, 0.2, 0.2], atol=0.06)


def test_a_dictionary_of_parts_in_one_file(tmp_path: Path) -> None:
    content = {"train": _samples(2, name="a"), "dev": _samples(1, name="b")}
    dataset = load(_write(tmp_path, data=content) / "data.pkl")
    assert len(dataset.valid) == 5
    assert "There is no test part." in dataset.report.notes


def test_a_column_of_sentiment_and_emotions_is_named(tmp_path: Path) -> None:
    whole = [(f, np.array([[-0.5, 0, 0, 3, 0, 0, 1]]), name) for f, _, name in _samples(5)]
    path = _write(tmp_path, train=whole)
    with pytest.raises(DataError, match=r"labels have 7 columns, .* from 0 to 6 .* emotions"):
        load(path)
    with pytest.raises(DataError, match="a column from 0 to 6, got 7"):
        load(path, target=7)
    assert set(load(path, target=0, labels=(-3, 3)).train.labels.tolist()) == {-0.5}
    assert set(load(path, target=3, labels=(0, 3)).train.labels.tolist()) == {3.0}


def test_video_part_of_an_id() -> None:
    ids = ["a_b[3]", "a_b$_$3", "a_b_3", "-x_Y[10]", "lone"]
    assert [video_of(name) for name in ids] == ["a_b", "a_b", "a_b", "-x_Y", "lone"]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (((1, 2, 3), [[1]], "x"), "sample 1 is of another form"),
        ("nonsense", "sample 1 is of another form"),
        (((np.zeros(2), np.zeros(2), np.zeros((2, 3)), []), [[1]], "x"), "another form"),
        (((0, np.ones((2, 4)), np.ones((2, 3)), [], -1, 2), [[1]], "x[1]"), r"'x\[1\]' claims -1 frames"),
        (((0, np.ones((2, 4)), np.ones((2, 3)), []), [[9]], "x[1]"), r"labels in \[-3, 3\]"),
        (((0, np.ones((2, 5)), np.ones((2, 3)), []), [[1]], "x[1]"), r"vision of shape \(T, 4\)"),
    ],
)
def test_a_foreign_sample_is_named(tmp_path: Path, sample: Any, message: str) -> None:
    samples = _samples(4)
    samples[1] = sample
    with pytest.raises(DataError, match=f"train: .*{message}"):
        load(_write(tmp_path, train=samples))


def test_parts_that_are_missing_or_doubled(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"train\.pkl, dev\.pkl"):
        load(tmp_path)
    with pytest.raises(DataError, match="at least 3 videos"):
        load(_write(tmp_path, dev=_samples(2)), seed=0)
    with pytest.raises(DataError, match=r"both dev\.pkl and valid\.pkl"):
        load(_write(tmp_path, valid=_samples(2)))


def test_no_frames_and_lengths_beyond_them(tmp_path: Path) -> None:
    samples = _samples(4)
    samples[1] = ((0, np.zeros((0, 4)), np.ones((2, 3)), ["a"], 0, 9), [[1]], "x[1]")
    with pytest.warns(DataWarning, match=r"train audio: 1 utterances claim more frames.*'x\[1\]'"):
        dataset = load(_write(tmp_path, train=samples))
    assert dataset.train.vision[1].tolist() == [[0.0] * 4]
    assert len(dataset.train.audio[1]) == 2
    assert dataset.report.counts == {"train.audio.cut": 1, "train.vision.no_frames": 1}
    assert any("1 utterances have no frame, and got one of zeros: 'x[1]'" in n for n in dataset.report.notes)
