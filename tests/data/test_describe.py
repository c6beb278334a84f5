"""The page that `mmiln inspect` shows: labels in their own range, values and what was read."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from mmiln.data import Dataset, Split, convert, load
from mmiln.data.describe import _label_header, _labels
from support import sequences


def _split(labels: list[float], **options: object) -> Split:
    return Split(
        [str(place) for place in range(len(labels))], labels, raw_text=["so"] * len(labels), **options
    )


@pytest.mark.parametrize(
    ("among", "header", "labels", "counts"),
    [
        ((-3, 3), "-3 -2 -1 0 +1 +2 +3", [-3, -2.6, -2.5, 0.4, 1.5, 2.5, 2.6, 3], "2 1 0 1 0 2 2"),
        ((-1, 1), "-1 -0.5 0 +0.5 +1", [-1, 0.2, 0.6, 1], "1 0 1 1 1"),
        ((1, 5), "1 2 3 4 5", [1, 4, 5, 5], "1 0 0 1 2"),
        ((0, 3), "0 1 2 3", [0, 0, 2.5001], "2 0 0 1"),
        ((0.5, 10.5), "0.5 3 5.5 8 10.5", [0.5, 9.3], "1 0 0 0 1"),
        ((0, 100), "0 25 50 75 100", [0, 51, 99], "1 0 1 0 1"),
    ],
)  # fmt: skip
def test_labels_in_their_own_range(
    among: tuple[float, float], header: str, labels: list[float], counts: str
) -> None:
    splits = {"train": _split(labels, label_range=among), "test": _split([among[0]] * 2, label_range=among)}
    assert _label_header(splits) == ("split", "utterances", *header.split(), "mean")
    first, second = _labels(splits)
    assert first == ("train", str(len(labels)), *counts.split(), f"{np.mean(labels):.2f}")
    assert second[2] == "2"


def test_without_labels() -> None:
    unlabelled = Split(["a"], None, raw_text=["so"])
    text = str(Dataset(None, None, unlabelled, name="x").describe())
    assert "no labels" in text
    assert "Values" not in text


def test_the_range_of_values_and_how_many_are_far() -> None:
    rng = np.random.default_rng(0)

    def part(name: str) -> Split:
        frames = {
            "audio": list(rng.uniform(2, 3, (30, 4, 2))),
            "vision": list(rng.uniform(-1, 1, (30, 2, 3))),
        }
        return Split([f"{name}{i}" for i in range(30)], rng.uniform(-3, 3, 30), **frames)

    data = Dataset(part("a"), part("b"), name="x")
    data.train.audio[3][1, 1] = 1e30
    data.valid.vision[0][0, :2] = -7e8
    rows = [line.split("│")[1:-1] for line in str(data.describe()).splitlines() if "│" in line]
    values = [[cell.strip() for cell in row] for row in rows[-4:]]
    assert [row[:2] for row in values] == [
        ["train", "audio"],
        ["train", "vision"],
        ["valid", "audio"],
        ["valid", "vision"],
    ]
    assert values[0][3:] == ["1e+30", "1"]
    assert values[1][2:] == [f"{min(map(np.min, data.train.vision)):.4g}", values[1][3], "0"]
    assert values[3][2] == "-7e+08"
    assert values[3][4] == "2"


def test_every_format_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.uniform(-3, 3, 6)
    part = {
        "id": [f"v{i}$_$0" for i in range(6)],
        "audio": rng.normal(size=(6, 3, 2)),
        "regression_labels": labels,
    }
    words = [
        ((["so"], np.ones((1, 2)), np.ones((1, 3))), np.array([[y]]), f"v{i}[0]")
        for i, y in enumerate(labels)
    ]
    (tmp_path / "mmsa.pkl").write_bytes(pickle.dumps({"train": part}))
    (tmp_path / "lists.pkl").write_bytes(pickle.dumps({"train": words}))
    (tmp_path / "table.csv").write_text("text,label\ngood,1\n")
    folder = sequences.write_all(tmp_path / "csd", sequences.mosi())
    convert(tmp_path / "mmsa.pkl", tmp_path / "mmsa.mmiln", progress=False)
    for path, said in (
        (tmp_path / "mmsa.pkl", "Read from a dictionary of splits, as of MMSA."),
        (tmp_path / "mmsa.mmiln", "Read from a dictionary of splits, as of MMSA."),
        (tmp_path / "lists.pkl", "Read from lists of samples, as of MISA, MMIM, BBFN and MAG-BERT."),
        (tmp_path / "table.csv", "Read from the table table.csv by its columns label, text."),
        (folder, "Computational sequences: "),
    ):
        data = load(path)
        page = " ".join(str(data.describe()).split())
        assert said in page
        assert data.name in page
        assert " ".join(data.describe()._repr_html_().split())
