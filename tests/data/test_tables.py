"""Tables in CSV and Parquet become data sets; what is not understood is named by its column and row."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import mmiln
from mmiln.data import convert, load
from mmiln.errors import DataError, DataWarning, MissingFileError
from support import small_bert

SIMS = """\
video_id,clip_id,text,label,label_T,label_A,label_V,annotation,mode
video_0001,0001,我不想嫁给李茶,-0.6,-0.2,-0.8,-0.6,Negative,train
video_0001,0002,"好, 很好",0.8,0.4,1.0,0.6,Positive,valid
video_0002,0001,还行,0.0,0.0,0.0,0.0,Neutral,test
"""


def _csv(folder: Path, text: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_sentences_labels_and_parts(tmp_path: Path) -> None:
    path = _csv(tmp_path, "text,label,split\ngood,2.5,train\n bad ,-1,TRAIN\nso so,0,val\nfine,1e0,test\n")
    data = load(path)
    assert data.train.raw_text == ["good", "bad"]
    assert data.train.id == ["1", "2"]
    assert {name: split.labels.tolist() for name, split in data.splits.items()} == {
        "train": [2.5, -1], "valid": [0], "test": [1],
    }  # fmt: skip
    assert data.name == "mine"
    assert data.fields == ["raw_text"]
    assert list(load(path, test=False).splits) == ["train", "valid"]


@pytest.mark.parametrize(
    "header",
    ["raw_text,labels,part", "Sentence,Sentiment,Mode", "TEXT,score, split ", "\ufefftext,label,split"],
)
def test_other_names_of_columns(header: str, tmp_path: Path) -> None:
    data = load(_csv(tmp_path, f"{header}\ngood,2,train\nbad,-2,dev\n"))
    assert data.train.raw_text + data.valid.raw_text == ["good", "bad"]
    assert data.train.labels.tolist() + data.valid.labels.tolist() == [2, -2]
    assert not [note for note in data.report.notes if "unread" in note]


@pytest.mark.parametrize(("between", "name"), [("\t", "mine.tsv"), ("\t", "mine.csv"), (";", "mine.csv")])
def test_other_separators(between: str, name: str, tmp_path: Path) -> None:
    rows = (("text", "label", "split"), ("good, I'd say", "2.5", "train"), ("bad", "-1", "test"))
    data = load(_csv(tmp_path, "\n".join(map(between.join, rows)), name))
    assert data.train.raw_text == ["good, I'd say"]
    assert data.test.labels.tolist() == [-1]
    said = f"{name}: cells are separated by {between!r}, as its header has no comma."
    assert said in data.report.notes


def test_the_table_of_ch_sims(tmp_path: Path) -> None:
    data = load(_csv(tmp_path, SIMS))
    assert data.train.id == ["video_0001$_$0001"]
    assert data.valid.raw_text == ["好, 很好"]
    assert data.label_range == mmiln.labels.SIMS
    assert {name: values.tolist() for name, values in data.valid.unimodal_labels.items()} == {
        "text": pytest.approx([0.4]), "audio": [1.0], "vision": pytest.approx([0.6]),
    }  # fmt: skip
    assert "mine.csv: columns left unread: annotation." in data.report.notes


def test_labels_of_one_modality_that_some_parts_lack(tmp_path: Path) -> None:
    path = _csv(tmp_path, SIMS.replace("0.0,0.0,0.0,0.0,", "0.0,0.0,,0.0,"))
    with pytest.warns(DataWarning, match="label_a were left out: not every part"):
        data = load(path)
    assert all(sorted(split.unimodal_labels) == ["text", "vision"] for split in data.splits.values())
    with pytest.warns(DataWarning, match="label_t, label_a, label_v were left out"):
        data = load(_csv(tmp_path, SIMS.replace("label,", "other,")))
    assert data.train[0].keys() == {"raw_text", "id", "index"}


def test_videos_stay_together_without_clips(tmp_path: Path) -> None:
    rows = "".join(f"so,{i % 5 - 2},v{i // 4}\n" for i in range(40))
    with pytest.warns(DataWarning, match="split by video"):
        data = load(_csv(tmp_path, f"text,label,video_id\n{rows}"), seed=0)
    videos = [{name.partition("$_$")[0] for name in split.id} for split in data.splits.values()]
    assert sum(map(len, videos)) == 10


@pytest.mark.parametrize(("stem", "part"), [("train", "train"), ("dev", "valid"), ("mine", "test")])
def test_a_table_without_parts_is_the_part_of_its_name(stem: str, part: str, tmp_path: Path) -> None:
    data = load(_csv(tmp_path, "text,label\ngood,2\nbad,-2\n", f"{stem}.csv"), test=False)
    assert {name: len(split) for name, split in data.splits.items()} == {part: 2}


def test_weights(tmp_path: Path) -> None:
    path = _csv(tmp_path, "text,label,Weight,split\ngood,1,0.5,train\nbad,-1,2,train\nso,0,1,test\n")
    data = load(path)
    assert data.train.weights.tolist() == [0.5, 2]
    converted = convert(path, tmp_path / "mine.mmiln", progress=False)
    assert converted.train.weights.tolist() == [0.5, 2]
    assert converted.fingerprint() == data.fingerprint()
    with pytest.raises(DataError, match=r"train: expected finite weights of 0 or more, got -1 for '1'"):
        load(_csv(tmp_path, "text,label,weight\ngood,1,-1\n", "train.csv"))


def test_a_folder_with_a_table_for_each_part(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    _csv(folder, "text,label\ngood,1.5\nbad,-2\n", "train.csv")
    _csv(folder, "text,label\nso,0\n", "validation.csv")
    pd.DataFrame({"text": ["fine"], "label": [1.0]}).to_csv(folder / "Test.CSV", index=False)
    data = load(folder)
    assert {name: split.raw_text for name, split in data.splits.items()} == {
        "train": ["good", "bad"], "valid": ["so"], "test": ["fine"],
    }  # fmt: skip
    assert data.train.id + data.valid.id == ["train 1", "train 2", "valid 1"]
    assert list(load(folder, test=False).splits) == ["train", "valid"]
    assert convert(folder, tmp_path / "mine.mmiln", progress=False).fingerprint() == data.fingerprint()


def test_the_range_of_labels_is_that_of_all_tables(tmp_path: Path) -> None:
    _csv(tmp_path, "text,label\n" + "so,0.5\n" * 30, "train.csv")
    _csv(tmp_path, "text,label\nso,-2\n", "valid.csv")
    assert load(tmp_path).label_range == mmiln.labels.MOSI


def test_labels_of_one_modality_that_a_table_lacks(tmp_path: Path) -> None:
    _csv(tmp_path, "text,label,label_A\nso,0.5,1\n", "train.csv")
    _csv(tmp_path, "text,label\nso,-0.5\n", "valid.csv")
    with pytest.warns(DataWarning, match="label_a were left out: not every part has these"):
        assert load(tmp_path).train.unimodal_labels == {}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"valid.csv": "text\nso\n", "dev.csv": "text\nso\n"},
            "one file for the valid part, got both dev.csv",
        ),
        (
            {"train.csv": "text\nso\n", "dev.pkl": "x"},
            "pickles or tables in .*, got both: dev.pkl, train.csv",
        ),
        (
            {"train.csv": "text,split\nso,train\nso,test\n", "dev.csv": "text\nso\n"},
            "train.csv: expected rows of train alone beside the other files, got also rows of test",
        ),
    ],
)
def test_folders_that_may_mean_two_things(files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        _csv(tmp_path, text, name)
    with pytest.raises(DataError, match=said):
        load(tmp_path)


def test_without_labels_it_can_be_predicted(tmp_path: Path) -> None:
    data = load(_csv(tmp_path, "id,text\na,good\nb,bad\n"))
    assert data.test.labels is None
    assert data.test.id == ["a", "b"]


def test_one_part_may_have_no_labels(tmp_path: Path) -> None:
    data = load(_csv(tmp_path, "text,label,split\ngood,2,train\nbad,,test\n"))
    assert data.train.labels.tolist() == [2]
    assert data.test.labels is None


def test_other_ranges_and_columns(tmp_path: Path) -> None:
    path = _csv(tmp_path, "text,stars,joy\ngood,5,0.5\nbad,1,0\n")
    data = load(path, target="Stars", labels=(1, 5))
    assert data.test.labels.tolist() == [5, 1]
    assert data.label_range == (1, 5)
    with pytest.raises(
        DataError, match=r"target= to be one of the columns 'text', 'stars', 'joy', got 'star'"
    ):
        load(path, target="star")
    with pytest.raises(DataError, match="target= to be one of the columns"):
        load(path, target=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "text,label\ngood,1\nbad,\n",
            r"mine\.csv: expected a number in the column label .* '' in row 2, and 1",
        ),
        ("text,label\ngood,many\nbad,1\n", "got 'many' in row 1"),
        ("text,label\ngood,inf\nbad,1\n", "got 'inf' in row 1"),
        ('text,label\ngood,"1,5"\nbad,1\n', "got '1,5' in row 1"),
        ("text,label\ngood,7\n", r"finite labels in \[-3, 3\], got 7"),
        ("text,label,sentiment\ngood,1,1\n", "which column holds the labels, label or sentiment"),
        ("text,sentence,label\ngood,good,1\n", "expected one of the columns text and sentence"),
        ("text,Text,label\ngood,good,1\n", "columns of different names"),
        ("words,label\ngood,1\n", "expected a column text, raw_text, sentence, audio or vision, got 'words'"),
        ("text,label\n", "at least one row"),
        ("", "can't be read as CSV"),
        ("text,label\ngood,so,1\n", "more cells than the header"),
    ],
)
def test_what_is_not_understood_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said):
        load(_csv(tmp_path, text))


def test_rows_of_no_part_and_without_a_sentence_are_told_of(tmp_path: Path) -> None:
    path = _csv(tmp_path, "text,label,split\ngood,2,train\n,1,train\nbad,-2,unlabelled\nso,0,\n")
    with pytest.warns(DataWarning) as warned:
        data = load(path)
    assert data.train.raw_text == ["good", ""]
    notes = [str(warning.message) for warning in warned]
    assert any(
        "2 rows were left out, as their split is none of train, valid and test: '', 'unl" in n for n in notes
    )
    assert any("train: 1 rows have an empty sentence, the first is row 2" in note for note in notes)
    assert data.report.counts == {"split.unknown": 2, "train.raw_text.empty": 1}


def test_features_by_their_paths(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "a").mkdir()
    frames = [rng.normal(size=(n, 5)) for n in (3, 1, 4)]
    np.save(tmp_path / "a" / "0.npy", frames[0])
    np.save(tmp_path / "a" / "1.npy", frames[1].astype(np.float32))
    np.save(tmp_path / "a" / "2.npy", frames[2].T.copy().T)  # in Fortran's order
    path = _csv(tmp_path, "text,audio,label\n" + "".join(f"w{i},a/{i}.npy,{i}\n" for i in range(3)))
    data = load(path, nonfinite="mean")
    assert data.fields == ["raw_text", "audio"]
    for got, expected in zip(data.test.audio, frames, strict=True):
        np.testing.assert_array_equal(got, expected.astype(np.float32))
    data.test.audio[1][:] = 0  # in memory, not in the file
    np.testing.assert_array_equal(load(path).test.audio[1], frames[1].astype(np.float32))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (np.ones((2, 3, 4)), "one or two axes"),
        (np.ones(4), r"audio of shape \(T, 4\)"),
        (np.ones((2, 9)), r"audio of shape \(T, \d\)"),
        (np.array(["a"]), "no .npy file of numbers"),
        (None, r"path of a \.npy file in the column audio, relative to the table, got '2\.npy' in row 2"),
    ],
)
def test_features_that_are_none(content: np.ndarray | None, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "1.npy", np.ones((3, 4)))
    if content is not None:
        np.save(tmp_path / "2.npy", content)
    path = _csv(tmp_path, "text,audio,label\na,1.npy,1\nb,2.npy,1\n")
    with pytest.raises(DataError if content is not None else MissingFileError, match=said):
        load(path)


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "id": [7, 8, 9],
            "text": ["good, very", "bad", "so"],
            "label": [2.5, -1.0, np.nan],
            "split": pd.Categorical(["train", "valid", "test"]),
            "when": pd.to_datetime(["2020-01-01"] * 3),
        },
        index=[5, 6, 7],
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    csv, parquet = (load(tmp_path / f"x.{ending}") for ending in ("csv", "parquet"))
    assert csv.fingerprint() == parquet.fingerprint()
    assert parquet.train.id == ["7"]
    assert parquet.train.labels.tolist() == [2.5]
    assert parquet.test.labels is None


def test_parquet_that_is_none_or_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"x\.parquet can't be read as a table in Parquet"):
        load(path)
    pd.DataFrame({"text": ["good"] * 1_000_000}).to_parquet(path)
    with pytest.raises(DataError, match=r"claims 1000000 rows of .* bytes, and has"):
        load(path)


def test_without_pyarrow_one_sentence_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "import mmiln\n"
        f"mmiln.data.load({str(tmp_path / 'x.parquet')!r})"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert re.search(
        r"DataError: x\.parquet needs pyarrow to be read: pip install 'mmiln\[parquet\]'", run.stderr
    )


def test_a_table_is_converted_trained_on_measured_and_predicted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        np.save(tmp_path / f"{i}.npy", rng.normal(size=(3, 4)))
        rows.append(
            f"the film was {('good', 'bad')[i % 2]},{i}.npy,{i % 5 - 2},{('train', 'valid', 'test')[i % 3]}\n"
        )
    path = _csv(tmp_path, "text,audio,label,split\n" + "".join(rows))
    data = load(path)
    assert convert(path, tmp_path / "x.mmiln", progress=False).fingerprint() == data.fingerprint()
    encoder = small_bert.write(tmp_path)
    model = mmiln.Model("mosi", text_encoder=encoder, vision_dim=0, num_layers=1, d_model=10, num_heads=2)
    model.fit(data.train, data.valid, epochs=1, progress=False)
    measured = model.evaluate(data.test)
    unlabelled = "\n".join(
        line.rpartition(",")[0].rpartition(",")[0] for line in path.read_text().splitlines()
    )
    there = load(_csv(tmp_path, unlabelled, "test.csv"))
    assert there.test.labels is None
    every_third = model.predict(there.test).score[2::3]
    np.testing.assert_allclose(every_third, model.predict(data.test).score, rtol=1e-5)
    assert measured.mae > 0
