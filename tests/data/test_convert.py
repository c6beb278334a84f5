"""Converted data sets: the same data as from the source, whole or not there, opened without being read."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from torch.utils.data import DataLoader
from typer.testing import CliRunner

import mmiln
from mmiln import cli
from mmiln.data import Split, collate, convert, fold, load, sequences, standardized, verify
from mmiln.data.formats import converted
from mmiln.data.formats.staging import Staging
from mmiln.data.sequences import Ragged
from mmiln.errors import ConfigError, DataError, DataWarning, MissingFileError
from support import small_file

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks import mosei

SCALE = 0.0025


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pickle with NaN in true frames and a constant column."""
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
    parts = list(dataset.splits.values())
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
    with pytest.raises(DataError, match="train audio: 1 utterances hold NaN"):
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
    seeds = [None, 3] if form == "single part" else [3]
    for seed in seeds:
        with pytest.warns(DataWarning) if seed and form == "single part" else nullcontext():
            got = convert(source, tmp_path / f"{seed}.mmiln", seed=seed, progress=False)
            _check_same(got, load(source, seed=seed))


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
    scores, explained = [], []
    for path in (source, target):
        data = load(path, standardize=True)
        for split in data.splits.values():  # features in the place of tokens, which would need a text encoder
            split.text, split.text_bert = [t.T.astype(np.float32) for t in split.text_bert], None
        model = mmiln.Model("mosei", num_layers=1, d_model=8, num_heads=2, seed=1)
        model.fit(data.train, data.valid, epochs=1, progress=False)
        scores.append(model.predict(data.test).score)
        explained.append(str(model.explain(data.test, data.test.id[3], train=data.train)))
    np.testing.assert_array_equal(*scores)
    assert explained[0] == explained[1]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker:UserWarning")
@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_open_the_files_themselves(target: Path, start: str) -> None:
    split = load(target, standardize=True).valid
    assert split is not None
    context = multiprocessing.get_context(start)
    loader = DataLoader(split, 2, num_workers=2, collate_fn=collate, multiprocessing_context=context)
    frames = [frames for batch in loader for frames in batch["audio"]]
    for got, expected in zip(frames, split.audio or [], strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_pickled_split_names_its_files(target: Path) -> None:
    split = load(target, standardize=True).train
    arrays = sum(a.nbytes for field in (split.audio, split.vision) for a in field or [])
    texts = len(pickle.dumps([split.id, split.raw_text, split.labels]))
    assert len(pickle.dumps(split)) < 3 * texts + 20_000 < arrays / 2


# Whole or not at all

STOPPING = """
import sys
from pathlib import Path
from mmiln.data import convert, sequences

read = sequences.Padded._array

def stops(self, position):
    if position == 1 and Path(sys.argv[3]).exists():
        print("here", flush=True)
        sys.stdin.read()  # until it is killed, or whoever wanted to has ended
    return read(self, position)

sequences.Padded._array = stops
convert(sys.argv[1], sys.argv[2], progress=False)
"""


def _killed(source: Path, target: Path) -> Path:
    """The files that remain if a conversion is killed in the middle of the audio of valid."""
    staging = target.with_name(f".{target.name}.part")
    arguments = [str(source), str(target), str(staging / "valid" / "audio.npy")]
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPING, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"here\n"
    with pytest.raises(DataError, match="another process writes"):
        convert(source, target, progress=False)
    process.kill()
    process.communicate()
    assert not target.exists()
    return staging


def test_a_killed_conversion_goes_on_to_the_same_bytes(source: Path, target: Path, tmp_path: Path) -> None:
    other = tmp_path / "mosei.mmiln"
    staging = _killed(source, other)
    cut = tmp_path / "cut.part"
    shutil.copytree(staging, cut)
    before = (staging / "train" / "audio.npy").stat().st_mtime_ns
    convert(source, other, progress=False)
    assert (other / "train" / "audio.npy").stat().st_mtime_ns == before  # it was not written again
    assert not staging.exists()
    assert _bytes(other) == _bytes(target)

    # Files damaged since are written again; no file is reused for another source or other options.
    shutil.rmtree(other)
    shutil.copytree(cut, staging)
    _flip(staging / "train" / "audio.npy")
    convert(source, other, progress=False)
    assert _bytes(other) == _bytes(target)
    shutil.rmtree(other)
    shutil.copytree(cut, staging)
    expected = load(source, nonfinite="mean").fingerprint()
    assert convert(source, other, nonfinite="mean", progress=False).fingerprint() == expected


def test_one_that_is_stopped_after_every_file_ends_in_the_same_bytes(
    tmp_path: Path, monkeypatch: Any
) -> None:
    source, target = small_file.write(tmp_path / "small.pkl"), tmp_path / "small.mmiln"
    convert(source, tmp_path / "whole", progress=False)
    write, rename = Staging.write, Path.rename

    def write_and_stop(*arguments: Any) -> None:
        write(*arguments)
        raise KeyboardInterrupt

    def stop(*_: Any) -> None:
        monkeypatch.setattr(Path, "rename", rename)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", stop)
    monkeypatch.setattr(Staging, "write", write_and_stop)
    for _ in range(18):  # files of splits
        with pytest.raises(KeyboardInterrupt):
            convert(source, target, progress=False)
    monkeypatch.setattr(Staging, "write", write)
    with pytest.raises(KeyboardInterrupt):
        convert(source, target, progress=False)
    assert not target.exists()
    convert(source, target, progress=False)
    assert _bytes(target) == _bytes(tmp_path / "whole")


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_source_that_changes_meanwhile_is_noticed(source: Path, tmp_path: Path, monkeypatch: Any) -> None:
    changing = Path(shutil.copy(source, tmp_path))
    write = Staging.write

    def and_then_change(self: Staging, name: str, fill: Any) -> None:
        write(self, name, fill)
        if name == "train/audio.npy":
            array = pickle.loads(changing.read_bytes())["train"]["audio"][7, :2].tobytes()
            with changing.open("r+b") as file:
                file.seek(changing.read_bytes().index(array))
                file.write(bytes(len(array)))

    monkeypatch.setattr(Staging, "write", and_then_change)
    with pytest.raises(DataError, match=r"train audio of 'train1\$_\$7' was written otherwise"):
        convert(changing, tmp_path / "x.mmiln", progress=False)
    assert not (tmp_path / "x.mmiln").exists()
    monkeypatch.undo()
    _check_same(convert(changing, tmp_path / "x.mmiln", progress=False), load(changing))


def test_where_there_is_no_place(source: Path, target: Path, tmp_path: Path, monkeypatch: Any) -> None:
    before = _bytes(target)
    with pytest.raises(DataError, match=r"mosei\.mmiln exists: name another"):
        convert(source, target, progress=False)
    assert _bytes(target) == before
    with pytest.raises(DataError, match="is a converted data set already"):
        convert(target, tmp_path / "x", progress=False)
    with pytest.raises(MissingFileError, match="expected an existing directory for x"):
        convert(source, tmp_path / "nowhere" / "x", progress=False)
    with pytest.raises(MissingFileError, match="there is none at"):
        convert(tmp_path / "no.pkl", tmp_path / "x", progress=False)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(DataError, match=r"0\.\d+ GB are needed in .* 0\.00 GB are free"):
        convert(source, tmp_path / "x", progress=False)
    monkeypatch.undo()
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(DataError, match="No space left on device; once that is mended"):
        convert(source, tmp_path / "x", progress=False)
    assert not (tmp_path / "x").exists()


# Damage


def _manifest(folder: Path, **changes: Any) -> None:
    content = json.loads((folder / converted.MANIFEST).read_text())
    (folder / converted.MANIFEST).write_text(json.dumps(content | changes))


def test_a_byte_that_flipped_is_found_by_a_check(copy: Path) -> None:
    verify(copy)
    _flip(copy / "valid" / "vision.npy")
    load(copy)  # reads nothing of it
    with pytest.raises(DataError, match=r"copy\.mmiln: valid/vision\.npy is not as written, by the check"):
        verify(copy)
    result = CliRunner().invoke(cli.app, ["inspect", str(copy), "--check"])
    assert isinstance(result.exception, DataError)
    assert CliRunner().invoke(cli.app, ["inspect", str(copy)]).exit_code == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "train" / "audio.npy").write_bytes(b"five!"), r"audio\.npy has 5 bytes, expected"),
        (lambda f: (f / "test" / "labels.npy").unlink(), r"lacks test/labels\.npy"),
        (lambda f: shutil.rmtree(f / "valid"), r"lacks valid/"),
        (lambda f: _manifest(f, format=3), "format 3, this mmiln reads format 2: .* later mmiln"),
        (lambda f: _manifest(f, format="1"), r"manifest\.json is damaged: format"),
        (lambda f: _manifest(f, widths={"text": 0, "audio": 75, "vision": 35}), "its widths and sizes"),
        (lambda f: _manifest(f, fields=["text_bert", "audio"]), "its parts and fields are not those"),
        (lambda f: (f / "manifest.json").write_bytes(b"{"), r"manifest\.json can't be read as JSON"),
        (lambda f: _flip(f / "train" / "audio.npy", 0), r"audio\.npy is no \.npy file"),
        (lambda f: _flip(f / "train" / "audio_offsets.npy"), "rows are not those of the offsets"),
        (lambda f: _flip(f / "train" / "utterances.json", 0), r"utterances\.json can't be read as JSON"),
        (lambda f: _flip(f / "standardizer.safetensors", 0), "is damaged"),
    ],
)  # fmt: skip
def test_damage_is_told_of(copy: Path, damage: Any, message: str) -> None:
    damage(copy)
    with pytest.raises((DataError, MissingFileError), match=message):
        load(copy)


def test_only_a_converted_data_set_can_be_checked(source: Path) -> None:
    with pytest.raises(
        MissingFileError, match=r"expected a converted data set, a folder with manifest\.json"
    ):
        verify(source)


def test_the_command(source: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copy(source, tmp_path / "here.pkl"))
    result = CliRunner().invoke(cli.app, ["convert", str(copied), "--json"], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert report["out"] == str(tmp_path / "here.mmiln")
    assert report["source_bytes"] == source.stat().st_size
    assert report["bytes"] < report["source_bytes"] / 2
    assert report["fingerprint"] == load(source).fingerprint()
    shown = CliRunner().invoke(cli.app, ["convert", str(copied), str(tmp_path / "x")], catch_exceptions=False)
    assert "here: text_bert, raw_text, audio, vision" in shown.stdout
    assert "MB\n" in shown.stdout  # from so much


# Memory


@pytest.mark.slow
def test_converting_and_reading_take_little_memory_whatever_the_size(tmp_path: Path) -> None:
    source, target = tmp_path / "mosei.pkl", tmp_path / "mosei.mmiln"
    mosei.write(source, 0.05)
    code = (
        "import sys, mmiln; from mmiln.experiments.provenance import peak_memory\n"
        "before = peak_memory()\n"
        "{}\n"
        "print(peak_memory() - before)"
    )
    for what, most in (  # MiB; the file has 475, its largest array 230
        ("mmiln.data.convert(*sys.argv[1:], progress=False)", 230),
        ("[f.sum() for f in mmiln.data.load(sys.argv[2], standardize=True).train.audio]", 60),
    ):
        command = [sys.executable, "-c", code.format(what), str(source), str(target)]
        assert float(subprocess.run(command, check=True, capture_output=True).stdout) < most
    written = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    dataset = load(target)
    parts = dataset.splits.values()
    true = sum(4 * w * int(part.lengths(m).sum()) for part in parts for m, w in mosei.WIDTHS.items())
    assert written < 1.1 * true

    # Opening reads the manifest, headers and texts; no frame is touched.
    process = psutil.Process()
    before = process.io_counters().read_chars
    opened = load(target)
    assert process.io_counters().read_chars - before < written / 100

    def resident() -> int:
        return sum(m.rss for m in process.memory_maps() if m.path.startswith(str(target)))

    assert resident() == 0
    opened.train.audio[0].sum()
    assert resident() > 0
