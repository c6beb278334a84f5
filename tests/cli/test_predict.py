"""``mmiln predict``: datasets, sentences in CSV files and on standard input, the page."""

import hashlib
import io
import json
import pickle

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import mmiln
from mmiln import cli
from mmiln.data.formats.sentences import Sentences
from mmiln.errors import BatchError, ConfigError, DataError, DataWarning, MissingFileError
from support import small_bert, small_file
from support.page import Page

TINY = {"num_layers": 1, "d_model": 10, "num_heads": 2, "batch_size": 2}
SENTENCES = ["the film was very good", "badly, bad", "good"]


def invoke(*arguments, given=None):
    arguments = ["predict", *(str(a) for a in arguments)]
    return CliRunner().invoke(cli.app, arguments, input=given, catch_exceptions=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return small_file.write(tmp_path_factory.mktemp("data") / "small.pkl")


@pytest.fixture(scope="module")
def full(file, tmp_path_factory):
    """A model of text features and audio, and how its audio was scaled."""
    folder = tmp_path_factory.mktemp("full")
    data = mmiln.data.load(file, standardize=True)
    model = mmiln.Model("mosi", **TINY)
    model.predict(data.test)
    model.save_pretrained(folder)
    data.standardizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A model of text alone, and the folder that it is in."""
    folder = tmp_path_factory.mktemp("reader")
    model = mmiln.Model(
        "mosi", text_encoder=small_bert.write(folder), audio_dim=0, vision_dim=0, seed=3, **TINY
    )
    model.save_pretrained(folder / "saved")
    return model, folder / "saved"


def scores(model, sentences):
    return model.predict({"raw_text": sentences}).score


def test_a_dataset_is_scaled_as_in_training(full, file, tmp_path):
    data = mmiln.data.load(file, standardize=True)
    expected = mmiln.Model.from_pretrained(full).predict(data.test).to_pandas()
    out = tmp_path / "new" / "scores.csv"
    result = invoke("--model", full, "--data", file, "--out", out)
    assert "9 scores" in result.stdout
    pd.testing.assert_frame_equal(pd.read_csv(out), expected, check_dtype=False)
    assert invoke("--model", full, "--data", file).stdout == out.read_text()
    rows = json.loads(invoke("--model", full, "--data", file, "--split", "valid", "--json").stdout)
    assert [row["id"] for row in rows] == data.valid.id


def test_a_csv_file_keeps_its_columns(reader, tmp_path):
    model, folder = reader
    given = tmp_path / "given.csv"
    given.write_bytes(
        '\ufeffn,sentence,note\n007,the film was very good,NA\n008,"badly, bad",\n010,good\n'.encode()
    )
    out = tmp_path / "scored.csv"
    assert invoke("--model", folder, "--data", given, "--out", out).exit_code == 0
    written = pd.read_csv(out, dtype={"n": str}, keep_default_na=False)
    assert written.columns.tolist() == ["n", "sentence", "note", "score"]
    assert written["n"].tolist() == ["007", "008", "010"]
    assert written["note"].tolist() == ["NA", "", ""]
    assert written["sentence"].tolist() == SENTENCES
    np.testing.assert_allclose(written["score"], scores(model, SENTENCES), rtol=1e-6)
    with pytest.warns(DataWarning, match="3 of 3 different sentences are mostly unknown"):
        named = invoke("--model", folder, "--data", given, "--column", "n", "--json").stdout
    with pytest.warns(DataWarning, match="3 of 3 different sentences are mostly unknown"):
        expected = scores(model, ["007", "008", "010"])
    np.testing.assert_allclose([row["score"] for row in json.loads(named)], expected, rtol=1e-6)


def test_standard_input_has_a_sentence_a_line(reader):
    model, folder = reader
    result = invoke("--model", folder, "--data", "-", "--json", given="\n".join(SENTENCES) + "\n")
    rows = json.loads(result.stdout)
    assert [row["text"] for row in rows] == SENTENCES
    assert [row["score"] for row in rows] == pytest.approx(scores(model, SENTENCES), abs=1e-6)


@pytest.mark.parametrize(("between", "ending"), [(",", ".csv"), ("\t", ".tsv")])
def test_a_table_with_features_is_a_dataset(between, ending, tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.normal(size=(length, 5)) for length in (3, 1)]
    for place, each in enumerate(frames):
        np.save(tmp_path / f"{place}.npy", each)
    rows = [("text", "Audio"), ("very good", "0.npy"), ("bad", "1.npy")]
    (tmp_path / f"mine{ending}").write_text("\n".join(map(between.join, rows)))
    model = mmiln.Model("mosi", text_encoder=small_bert.write(tmp_path), audio_dim=5, vision_dim=0, **TINY)
    expected = model.predict({"raw_text": ["very good", "bad"], "audio": frames}).score
    model.save_pretrained(tmp_path / "saved")
    result = invoke("--model", tmp_path / "saved", "--data", tmp_path / f"mine{ending}", "--json")
    assert [row["score"] for row in json.loads(result.stdout)] == pytest.approx(expected, abs=1e-6)


def test_a_pipe_gets_csv_and_nothing_else(reader):
    model, folder = reader
    result = invoke("--model", folder, "--data", "-", given="good\nbad\n")
    lines = [line.split(",") for line in result.stdout.splitlines()]
    assert [line[0] for line in lines] == ["text", "good", "bad"]
    assert [float(line[1]) for line in lines[1:]] == pytest.approx(scores(model, ["good", "bad"]), abs=1e-6)
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("content", "column", "error", "fragment"),
    [
        ("a,b\n1,2\n", None, DataError, "columns 'a', 'b'; which of them"),
        ("text,raw_text\n1,2\n", None, DataError, "which of them"),
        ("a,b\n1,2\n", "text", DataError, "no column 'text', but 'a', 'b'"),
        ("text\nso, good\n", None, DataError, "double quotes"),
        ("text,n\ngood,1\nso, good,2\n", None, DataError, "can't be read as CSV"),
        ("text\ngood\n\" \"\n", None, DataError, "1 without, the first is row 2"),
        ("text\n", None, DataError, "at least one sentence"),
        ("", None, DataError, "can't be read as CSV"),
        (b"text\n\xff\n", None, DataError, "can't be read as CSV in UTF-8"),
        (b"text\n\x80abc\"\n", None, DataError, "can't be read"),
    ],
)  # fmt: skip
def test_what_is_no_table_of_sentences(content, column, error, fragment, tmp_path):
    path = tmp_path / "given.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(error, match=fragment):
        Sentences.of_csv(path, column)


def test_lines_that_are_no_sentences():
    assert Sentences.of_lines(b"good\r\nso bad").texts == ["good", "so bad"]
    with pytest.raises(DataError, match="the first is row 2"):
        Sentences.of_lines(b"good\n\nbad\n")
    with pytest.raises(DataError, match="in UTF-8"):
        Sentences.of_lines(b"\xff")
    with pytest.raises(DataError, match="at least one"):
        Sentences.of_lines(b"")


def test_calls_that_can_not_be_meant(full, reader, file, tmp_path):
    _, folder = reader
    given = tmp_path / "given.csv"
    given.write_text("text,score\ngood,1\n")
    for error, fragment, arguments in [
        (ConfigError, "reads audio, and sentences alone", [full, "-"]),
        (DataError, "'score' already", [folder, given]),
        (ConfigError, "--split is for datasets", [folder, "-", "--split", "test"]),
        (ConfigError, "--column is for CSV files", [full, file, "--column", "text"]),
        (ConfigError, "--column is for CSV files", [folder, "-", "--column", "text"]),
        (MissingFileError, "no file nowhere.csv", [folder, "nowhere.csv"]),
    ]:
        with pytest.raises(error, match=fragment):
            invoke("--model", arguments[0], "--data", *arguments[1:], given="good\n")
    features = mmiln.Model("mosi", text_dim=8, audio_dim=0, vision_dim=0, **TINY)
    features.save_pretrained(tmp_path / "features")
    with pytest.raises(ConfigError, match="text features, not sentences"):
        invoke("--model", tmp_path / "features", "--data", "-", given="good\n")


def test_the_page_is_written_whole(reader, tmp_path):
    _, folder = reader
    given, out = tmp_path / "some <b>.csv", tmp_path / "new" / "page.html"
    given.write_text("text\ngood\nbad\n")
    assert "2 scores" in invoke("--model", folder, "--data", given, "--html", out).stdout
    page = Page(out.read_text(encoding="utf-8"))
    assert page.title == "Predictions for some <b>.csv"
    assert [row[2] for row in page.tables["all"]] == ["text", "good", "bad"]
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


def test_the_page_of_a_dataset_says_what_was_scored(full, file, tmp_path):
    out = tmp_path / "page.html"
    assert "8 scores" in invoke("--model", full, "--data", file, "--split", "valid", "--html", out).stdout
    html = out.read_text(encoding="utf-8")
    part = mmiln.data.load(file, standardize=True).valid
    assert f"SHA-256 {part.fingerprint()[:12]}" in html
    weights = hashlib.sha256((full / "model.safetensors").read_bytes()).hexdigest()
    assert f"reads text, audio; {mmiln.Model.from_pretrained(full).summary().total:,} parameters" in html
    assert f"SHA-256 {weights[:12]}" in html
    metrics = mmiln.Model.from_pretrained(full).evaluate(part)
    assert float(dict(Page(html).tables["measures"])["MAE (sentiment points)"]) == pytest.approx(
        metrics.mae, abs=5e-5
    )


def _lone(tmp_path, labelled):
    """The test part of the small file as a file of its own."""
    part = small_file.content()["test"]
    if not labelled:
        del part["regression_labels"]
    path = tmp_path / "lone.pkl"
    path.write_bytes(pickle.dumps({"test": part}))
    return path


def test_a_part_alone_is_scored_whole(full, file, tmp_path):
    expected = pd.read_json(io.StringIO(invoke("--model", full, "--data", file, "--json").stdout))
    for labelled in (True, False):
        result = invoke("--model", full, "--data", _lone(tmp_path, labelled), "--json")
        got = pd.read_json(io.StringIO(result.stdout))
        assert got["score"].tolist() == expected["score"].tolist()
        assert ("label" in got) is labelled
        page = tmp_path / "page.html"
        invoke("--model", full, "--data", _lone(tmp_path, labelled), "--html", page)
        assert ("MAE" in page.read_text()) is labelled
    arguments = ["evaluate", "--model", str(full), "--data", str(_lone(tmp_path, False))]
    result = CliRunner().invoke(cli.app, arguments)
    assert isinstance(result.exception, BatchError)


def test_json_has_null_for_nan(full, tmp_path):
    """One utterance has no correlation."""
    path = tmp_path / "one.pkl"
    part = {name: values[:1] for name, values in small_file.content()["test"].items()}
    path.write_bytes(pickle.dumps({"test": part}))
    arguments = ["evaluate", "--model", str(full), "--data", str(path), "--json"]
    with pytest.warns(UserWarning, match="corr is NaN"):
        result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert json.loads(result.stdout, parse_constant=pytest.fail)["corr"] is None
