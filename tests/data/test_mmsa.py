"""MMSA's dictionary pickles: true frames come out whatever the padding is."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmiln.data import load
from mmiln.errors import DataError, DataWarning

WIDTHS = {"audio": (12, 3), "vision": (15, 4)}


def _true_frames(rng: np.random.Generator, count: int, modality: str) -> list[np.ndarray[Any, Any]]:
    width, columns = WIDTHS[modality]
    lengths = rng.integers(1, width + 1, count)
    return [rng.normal(size=(length, columns)).astype(np.float32) for length in lengths]


def _pad(frames: list[Any], width: int, left: list[bool], fill: float = 0.0) -> Any:
    padded = np.full((len(frames), width, frames[0].shape[1]), fill)
    for row, true, at_start in zip(padded, frames, left, strict=True):
        row[slice(width - len(true), None) if at_start else slice(0, len(true))] = true
    return padded


def _tokens(rng: np.random.Generator, count: int, *, left: bool) -> Any:
    tokens = np.zeros((count, 3, 10), np.float32)
    for row in tokens:
        length = int(rng.integers(3, 10))
        at = slice(10 - length, None) if left else slice(0, length)
        row[0, at] = rng.integers(1000, 2000, length)
        row[1, at] = 1
    return tokens


def _content(
    *, left: bool | None = False, fill: float = 0.0, lengths: bool = True, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """An unaligned file and the true frames in it; ``left=None`` mixes both ends."""
    rng = np.random.default_rng(seed)
    content: dict[str, Any] = {}
    truth: dict[str, Any] = {}
    for split, count in {"train": 9, "valid": 4, "test": 5}.items():
        sides = [bool(i % 2) if left is None else left for i in range(count)]
        fields: dict[str, Any] = {
            "id": [f"{split}{i // 3}$_${i}" for i in range(count)],
            "raw_text": [f"sentence {i}" for i in range(count)],
            "text_bert": _tokens(rng, count, left=bool(left)),
            "text": rng.normal(size=(count, 10, 6)),
            "regression_labels": rng.uniform(-3, 3, count),
            "annotations": ["Positive"] * count,
        }
        truth[split] = {}
        for modality, (width, _) in WIDTHS.items():
            frames = _true_frames(rng, count, modality)
            truth[split][modality] = frames
            fields[modality] = _pad(frames, width, sides, fill)
            if lengths:
                fields[f"{modality}_lengths"] = [len(f) for f in frames]
        content[split] = fields
    return content, truth


def _load(tmp_path: Path, content: Any, **options: Any) -> Any:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(content, protocol=4))
    return load(path, **options)


@pytest.mark.parametrize("left", [False, True, None])
@pytest.mark.parametrize("fill", [0.0, np.nan, -np.inf])
def test_padding_at_either_end_is_cut(tmp_path: Path, left: bool | None, fill: float) -> None:
    content, truth = _content(left=left, fill=fill)
    dataset = _load(tmp_path, content)
    for name, split in dataset.splits.items():
        for modality in WIDTHS:
            for got, expected in zip(getattr(split, modality), truth[name][modality], strict=True):
                np.testing.assert_array_equal(got, expected)
                assert got.dtype == np.float32
    counts = dataset.report.counts
    padded = sum(len(f) < WIDTHS["audio"][0] for f in truth["train"]["audio"])
    if left is False:
        assert counts["train.audio.padded_end"] == padded
    if left is True:
        assert counts["train.audio.padded_start"] == padded
    assert counts["train.audio.noisy_padding"] == 0
    assert not any(key.endswith("nonfinite") for key in counts)


def test_noise_in_the_padding_means_that_the_end_is_padded(tmp_path: Path) -> None:
    content, truth = _content(fill=7.0)
    dataset = _load(tmp_path, content)
    for got, expected in zip(dataset.train.vision, truth["train"]["vision"], strict=True):
        np.testing.assert_array_equal(got, expected)
    padded = sum(len(f) < WIDTHS["vision"][0] for f in truth["train"]["vision"])
    assert dataset.report.counts["train.vision.noisy_padding"] == padded


@pytest.mark.parametrize("left", [False, True])
def test_true_zero_frames_at_the_ends_belong_to_the_utterance(tmp_path: Path, left: bool) -> None:
    content, truth = _content(left=left)
    whole = content["train"]["audio"]
    for row, true in zip(whole, truth["train"]["audio"], strict=True):
        at = len(row) - len(true) if left else 0
        row[at] = 0
        row[at + len(true) - 1] = 0
    dataset = _load(tmp_path, content)
    lengths = [len(f) for f in truth["train"]["audio"]]
    assert dataset.train.lengths("audio").tolist() == lengths
    for got, row, length in zip(dataset.train.audio, whole, lengths, strict=True):
        np.testing.assert_array_equal(got, (row[-length:] if left else row[:length]).astype("f4"))


@pytest.mark.parametrize("left", [False, True])
def test_tokens_and_their_features_follow_the_mask(tmp_path: Path, left: bool) -> None:
    content, _ = _content(left=left)
    tokens, features = content["train"]["text_bert"], content["train"]["text"]
    dataset = _load(tmp_path, content)
    for i, (got, text) in enumerate(zip(dataset.train.text_bert, dataset.train.text, strict=True)):
        mask = tokens[i, 1].astype(bool)
        np.testing.assert_array_equal(got, tokens[i][:, mask])
        np.testing.assert_array_equal(text, features[i][mask].astype(np.float32))
        assert got.dtype == np.int64


@pytest.mark.parametrize("left", [False, True, None])
def test_missing_lengths_are_inferred(tmp_path: Path, left: bool | None) -> None:
    content, truth = _content(left=left, lengths=False)
    content["test"]["audio"][2] = 0
    dataset = _load(tmp_path, content)
    for got, expected in zip(dataset.train.audio, truth["train"]["audio"], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert dataset.test.audio[2].tolist() == [[0.0, 0.0, 0.0]]
    assert dataset.report.counts["test.audio.all_zero"] == 1
    assert dataset.report.counts["train.audio.inferred_lengths"] == 9


def test_aligned_files_and_dev_and_missing_fields(tmp_path: Path) -> None:
    content, _ = _content(lengths=False)
    rng = np.random.default_rng(0)
    for fields in content.values():
        for absent in ("text_bert", "raw_text", "vision"):
            del fields[absent]
        fields["audio"] = rng.normal(size=(len(fields["id"]), 10, 3))
        fields["regression_labels"] = fields["regression_labels"][:, None]
    content["dev"] = content.pop("valid")
    del content["test"]
    dataset = _load(tmp_path, content)
    assert dataset.train.fields == ["text", "audio"]
    assert len(dataset.valid) == 4
    assert dataset.test is None
    assert dataset.dims == {"text": 6, "audio": 3, "vision": 0}
    assert dataset.train.lengths("text").tolist() == [10] * 9
    assert "There is no test part." in dataset.report.notes
    assert "Fields left unread: annotations." in dataset.report.notes


def test_arrays_of_strings_and_bytes_are_read(tmp_path: Path) -> None:
    content, _ = _content()
    content["train"]["id"] = np.array([[name] for name in content["train"]["id"]], object)
    content["train"]["raw_text"] = np.array([b"abc"] * 9)
    dataset = _load(tmp_path, content)
    assert dataset.train.id[4] == "train1$_$4"
    assert dataset.train.raw_text == ["abc"] * 9


def _set(split: str, key: str, index: Any, value: Any) -> Any:
    def spoil(content: Any) -> None:
        content[split][key][index] = value

    return spoil


def _put(split: str, key: str, value: Any) -> Any:
    def spoil(content: Any) -> None:
        content[split][key] = value

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_set("test", "audio_lengths", 1, -1), r"test: audio of 'test0\$_\$1' has the length -1.*12"),
        (_set("train", "audio_lengths", 2, 2.5), r"length 2\.5"),
        (_set("train", "regression_labels", 3, np.nan), r"train: expected finite labels.*train1"),
        (_set("valid", "regression_labels", 0, 3.01), r"valid: expected finite labels.*3\.01"),
        (_set("train", "text_bert", (4, 1), 0), r"mask of text_bert.*train1\$_\$4"),
        (_set("train", "text_bert", (4, 1, 1), 0), r"unbroken run of ones"),
        (_set("train", "text_bert", (4, 0, 1), 0.5), r"whole numbers"),
        (_put("train", "id", ["only"]), r"'id': 1, 'regression_labels': 9"),
        (_put("train", "audio", np.zeros((9, 2, 2, 3))), r"expected audio of shape \(N, T, w\)"),
        (_put("train", "audio", np.array([["x"]] * 9)), r"expected audio of shape"),
        (_put("train", "audio_lengths", 5), r"'audio_lengths': 1"),
        (_put("train", "audio_lengths", [[1], [2, 3]] + [[1]] * 7), r"expected audio_lengths"),
        (_put("train", "regression_labels", ["good"] * 9), r"expected regression_labels"),
        (_put("train", "raw_text", [None] * 9), r"one string for each entry of 'raw_text'"),
        (_put("test", "audio", None), r"same modalities in every split"),
        (_put("test", "id", ["train0$_$1", *"abcd"]), r"both train and test.*train0\$_\$1"),
        (lambda content: content.update(dev=content["valid"]), r"one valid split, got a second one, 'dev'"),
        (
            lambda content: [content.pop(name) for name in [*content]],
            r"splits train, valid and test, got \[\]",
        ),
    ],
)
def test_impossible_content_is_refused_with_its_place(tmp_path: Path, spoil: Any, message: str) -> None:
    content, _ = _content()
    spoil(content)
    with pytest.raises(DataError, match=message):
        _load(tmp_path, content)


def test_labels_a_rounding_error_beyond_3_pass(tmp_path: Path) -> None:
    content, _ = _content()
    content["train"]["regression_labels"][0] = 3.00005
    assert len(_load(tmp_path, content).train) == 9


def test_repeated_ids_and_those_shared_with_valid_are_reported(tmp_path: Path) -> None:
    content, _ = _content()
    content["train"]["id"][1] = content["train"]["id"][0]
    content["valid"]["id"][0] = content["train"]["id"][2]
    with pytest.warns(DataWarning, match=r"1 ids are in both train and valid: 'train0\$_\$2'; measures"):
        counts = _load(tmp_path, content).report.counts
    assert counts["train.id.repeated"] == 1
    assert counts["train.valid.id.shared"] == 1
