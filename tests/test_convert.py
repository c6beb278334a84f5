"""Converted data sets: the same data as from the source, whole or not there, opened without being read."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader
from typer.testing import CliRunner

import mmiln
import small_file
from mmiln import cli
from mmiln.data import Split, collate, convert, converted, fold, load, sequences, standardized, verify
from mmiln.data.sequences import Ragged
from mmiln.data.staging import Staging
from mmiln.errors import ConfigError, DataError, MissingFileError

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import mosei

SCALE = 0.0025


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With NaN in true frames, and a column that is constant."""
    path = tmp_path_factory.mktemp("source") / "unaligned_50.pkl"
    mosei.write(path, SCALE, frames=60)
    content = pickle.loads(path.read_bytes())
    content["train"]["audio"][2, 0, :2] = np.nan, np.inf
    content["test"]["vision"][0, 0, 5] = -np.inf
    for part in content.values():
        part["vision"][:, :, 3] = 2
    path.write_bytes(pickle.dumps(content, 4))
    return path


@pytest.fixture(scope="module")
def target(source: Path) -> Path:
    path = source.with_name("mosei.mmiln")
    convert(source, path, progress=False)
    return path


@pytest.fixture
def copy(target: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(target, tmp_path / "copy.mmiln"))


def _check_same(got: mmiln.data.Dataset, expected: mmiln.data.Dataset) -> None:
    assert got.name == expected.name
    assert got.report == expected.report
    assert got.splits.keys() == expected.splits.keys()
    for name, split in expected.splits.items():
        other = got.splits[name]
        assert (other.id, other.fields, other.dims) == (split.id, split.fields, split.dims)
        assert other.raw_text == split.raw_text
        np.testing.assert_array_equal(other.labels, split.labels)
        for field in (field for field in split.fields if field != "raw_text"):
            for one, two in zip(getattr(other, field), getattr(split, field), strict=True):
                assert one.dtype == two.dtype
                np.testing.assert_array_equal(one, two)
    assert got.fingerprint() == expected.fingerprint()


@pytest.mark.parametrize("test", [True, False])
@pytest.mark.parametrize("standardize", [True, False])
def test_what_is_opened_is_what_is_read_from_the_source(
    source: Path, target: Path, standardize: bool, test: bool
) -> None:
    expected = load(source, standardize=standardize, test=test)
    got = load(target, standardize=standardize, test=test)
    if not test:  # what was found in the test part was written down too
        got.report = expected.report
    _check_same(got, expected)
    assert all(isinstance(split.vision, Ragged) for split in got.splits.values())
    assert got.standardizer is None or got.standardizer.constant == {"vision": 1}
    assert str(got.describe()) == str(expected.describe())


@pytest.mark.parametrize("standardize", [True, False])
def test_fingerprints_are_known_and_true(target: Path, standardize: bool, monkeypatch: Any) -> None:
    dataset = load(target, standardize=standardize)
    parts = [split for split in dataset.splits.values()]
    known = [dataset.fingerprint(), *(split.fingerprint() for split in parts)]
    for each in (dataset, *parts):
        each.known = None
    assert known == [dataset.fingerprint(), *(split.fingerprint() for split in parts)]

    again = load(target, standardize=standardize)
    monkeypatch.setattr(sequences.Stored, "_array", lambda *_: pytest.fail("a file was read"))
    assert again.fingerprint() == known[0]
    assert [split.fingerprint() for split in pickle.loads(pickle.dumps(again)).splits.values()] == known[1:]


@pytest.mark.parametrize("what", ["labels", "id", "audio", "part"])
def test_a_change_has_another_fingerprint(target: Path, what: str) -> None:
    dataset = load(target)
    before, split_before = dataset.fingerprint(), dataset.train.fingerprint()
    if what == "labels":
        dataset.train.labels[0] *= -1
    elif what == "id":
        dataset.train.id[0] = "another"
    elif what == "audio":
        dataset.train.audio = dataset.train.audio[::-1]
    else:
        dataset.train = dataset.train.subset(range(5))
    assert dataset.fingerprint() != before
    assert dataset.train.fingerprint() != split_before


@pytest.mark.parametrize("how", ["zero", "mean"])
def test_values_that_are_not_finite(source: Path, tmp_path: Path, how: Any) -> None:
    target = tmp_path / "mosei.mmiln"
    _check_same(convert(source, target, nonfinite=how, progress=False), load(source, nonfinite=how))
    assert load(target, nonfinite=how).report.counts["train.audio.nonfinite"] == 2
    with pytest.raises(DataError, match=rf"nonfinite='{how}', by which 3 .* for 'raise' convert"):
        load(target, nonfinite="raise")
    with pytest.raises(ConfigError, match="nonfinite"):
        load(target, nonfinite="nought")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="2 NaN|1 utterances hold NaN"):
        convert(source, tmp_path / "other", nonfinite="raise", progress=False)
    assert not list(tmp_path.glob("*other*"))


@pytest.mark.parametrize("form", ["file", "folder", "single part"])
def test_every_format_is_converted(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    if form == "file":
        small_file.write(source)
    else:
        source.mkdir()
        small_file.write_misa(source)
    if form == "single part":
        source = source / "train.pkl"
    _check_same(convert(source, tmp_path / "x.mmiln", seed=3, progress=False), load(source, seed=3))


def test_parts_folds_tables_and_items(source: Path, target: Path) -> None:
    expected, got = load(source), load(target)
    some = got.train.subset([5, 2, 30])
    assert isinstance(some.audio, Ragged)
    assert some.fingerprint() == expected.train.subset([5, 2, 30]).fingerprint()
    assert Split.from_items(list(some)).fingerprint() == some.fingerprint()
    assert Split.from_pandas(some.to_pandas(arrays=True)).id == some.id
    two, one = (standardized(fold(each, 1, 4)) for each in (got, expected))
    assert isinstance(two.train.vision, Ragged)
    assert two.fingerprint() == one.fingerprint()


def test_training_gives_the_same_bits(source: Path, target: Path) -> None:
    scores = []
    for path in (source, target):
        data = load(path, standardize=True)
        for split in data.splits.values():  # features in the place of tokens, which would need a text encoder
            split.text, split.text_bert = [t.T.astype(np.float32) for t in split.text_bert], None
        model = mmiln.Model("mosei", num_layers=1, d_model=8, num_heads=2, seed=1)
        model.fit(data.train, data.valid, epochs=1, progress=False)
        scores.append(model.predict(data.test).score)
    np.testing.assert_array_equal(*scores)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker:UserWarning")
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_open_the_files_themselves(target: Path, start: str) -> None:
    split = load(target, standardize=True).valid
    assert split is not None
    loader = DataLoader(
        split, 2, num_workers=2, collate_fn=collate, multiprocessing_context=multiprocessing.get_context(start)
    )
    frames = [frames for batch in loader for frames in batch["audio"]]
    for got, expected in zip(frames, split.audio or [], strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_pickled_split_names_its_files(target: Path) -> None:
    split = load(target, standardize=True).train
    arrays = sum(a.nbytes for field in (split.audio, split.vision) for a in field or [])
    texts = len(pickle.dumps([split.id, split.raw_text, split.labels]))
    assert len(pickle.dumps(split)) < 3 * texts + 20_000 < arrays / 2


# Whole or not at all


def _run(source: Path, target: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "mmiln", "convert", str(source), str(target)])


def test_a_killed_conversion_goes_on_to_the_same_bytes(source: Path, target: Path, tmp_path: Path) -> None:
    other = tmp_path / "mosei.mmiln"
    staging = tmp_path / ".mosei.mmiln.part"
    # Killed in the middle of a file: from a process that stops there.
    code = (
        "import sys, time; from mmiln.data import convert, sequences\n"
        "read = sequences.Padded._array\n"
        "def slow(self, position):\n"
        "    if position == 1 and 'valid' in [p.name for p in __import__('pathlib').Path(sys.argv[3]).iterdir()]:\n"
        "        print('here', flush=True); time.sleep(60)\n"
        "    return read(self, position)\n"
        "sequences.Padded._array = slow\n"
        "convert(sys.argv[1], sys.argv[2], progress=False)\n"
    )
    staging.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(source), str(other), str(staging)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    with pytest.raises(DataError, match="another process writes"):
        convert(source, other, progress=False)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert not other.exists()
    whole = staging / "train" / "audio.npy"
    written = whole.stat().st_mtime_ns
    with pytest.raises(DataError, match="exists") if other.exists() else pytest.MonkeyPatch.context():
        convert(source, other, progress=False)
    assert (other / "train" / "audio.npy").stat().st_mtime_ns == written  # it was not written again
    assert not staging.exists()
    assert _bytes(other) == _bytes(target)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
