"""Files that resemble MMSA's: other names, other shapes, parts that are missing, empty or the same."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmiln.data import Dataset, Split, collate, load
from mmiln.errors import DataError, DataWarning


def _tokens(lengths: Any, width: int) -> Any:
    tokens = np.zeros((len(lengths), 3, width))
    for row, length in zip(tokens, lengths, strict=True):
        row[0, :length] = [101, *range(2000, 1998 + length), 102]
        row[1, :length] = 1
    return tokens


def _part(name: str, lengths: Any = (3, 6, 4, 5), width: int = 6, **fields: Any) -> dict[str, Any]:
    rng = np.random.default_rng(len(name))
    count = len(lengths)
    part: dict[str, Any] = {
        "id": [f"{name}{i}" for i in range(count)],
        "regression_labels": np.linspace(-2, 2, count),
    }
    for modality, w in (("text", 5), ("audio", 3), ("vision", 4)):
        part[modality] = rng.normal(size=(count, width, w))
        for row, length in zip(part[modality], lengths, strict=True):
            row[length:] = 0
    return part | fields


def _load(folder: Path, content: Any, **options: Any) -> Dataset:
    path = folder / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    return load(path, **options)


@pytest.mark.parametrize(
    ("audio", "vision"),
    [("acoustic", "visual"), ("feature_A", "feature_V"), ("Audio", "video"), ("AUDIO", "Vision")],
)
def test_other_names_of_modalities(tmp_path, audio, vision):
    expected = _load(tmp_path, {"train": _part("a")})
    part = _part("a")
    part[audio], part[vision] = part.pop("audio"), part.pop("vision")
    dataset = _load(tmp_path, {"train": part})
    assert dataset.fingerprint() == expected.fingerprint()
    assert f"train: {vision!r} was read as vision." in dataset.report.notes


@pytest.mark.parametrize("valid", ["val", "validation", "dev", "Valid"])
def test_other_names_of_parts(tmp_path, valid):
    dataset = _load(tmp_path, {"Train": _part("a"), valid: _part("b")})
    assert list(dataset.splits) == ["train", "valid"]


def test_near_misses_are_named(tmp_path):
    strange = {"train": _part("a", visoin=1), "tset": _part("b")}
    del strange["train"]["vision"]
    with pytest.warns(DataWarning) as said:
        dataset = _load(tmp_path, strange)
    texts = [str(one.message) for one in said]
    assert any("train: 'visoin' was left unread; is it 'vision'?" in text for text in texts)
    assert any("'tset' is not a split and was left unread; is it 'test'?" in text for text in texts)
    assert dataset.report.warnings == [text.partition(": ")[2] for text in texts]


def test_an_array_of_another_name_is_told_of(tmp_path):
    with pytest.warns(
        DataWarning, match=r"'openface', an array \(4, 6, 2\), was left unread; .* name it text, audio"
    ):
        _load(tmp_path, {"train": _part("a", openface=np.ones((4, 6, 2)))})


def test_two_parts_that_are_one_object(tmp_path):
    train, test = _part("a"), _part("bc")
    with pytest.warns(DataWarning, match="4 ids are in both valid and test: 'bc0'"):
        dataset = _load(tmp_path, {"train": train, "valid": test, "test": test})
    assert dataset.valid.fingerprint() == dataset.test.fingerprint()
    assert dataset.report.counts["valid.test.id.shared"] == 4


def test_an_empty_part_is_absent(tmp_path):
    empty = {name: value[:0] for name, value in _part("b").items()}
    with pytest.warns(DataWarning, match="valid has no utterance, and was taken as absent"):
        dataset = _load(tmp_path, {"train": _part("a"), "valid": empty})
    assert list(dataset.splits) == ["train"]
    with pytest.raises(DataError, match="at least one utterance, got none"):
        _load(tmp_path, {"valid": empty})


def test_a_part_that_is_none_is_absent(tmp_path):
    with pytest.warns(DataWarning, match="valid is None, and was taken as absent"):
        dataset = _load(tmp_path, {"train": _part("a"), "valid": None})
    assert list(dataset.splits) == ["train"]


@pytest.mark.parametrize("alone", [False, True])
def test_features_of_whole_utterances_are_one_frame(tmp_path, alone):
    """Such as openSMILE's functionals, which are (N, w); a row of zeros is a frame too."""
    part, functionals = _part("abc"), np.zeros((len(_part("abc")["id"]), 7))
    functionals[1:] = 2.0
    part["audio"] = functionals
    if alone:
        part = {name: part[name] for name in ("id", "audio", "regression_labels")}
    dataset = _load(tmp_path, {"train": part})
    np.testing.assert_array_equal(np.concatenate(dataset.train.audio), functionals)
    assert set(dataset.train.lengths("audio")) == {1}
    assert "train: audio is (N, w), and was read as one frame an utterance." in dataset.report.notes


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
def test_word_aligned_files_without_lengths(tmp_path, tokens, silent):
    """Rows of zeros at [CLS], [SEP] and silent words belong to the utterance."""
    lengths = [3, 6, 4, 5]
    part = _part("a", lengths)
    for i, length in enumerate(lengths):
        for modality in ("audio", "vision"):
            part[modality][i, [0, length - 1]] = 0
    if silent:
        part["audio"][2, 1] = 0
    if tokens:
        part["text_bert"] = _tokens(lengths, 6)
    dataset = _load(tmp_path, {"train": part})
    for modality in ("text", "audio", "vision"):
        assert dataset.train.lengths(modality).tolist() == lengths
        frames = getattr(dataset.train, modality)
        for got, padded, length in zip(frames, part[modality], lengths, strict=True):
            np.testing.assert_array_equal(got, padded[:length].astype(np.float32))
    assert any("word-aligned" in note for note in dataset.report.notes)


def test_lengths_of_one_modality_serve_those_aligned_with_it(tmp_path):
    part = _part("a", audio_lengths=[3, 6, 4, 5])
    part["vision"][:, 2] = 0
    dataset = _load(tmp_path, {"train": part})
    assert dataset.train.lengths("vision").tolist() == [3, 6, 4, 5]


def test_two_modalities_of_equal_width_are_not_aligned_without_text(tmp_path):
    part = _part("a")
    del part["text"]
    part["vision"][1, 2:] = 0
    assert _load(tmp_path, {"train": part}).train.lengths("vision").tolist() == [3, 2, 4, 5]


def test_no_frames_and_lengths_beyond_the_width(tmp_path):
    part = _part("a", audio_lengths=[0, 6, 4, 5], vision_lengths=[3, 99, 4, 5])
    with pytest.warns(
        DataWarning, match=r"train vision: 1 utterances claim more than the 6 rows .* 'a1' with 99"
    ):
        dataset = _load(tmp_path, {"train": part})
    assert dataset.train.audio[0].tolist() == [[0.0] * 3]
    assert len(dataset.train.vision[1]) == 6
    assert dataset.report.counts["train.audio.no_frames"] == 1
    assert "train audio: 1 utterances have no frame, and got one of zeros: 'a0'." in dataset.report.notes


def test_every_reader_reads_no_frames_alike(tmp_path):
    frames = [np.zeros((0, 3)), np.ones((2, 3))]
    with pytest.warns(DataWarning, match="audio: 1 utterances have no frame, and got one of zeros: 'x'"):
        split = Split(["x", "y"], [0, 1], audio=frames)
    assert split.audio[0].tolist() == [[0.0] * 3]
    items = [
        {"id": n, "labels": 0.0, "audio": np.ones((2, 3)), "audio_lengths": k}
        for n, k in (("x", 0), ("y", 2))
    ]
    with pytest.warns(DataWarning, match="'x'"):
        assert Split.from_items(items).audio[0].tolist() == [[0.0] * 3]


def test_ids_of_mult_and_files_without_any(tmp_path):
    ids = np.array([["vid", 1.5, 2], ["vid", 2, 3], ["w", 0, 1], ["w", 1, 2]], object)
    dataset = _load(tmp_path, {"train": _part("a", id=ids)})
    assert dataset.train.id == ["vid[1.5-2]", "vid[2-3]", "w[0-1]", "w[1-2]"]
    part = _part("a")
    del part["id"]
    dataset = _load(tmp_path, {"train": part})
    assert dataset.train.id == ["train-0", "train-1", "train-2", "train-3"]
    assert "train has no ids; utterances were numbered." in dataset.report.notes


def test_lists_of_arrays_and_tokens_the_other_way_round(tmp_path):
    lengths = [3, 6, 4, 5]
    expected = _load(tmp_path, {"train": _part("a", text_bert=_tokens(lengths, 6))})
    part = _part("a", text_bert=_tokens(lengths, 6).transpose(0, 2, 1))
    for modality in ("text", "audio", "vision"):
        part[modality] = [row[:length] for row, length in zip(part[modality], lengths, strict=True)]
    assert _load(tmp_path, {"train": part}).fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("named", [False, True])
def test_features_of_one_clip(tmp_path, named):
    """As MMSA-FET's run_single returns them."""
    part = {name: value[1] for name, value in _part("a").items()} | {"config": {"audio": "opensmile"}}
    if not named:
        del part["id"], part["regression_labels"]
    part["text_bert"] = _tokens([6], 6)[0]
    dataset = _load(tmp_path, part)
    assert list(dataset.splits) == ["test"]
    assert dataset.test.id == (["a1"] if named else ["test-0"])
    assert (dataset.test.labels is None) is not named
    np.testing.assert_array_equal(dataset.test.audio[0], part["audio"].astype(np.float32))


# Items of a user's own torch dataset


def _items(**extra: Any) -> list[dict[str, Any]]:
    part = _part("a", lengths=(3, 6, 4))
    return [
        {"id": part["id"][i], "labels": 1.0, "audio": part["audio"][i], "audio_lengths": n}
        | {name: values[i] for name, values in extra.items()}
        for i, n in enumerate((3, 6, 4))
    ]


def test_items_are_cut_by_their_lengths():
    assert Split.from_items(_items()).lengths("audio").tolist() == [3, 6, 4]
    assert [len(frames) for frames in collate(_items())["audio"]] == [3, 6, 4]
    left = [item | {"padding_side": "left"} for item in _items()]
    np.testing.assert_array_equal(Split.from_items(left).audio[0], left[0]["audio"][3:].astype(np.float32))


@pytest.mark.parametrize("key", ["text", "text_bert"])
def test_tokens_and_aligned_arrays_of_items_are_cut_by_the_mask(key):
    """MMSA's dataset calls tokens ``text``."""
    tokens = _tokens([3, 6, 4], 6)
    items = [item | {key: row} for item, row in zip(_items(), tokens, strict=True)]
    for item in items:
        del item["audio_lengths"]
    split = Split.from_items(items)
    assert split.fields == ["text_bert", "audio"]
    assert split.lengths("text").tolist() == split.lengths("audio").tolist() == [3, 6, 4]


def test_labels_of_items():
    items = [item | {"labels": {"M": np.array([0.5]), "A": -1}} for item in _items()]
    split = Split.from_items(items)
    assert split.labels.tolist() == [0.5] * 3
    assert split.unimodal_labels["audio"].tolist() == [-1.0] * 3
    assert Split.from_items(_items(), labels=[4, 5, 1], label_range=(1, 5)).labels.tolist() == [4, 5, 1]
