"""Labels: their range, columns, classes, those of one modality, and none at all."""

from __future__ import annotations

import pickle
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmiln.data import Dataset, Split, convert, load
from mmiln.errors import ConfigError, DataError, DataWarning
from mmiln.labels import MOSI, SIMS, LabelRange


def _part(name: str, count: int, labels: Any = None, **fields: Any) -> dict[str, Any]:
    rng = np.random.default_rng(count)
    part = {"id": [f"{name}{i}" for i in range(count)], "audio": rng.normal(size=(count, 4, 3))}
    part["audio_lengths"] = [4] * count
    if labels is not None:
        part["regression_labels"] = np.resize(labels, count)
    return part | fields


def _load(folder: Path, content: Any, **options: Any) -> Dataset:
    path = folder / "data.pkl"
    path.write_bytes(pickle.dumps(content))
    return load(path, **options)


def _small(count: int) -> Any:
    return np.linspace(-1, 1, count)


@given(
    low=st.floats(-1e3, 1e3), width=st.floats(1e-2, 1e3), share=st.floats(0, 1), as_is=st.booleans()
)  # fmt: skip
def test_a_range_maps_onto_the_models_scale_and_back(low, width, share, as_is):
    among = LabelRange(-width / 400, width / 400) if as_is else LabelRange(low, low + width)
    label = among.low + share * (among.high - among.low)
    scaled = among.scaled(label)
    assert abs(scaled) <= among.bound * (1 + 1e-6)
    assert among.restored(scaled) == pytest.approx(label, abs=1e-9 * (abs(low) + width))
    assert not among.outside([among.low, label, among.high]).any()
    assert among.outside([among.low - width / 10, np.nan, np.inf]).all()
    if as_is and among.bound <= 3:
        assert scaled is label


@pytest.mark.parametrize("wrong", [(1, 1), (3, -3), (0, np.inf), (np.nan, 1), 3, (1, 2, 3), "ab", None])
def test_what_is_no_range(wrong):
    with pytest.raises(ConfigError, match="range of labels"):
        LabelRange.checked(wrong)


def test_those_of_ch_sims(tmp_path):
    """Labels of single modalities say whose labels they are; so do many labels within [-1, 1]."""
    each = {
        f"regression_labels_{key}": np.full(6, value)
        for key, value in zip("TAV", (0.2, -0.4, 1.0), strict=True)
    }
    content = {"train": _part("a", 6, _small(6), **each), "test": _part("b", 6, _small(6), **each)}
    dataset = _load(tmp_path, content)
    assert dataset.label_range == SIMS
    assert any("those of CH-SIMS" in note for note in dataset.report.notes)
    assert {name: v.tolist() for name, v in dataset.test.unimodal_labels.items()} == {
        "text": [pytest.approx(0.2)] * 6, "audio": [pytest.approx(-0.4)] * 6, "vision": [1.0] * 6,
    }  # fmt: skip
    assert dataset.train[2]["labels"].keys() == {"M", "T", "A", "V"}
    assert next(iter(dataset.test.loader(6)))["labels"]["V"].tolist() == [1.0] * 6
    assert dataset.train.subset([5, 0]).unimodal_labels["text"].shape == (2,)
    again = convert(tmp_path / "data.pkl", tmp_path / "data.mmiln", progress=False)
    assert (again.label_range, again.fingerprint()) == (SIMS, dataset.fingerprint())
    assert again.test.unimodal_labels["audio"].tolist() == dataset.test.unimodal_labels["audio"].tolist()


@pytest.mark.parametrize(("kinds", "among"), [((0, 1), SIMS), ((0, 1, 2), MOSI)])
def test_numbers_of_classes_are_told_of(kinds, among, tmp_path):
    content = {
        "train": _part("a", 16, kinds, classification_labels=np.resize(kinds, 16)),
        "test": _part("b", 4, kinds),
    }
    with pytest.warns(
        DataWarning, match=f"All 20 labels are whole numbers from 0 to {kinds[-1]}, .* target="
    ):
        assert _load(tmp_path, content).label_range == among
    assert _load(tmp_path, content, labels=(0, 2)).label_range == (0, 2)
    content["train"]["regression_labels"] = -content["train"]["regression_labels"]
    with (
        nullcontext() if among == MOSI else pytest.warns(DataWarning, match="taken for the scale of CH-SIMS")
    ):
        _load(tmp_path, content)


def test_many_small_labels_are_taken_for_ch_sims_with_a_warning(tmp_path):
    many = {"train": _part("a", 15, _small(15)), "test": _part("b", 5, _small(5))}
    with pytest.warns(DataWarning, match=r"All 20 labels lie in \[-1, 1\].* labels=\(-3, 3\)"):
        assert _load(tmp_path, many).label_range == SIMS
    assert _load(tmp_path, many, labels=(-3, 3)).label_range == MOSI
    few = {"train": _part("a", 10, _small(10))}
    assert _load(tmp_path, few).label_range == MOSI
    assert _load(tmp_path, few, labels=(-1, 1)).label_range == SIMS


def test_labels_of_a_users_own_range(tmp_path):
    content = {"train": _part("a", 5, [1, 2, 3, 4, 5]), "test": _part("b", 3, [5, 5, 1])}
    with pytest.raises(DataError, match=r"train: .*labels in \[-3, 3\], got 4 for 'a3'.* labels=\(lo, hi\)"):
        _load(tmp_path, content)
    dataset = _load(tmp_path, content, labels=(1, 5))
    assert (dataset.label_range, dataset.test.labels.tolist()) == ((1, 5), [5, 5, 1])
    assert dataset.fingerprint() != _load(tmp_path, content, labels=(0, 5)).fingerprint()
    target = tmp_path / "x.mmiln"
    convert(tmp_path / "data.pkl", target, labels=(1, 5), progress=False)
    assert load(target).label_range == (1, 5)
    with pytest.raises(DataError, match=r"converted with labels in \[1, 5\]"):
        load(target, labels=(0, 5))


def test_labels_beyond_the_range_are_clamped_on_demand(tmp_path):
    content = {"train": _part("a", 4, [-3.5, 0, 3.3, 1])}
    with pytest.raises(DataError, match="and 2 such labels in all"):
        _load(tmp_path, content)
    with pytest.warns(DataWarning, match=r"train: 2 labels beyond \[-3, 3\] were clamped: 'a0', 'a2'\."):
        dataset = _load(tmp_path, content, clamp=True)
    assert dataset.train.labels.tolist() == [-3, 0, 3, 1]
    assert dataset.report.counts["train.labels.clamped"] == 2
    with pytest.raises(DataError, match="finite labels"):
        _load(tmp_path, {"train": _part("a", 2, [np.nan, 1])}, clamp=True)


def test_classes_and_columns_are_named(tmp_path):
    classes = {"train": _part("a", 4, classification_labels=[0, 1, 2, 1])}
    dataset = _load(tmp_path, classes)
    assert dataset.train.labels is None
    (note,) = (note for note in dataset.report.notes if "no labels" in note)
    assert "regression" in note and "target='classification_labels', labels=(0, 2)" in note
    named = _load(tmp_path, classes, target="classification_labels", labels=(0, 2))
    assert named.train.labels.tolist() == [0, 1, 2, 1]
    with pytest.raises(DataError, match=r"no field 'stars' to learn\..* classification_labels"):
        _load(tmp_path, classes, target="stars")
    emotions = {"train": _part("a", 2, regression_labels=np.arange(14).reshape(2, 7) / 10)}
    with pytest.raises(DataError, match="labels have 7 columns"):
        _load(tmp_path, emotions)
    assert _load(tmp_path, emotions, target=2, labels=(0, 3)).train.labels.tolist() == [
        pytest.approx(0.2), pytest.approx(0.9),
    ]  # fmt: skip


@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 1, 1)])
def test_shapes_of_labels(tmp_path, shape):
    content = {"train": _part("a", 3, regression_labels=np.array([1.0, -2.0, 0.5]).reshape(shape))}
    assert _load(tmp_path, content).train.labels.tolist() == [1.0, -2.0, 0.5]


def test_no_labels_at_all(tmp_path):
    dataset = _load(tmp_path, {"test": _part("a", 3)})
    assert dataset.test.labels is None
    assert "labels" not in dataset.test[0]
    assert "labels" not in next(iter(dataset.test.loader(2)))
    assert "label" not in dataset.test.to_pandas()
    with pytest.raises(DataError, match="can be predicted, not measured"):
        _ = dataset.test.truth
    assert "no labels" in str(dataset.describe())
    folder = tmp_path / "x.mmiln"
    assert convert(tmp_path / "data.pkl", folder, progress=False).test.labels is None
    assert not list(folder.glob("*/labels*"))
    assert Split.from_items(list(dataset.test)).labels is None
    assert Split.from_pandas(dataset.test.to_pandas(arrays=True)).fingerprint() == dataset.test.fingerprint()
