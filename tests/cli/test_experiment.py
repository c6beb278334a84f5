"""``mmiln experiment``: every verb, its JSON, its errors."""

import json

import pytest
from typer.testing import CliRunner

from mmiln import cli
from mmiln.experiments import Experiment, Report
from mmiln.experiments.runs import Record
from support import small_file

TINY = ["--set", "num_layers=1", "--set", "d_model=8", "--set", "num_heads=2"]


def invoke(*arguments):
    return CliRunner().invoke(
        cli.app, ["experiment", *map(str, arguments)], catch_exceptions=False, env={"COLUMNS": "160"}
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return small_file.write(tmp_path_factory.mktemp("data") / "small.pkl")


@pytest.fixture(scope="module")
def folder(file, tmp_path_factory):
    """The paper's third table on a small file, one seed."""
    folder = tmp_path_factory.mktemp("table3")
    result = invoke(
        "run", "table3", "--data", file, "--seed", 1, "--epochs", 1, "--jobs", 2, "--out", folder, *TINY
    )
    assert result.exit_code == 0, result.output
    return folder, result


def test_run_shows_the_report_and_writes_it(folder):
    path, result = folder
    for fragment in ("full", "no_mrm", "no_mfm", "no_gate_fusion", "the row minus full", "report.md"):
        assert fragment in result.stdout
    assert "3 of 4: data: no_" in result.stderr or "4 of 4: data: no_" in result.stderr  # lines in a log
    names = {entry.name for entry in path.iterdir()}
    assert names >= {"experiment.json", "report.md", "report.tex", "report.html", "report.csv", "data"}
    record = Record.read(path / "data/no_mfm/seed-1")
    assert (record.config["variant"], record.config["d_model"], record.protocol.epochs) == ("no_mfm", 8, 1)
    assert record.protocol.standardized


def test_run_again_runs_nothing_and_gives_json(folder, file):
    path, _ = folder
    result = invoke(
        "run", "table3", "--data", file, "--seed", 1, "--epochs", 1, "--out", path, "--json", *TINY
    )
    rows = json.loads(result.stdout)
    assert [row["model"] for row in rows] == ["full", "no_mrm", "no_mfm", "no_gate_fusion"]
    assert result.stderr == ""
    frame = Report.read(path).to_pandas()
    assert [row["mae"] for row in rows] == pytest.approx(frame["mae"].tolist(), abs=1e-9)


def test_report_against_another_row(folder):
    path, _ = folder
    assert "the row minus no_mfm" in invoke("report", path, "--against", "no_mfm").stdout
    rows = json.loads(invoke("report", path, "--json").stdout)
    assert {row["part"] for row in rows} == {"test"}


def test_report_of_the_command_train(file, tmp_path):
    arguments = [
        "train",
        "--data",
        file,
        "--epochs",
        1,
        "--seed",
        1,
        "--seed",
        2,
        "--out",
        tmp_path,
        "--json",
        *TINY,
    ]
    assert CliRunner().invoke(cli.app, [*map(str, arguments)], catch_exceptions=False).exit_code == 0
    stdout = invoke("report", tmp_path).stdout
    assert "full" in stdout
    assert "2 runs; seeds 1, 2" in stdout


def test_cases(file, tmp_path):
    path = tmp_path / "kept.toml"
    path.write_text(
        'models = ["full", "text"]\nseeds = [1]\nepochs = 1\nkeep_models = true\n'
        f'[datasets.d]\npath = "{file}"\n'
        "[settings]\nnum_layers = 1\nd_model = 8\nnum_heads = 2\n"
    )
    out = tmp_path / "out"
    assert invoke("run", path, "--out", out, "--json", "--jobs", 2).exit_code == 0
    assert "words" in invoke("cases", out, "-n", 2).stdout
    assert (out / "cases.md").read_text().count("\n|") > 4
    study = json.loads(invoke("cases", out, "--id", "test0$_$1", "--json").stdout)
    assert [case["id"] for case in study["cases"]] == ["test0$_$1"]
    assert set(study["cases"][0]["contributions"]) == {"text", "audio"}


def test_search(file, tmp_path):
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mmiln[search]'")
    path = tmp_path / "mine.toml"
    path.write_text(
        'epochs = 1\nmodel = "text"\n[dataset]\npath = "none"\n[space.alpha]\nlow = 0.1\nhigh = 0.2\n'
    )
    out = tmp_path / "out"
    arguments = ["search", path, "--data", file, "--trials", 1, "--out", out, *TINY]
    stdout = invoke(*arguments).stdout
    assert "[model_settings.text]\nalpha = 0.1" in stdout
    assert "lowest validation MAE of 1 trials" in stdout
    found = json.loads(invoke(*arguments, "--json").stdout)
    assert 0.1 <= found["settings"]["alpha"] <= 0.2


@pytest.mark.parametrize("name", ["table2", "table3", "figure4", "controls"])
def test_the_paper_s_experiments_are_there(name, file, monkeypatch):
    from importlib import resources

    text = resources.files("mmiln.experiments").joinpath("paper", f"{name}.toml")
    with resources.as_file(text) as path:
        experiment = Experiment.read(path)
    experiment.check()
    assert experiment.name == name
    assert f"mmiln experiment run {name} --data" in text.read_text()
    monkeypatch.setenv("MMILN_DATASET", str(file))
    (source,) = experiment.datasets.values()
    assert len(source.load().train) == small_file.SIZES["train"]


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["run", "table9"], "the paper's experiments are controls, figure4, table2, table3"),
        (["run", "table3", "--seed", 1], "MMILN_DATASET"),
        (["run", "table3", "--set", "num_layer=3", "--data", "x"], "did you mean 'num_layers'"),
        (["report", "nowhere"], "no finished run in nowhere"),
        (["cases", "nowhere"], "no experiment was run in nowhere"),
    ],
)
def test_errors_are_one_sentence(arguments, fragment, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MMILN_DATASET", raising=False)
    monkeypatch.setattr("sys.argv", ["mmiln", "experiment", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    error = capsys.readouterr().err
    assert fragment in error
    assert "Traceback" not in error
