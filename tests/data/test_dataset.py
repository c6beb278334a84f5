"""Splits, batches and loaders: ragged, checked, and without a trace in global random state."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from mmiln.data import Dataset, Split, collate, synthetic
from mmiln.data.findings import Findings
from mmiln.errors import DataError


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
