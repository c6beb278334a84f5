"""Splits, batches and loaders: ragged, checked, and without a trace in global random state."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console
from torch.utils.data import ConcatDataset, Subset

from mmiln.data import Dataset, Split, collate, fold, synthetic
from mmiln.data.findings import Findings
from mmiln.data.videos import video_of
from mmiln.errors import DataError, DataWarning


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return synthetic(50, 12, 12)


def _order(loader: Any) -> list[int]:
    return [int(i) for batch in loader for i in batch["index"]]


def test_items_hold_what_is_present(dataset: Dataset) -> None:
    item = dataset.train[3]
    assert set(item) == {"text", "raw_text", "audio", "vision", "labels", "index", "id"}
    assert item["audio"] is dataset.train.audio[3]
    assert item["index"] == 3
    assert item["labels"] == pytest.approx(float(dataset.train.labels[3]))
    assert dataset.train[-1]["index"] == 49
    with pytest.raises(IndexError):
        dataset.train[50]


def test_batches_are_ragged(dataset: Dataset) -> None:
    batch = collate([dataset.train[i] for i in (4, 0, 7)])
    assert [a.shape for a in batch["audio"]] == [dataset.train.audio[i].shape for i in (4, 0, 7)]
    assert batch["labels"]["M"].dtype == np.float32
    np.testing.assert_array_equal(batch["labels"]["M"], dataset.train.labels[[4, 0, 7]])
    assert batch["index"].dtype == np.int64
    assert batch["index"].tolist() == [4, 0, 7]
    assert batch["id"][1] == dataset.train.id[0]
    assert batch["raw_text"][2] == dataset.train.raw_text[7]


def test_every_utterance_comes_once(dataset: Dataset) -> None:
    assert _order(dataset.train.loader(8)) == list(range(50))
    shuffled = _order(dataset.train.loader(8, shuffle=True))
    assert shuffled != list(range(50))
    assert sorted(shuffled) == list(range(50))


def test_the_seed_alone_determines_the_order(dataset: Dataset) -> None:
    def orders(seed: int) -> list[list[int]]:
        loader = dataset.train.loader(8, shuffle=True, seed=seed)
        return [_order(loader), _order(loader)]

    torch.manual_seed(1)
    first = orders(5)
    torch.manual_seed(2)
    assert orders(5) == first
    assert orders(6) != first
    assert first[0] != first[1]  # each epoch anew


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_leave_global_random_state_alone(dataset: Dataset, workers: int) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    order = _order(dataset.train.loader(8, shuffle=True, seed=1, num_workers=workers))
    assert order == _order(dataset.train.loader(8, shuffle=True, seed=1))
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert random.getstate() == before[2]


def test_a_subset_is_indexed_anew(dataset: Dataset) -> None:
    part = dataset.train.subset([9, 2, -1])
    assert part.id == [dataset.train.id[i] for i in (9, 2, 49)]
    assert [item["index"] for item in (part[i] for i in range(3))] == [0, 1, 2]
    assert part.vision[1] is dataset.train.vision[2]
    with pytest.raises(IndexError):
        dataset.train.subset([50])


def test_a_split_is_a_sequence(dataset: Dataset) -> None:
    split = dataset.train
    assert split.labels is not None
    mask, column = split.labels > 0.5, split.to_pandas()["label"]
    true = np.flatnonzero(mask).tolist()
    for index, at in {
        "a slice": (slice(2, 5), [2, 3, 4]),
        "a slice backwards": (slice(None, -4, -1), [49, 48, 47]),
        "positions": ([9, 2, -1], [9, 2, 49]),
        "of numpy": (np.array([9, 2]), [9, 2]),
        "of torch": (torch.tensor([9, -2]), [9, 48]),
        "of pandas": (pd.Series([9, 2], index=["a", "b"]), [9, 2]),
        "a range": (range(3, 7), [3, 4, 5, 6]),
        "a mask": (mask, true),
        "a mask of torch": (torch.from_numpy(mask), true),
        "a mask as a list": (mask.tolist(), true),
        "a mask of pandas": (column > 0.5, true),
        "a nullable one": ((column > 0.5).astype("boolean"), true),
        "of a sorted table": (column.sort_values() > 0.5, true),
        "of one named by ids": (column.set_axis(split.id) > 0.5, true),
    }.values():
        assert split[index].id == split.subset(index).id == [split.id[i] for i in at]
    for position in (3, np.int64(3), torch.tensor(3), -47):
        assert split[position]["id"] == split.id[3]
    assert Subset(split, [4, 7])[[1, 0]].id == [split.id[7], split.id[4]]  # type: ignore[index]


@pytest.mark.parametrize(
    ("index", "error", "said"),
    [
        ([50], IndexError, "range"),
        ([], DataError, "at least one utterance"),
        (slice(9, 3), DataError, "at least one utterance"),
        ([True, False], DataError, r"a mask of 50 booleans, got bool of shape \(2,\)"),
        ([0.5], DataError, "expected a slice, positions, or a mask of 50 booleans, got float64"),
        ([[1, 2]], DataError, r"of shape \(1, 2\)"),
        (["a"], DataError, "expected a slice, positions"),
        ("a", TypeError, "str"),
    ],
)
def test_other_selections_are_refused(
    dataset: Dataset, index: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        dataset.train[index]


def test_splits_are_joined(dataset: Dataset) -> None:
    train, valid = dataset.train, dataset.valid
    both = train + valid
    assert both.id == train.id + valid.id
    np.testing.assert_array_equal(both.labels, np.concatenate([train.labels, valid.labels]))
    assert both[50]["index"] == 50
    assert both.audio[-1] is valid.audio[-1]
    assert Split.concat([train[:3], train[3:9], train[9:]]).fingerprint() == train.fingerprint()
    assert len(Split.concat([train, train])) == 100
    unlabelled = Split(["a"], raw_text=["good"])
    assert (unlabelled + unlabelled).labels is None
    assert isinstance(train + ConcatDataset([valid]), ConcatDataset)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"raw_text": None}, "expected the same modalities in every split"),
        ({"audio": [np.ones((2, 4))] * 12}, "expected the same widths in every split, got .*'audio': 4"),
        ({"label_range": (-4, 4)}, "expected the same range of labels"),
        ({"labels": None}, "labels of the same kinds in every split"),
        ({"unimodal_labels": {"text": np.zeros(12)}}, "labels of the same kinds in every split"),
    ],
)
def test_splits_that_differ_are_not_joined(dataset: Dataset, change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Split.concat([dataset.train, replace(dataset.valid, **change)])
    with pytest.raises(DataError, match="at least one split to join"):
        Split.concat([])


PADDED = np.random.default_rng(0).normal(size=(3, 6, 2)).astype(np.float32)
TRUE = [4, 1, 6]


@pytest.mark.parametrize("fill", [0.0, np.nan])
@pytest.mark.parametrize("at_start", [False, True])
@pytest.mark.parametrize("form", [np.array, torch.tensor, list])
def test_padded_arrays_are_cut_to_their_lengths(form: Any, at_start: bool, fill: float) -> None:
    ids, padded = ["a", "b", "c"], PADDED.copy()
    true = [row[6 - n :] if at_start else row[:n] for row, n in zip(PADDED, TRUE, strict=True)]
    for row, n in zip(padded, TRUE, strict=True):
        row[: 6 - n] = fill if at_start else row[: 6 - n]
        row[n:] = row[n:] if at_start else fill
    expected = Split(ids, text=true, audio=true).fingerprint()
    for lengths in (TRUE, np.array(TRUE), torch.tensor(TRUE)):
        split = Split(ids, text=form(padded), audio=form(padded), text_lengths=lengths, audio_lengths=lengths)
        assert split.fingerprint() == expected
    assert replace(split, audio=None).lengths("text").tolist() == TRUE  # lengths are no fields


def test_padded_arrays_of_aligned_data_need_no_lengths() -> None:
    tokens = np.zeros((3, 3, 6), np.int64)
    for row, n in zip(tokens, TRUE, strict=True):
        row[1, :n] = 1
    split = Split(["a", "b", "c"], text_bert=tokens, text=PADDED, audio=torch.tensor(PADDED))
    assert [split.lengths(name).tolist() for name in ("text", "audio")] == [TRUE, TRUE]
    np.testing.assert_array_equal(split.audio[0], PADDED[0, :4])


def test_one_frame_an_utterance_has_no_padding() -> None:
    assert Split(["a", "b", "c"], audio=PADDED[:, :1]).lengths("audio").tolist() == [1, 1, 1]
    with pytest.warns(DataWarning, match="2 utterances have no frame"):
        Split(["a", "b", "c"], audio=PADDED, audio_lengths=[0, 3, 0])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"audio": PADDED}, "audio is a padded array, so audio_lengths is needed: .* list\\(audio\\)"),
        ({"vision": torch.tensor(PADDED)}, "vision is a padded array, so vision_lengths is needed"),
        ({"audio": PADDED[:, 0]}, r"got \(3, 2\); if each utterance has one frame.* give audio\[:, None\]"),
        ({"audio": PADDED, "audio_lengths": [4, 1]}, "audio_lengths as 3 whole numbers up to the 6 frames"),
        ({"audio": PADDED, "audio_lengths": [4, 1, 7]}, r"up to the 6 frames of the array, got \[4, 1, 7\]"),
        ({"audio": PADDED, "audio_lengths": [4, -1, 6]}, "audio_lengths as 3 whole numbers"),
        ({"audio": PADDED, "audio_lengths": [4.5, 1, 6]}, "audio_lengths as 3 whole numbers"),
        ({"audio": [PADDED[0], PADDED[1], PADDED[2, :3]], "audio_lengths": TRUE}, r"\(3, 2\), \(6, 2\)"),
    ],
)
def test_padded_arrays_without_true_lengths_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Split(["a", "b", "c"], **fields)


def test_a_table_of_utterances(dataset: Dataset) -> None:
    table = dataset.train.to_pandas()
    columns = ["id", "label", "raw_text", "text_length", "audio_length", "vision_length"]
    assert list(table.columns) == columns
    assert table["audio_length"].tolist() == dataset.train.lengths("audio").tolist()
    np.testing.assert_array_equal(table["label"], dataset.train.labels)


def test_lengths_of_what_is_absent_are_refused(dataset: Dataset) -> None:
    split = Split(["a"], np.zeros(1), audio=[np.ones((2, 3))])
    for wrong in ("vision", "raw_text", "labels"):
        with pytest.raises(DataError, match="expected a sequence"):
            split.lengths(wrong)
    tokens = np.ones((3, 4), np.int64)
    assert Split(["a"], np.zeros(1), text_bert=[tokens]).lengths("text").tolist() == [4]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": []}, "at least one utterance"),
        ({"audio": [np.ones((2, 3))]}, "'audio': 1"),
        ({"labels": [0.0, np.nan]}, r"finite labels.*'b'"),
        ({"labels": [[0.0], [1.0]]}, r"labels of shape \(N,\)"),
        ({"audio": [np.ones((2, 3)), np.ones((2, 4))]}, r"audio of shape \(T, 3\).*\(2, 4\).*'b'"),
        ({"audio": [np.ones((2, 3)), np.ones((0, 4))]}, r"T >= 1.*\(0, 4\)"),
        ({"audio": [np.ones((0, 3)), np.ones((0, 3, 1))]}, r"T >= 1.*\(0, 3, 1\)"),
        ({"audio": [np.float32(1), np.float32(1)]}, "expected audio of shape"),
        ({"text_bert": [np.ones((2, 4))] * 2}, r"text_bert of shape \(3, T\)"),
    ],
)
def test_impossible_splits_are_refused(fields: dict[str, Any], message: str) -> None:
    sound: dict[str, Any] = {"id": ["a", "b"], "labels": [0.0, 1.0], "raw_text": ["x", "y"]}
    with pytest.raises(DataError, match=message):
        Split(**{**sound, **fields})


def test_an_utterance_in_train_and_test_is_leakage(dataset: Dataset) -> None:
    with pytest.raises(DataError, match="tested on what it was trained on"):
        Dataset(dataset.train, None, dataset.train.subset([1]), name="x")


@pytest.mark.parametrize("seed", [None, 3])
def test_folds_keep_videos_together_and_test_every_utterance_once(seed: int | None) -> None:
    data = synthetic(60, 30, 30)
    divisions = list(data.kfold(4, seed=seed))
    every = {name for split in data.splits.values() for name in split.id}
    assert sorted(name for division in divisions for name in division.test.id) == sorted(every)
    for division, following in zip(divisions, [*divisions[1:], divisions[0]], strict=True):
        assert {name for split in division.splits.values() for name in split.id} == every
        assert division.valid.id == following.test.id
        videos = [{video_of(name) for name in split.id} for split in division.splits.values()]
        assert sum(map(len, videos)) == len(set.union(*videos))
        assert 20 <= len(division.test) <= 40
    same = list(data.kfold(4, seed=seed))
    assert [d.fingerprint() for d in divisions] == [d.fingerprint() for d in same]
    assert divisions[1].fingerprint() == fold(data, 1, 4).fingerprint() or seed is not None
    if seed is not None:
        other = next(data.kfold(4, seed=4))
        assert other.test.id != divisions[0].test.id


def test_folds_by_other_groups(dataset: Dataset) -> None:
    for division in dataset.kfold(3, by=lambda name: name[-1], seed=0):
        last = [{name[-1] for name in split.id} for split in division.splits.values()]
        assert sum(map(len, last)) == len(set.union(*last))
    with pytest.raises(DataError, match="as many groups as folds, got 1 and 4"):
        dataset.kfold(4, by=lambda name: "all")
    with pytest.raises(DataError, match="at least 3 folds, for train, valid and test, got 2"):
        dataset.kfold(2)
    with pytest.raises(DataError, match="one of 3 folds, from 0 on, got 3"):
        fold(dataset, 3, 3)


def test_the_fingerprint_follows_every_byte() -> None:
    reference = synthetic(20, 5, 5).fingerprint()
    assert len(reference) == 64
    assert synthetic(20, 5, 5).fingerprint() == reference
    seen = {reference}
    changed = synthetic(20, 5, 5)
    changed.test.vision[2][0, 0] += 1
    seen.add(changed.fingerprint())
    changed.train.labels[0] = -changed.train.labels[0] + 0.1
    seen.add(changed.fingerprint())
    changed.train.raw_text[0] += " again"
    seen.add(changed.fingerprint())
    changed.valid.id[0] += "x"
    seen.add(changed.fingerprint())
    changed.valid = None
    seen.add(changed.fingerprint())
    assert len(seen) == 6


def test_the_fingerprint_is_stable_over_releases() -> None:
    split = Split(["a", "b"], np.array([0.5, -1]), raw_text=["x", "ä"], audio=[np.ones((2, 1))] * 2)
    expected = "445b812144f5fd775dd402fb109efa64e2dc673206400c175543850a93f7a484"
    assert Dataset(split, name="x").fingerprint() == expected


def test_the_description_shows_the_numbers(dataset: Dataset) -> None:
    text = str(dataset.describe())
    assert "train" in text
    assert f"{dataset.train.lengths('audio').mean():.1f}" in text
    assert "audio 5" in text
    assert dataset.report.notes[0] in text
    console = Console(width=100)
    with console.capture() as capture:
        console.print(dataset.describe())
    assert "True lengths" in capture.get()
    assert repr(dataset).count("\n") == 0


def test_a_split_survives_pickling(dataset: Dataset) -> None:
    again = pickle.loads(pickle.dumps(dataset.train))
    assert again.id == dataset.train.id
    np.testing.assert_array_equal(again.audio[3], dataset.train.audio[3])


def test_what_matters_is_not_buried_under_notes_of_one_kind():
    report = Findings()
    report.add("Read from an MMSA pickle.")
    for part in ("train", "valid", "test"):
        for modality in ("audio", "vision"):
            padded = f"of {len(part)} padded utterances, 2 are padded at the end and 0 at the start"
            report.add(f"{part} {modality}: {padded}.")
    report.add("test audio: 3 NaN or infinite values in 1 utterances became 0.")
    report.warn("train audio: column 4 holds -inf, such as in 'u7'.")
    lines = report.summary()
    assert lines[:3] == [report.notes[0], report.notes[-1], report.notes[-2]]
    others = "train vision, valid audio, valid vision, test audio, test vision"
    assert lines[3:] == [f"{report.notes[1]} (5 more like it: {others})"]
    data = synthetic(4, 4, 4)
    data.report = report
    for shown in (str(data.describe()), data.describe()._repr_html_()):
        assert shown.index("-inf") < shown.index("became 0") < shown.index("padded at the end")
        assert shown.count("padded at the end") == 1
    assert len(report.notes) == 9
