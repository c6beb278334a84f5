"""Experiments that run: processes, records, going on after an interruption."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

import mmiln
from mmiln import experiments
from mmiln.errors import ExperimentError, ProtocolError, StateError
from mmiln.experiments.runs import Record
from support import small_file
from support.waiting import HANG_S, until

DESCRIPTION = {
    "name": "small",
    "datasets": {
        "made": {"path": "synthetic", "n_train": 40, "n_valid": 16, "n_test": 24, "standardize": True}
    },
    "models": ["full", "text"],
    "seeds": [1, 2],
    "epochs": 2,
    "settings": {"d_model": 8, "num_heads": 2, "num_layers": 1},
}
FULL = "made/full/seed-1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("experiment")
    report = experiments.run(DESCRIPTION, folder, jobs=2, progress=False)
    assert repr(report) == "Report('small', 4 runs of made)"
    return folder


def predictions(folder, run=FULL):
    return (folder / run / "predictions.csv").read_bytes()


def test_a_record_says_what_made_the_numbers(folder):
    record = Record.read(folder / FULL)
    data = experiments.Experiment.of(DESCRIPTION).datasets["made"].load()
    assert record.fingerprint == data.fingerprint()
    assert record.sizes == {"train": 40, "valid": 16, "test": 24}
    assert record.config["num_layers"] == 1
    assert record.config["audio_dim"] == 5
    assert record.protocol.model_dump() == {
        "epochs": 2, "selection": "valid", "monitor": "valid_mae", "standardized": True, "folds": None,
        "shuffled_labels": False,
    }  # fmt: skip
    assert record.code["version"] == mmiln.__version__
    assert len(record.code["digest"]) == 64
    assert record.machine["torch"] == str(torch.__version__)
    assert record.peak_memory_mib > 100
    assert len(record.history["train_total"]) == len(record.history["valid_mae"]) == 2
    assert record.history["valid_mae"][record.best_epoch - 1] == min(record.history["valid_mae"])
    frame = pd.read_csv(folder / FULL / "predictions.csv").query("part == 'test'")
    assert frame["id"].tolist() == data.test.id
    measured = mmiln.Metrics.of(frame["label"], frame["score"])
    assert record.metrics["test"] == pytest.approx(measured.to_dict())
    pseudo = pd.read_csv(folder / FULL / "pseudo_labels.csv")
    assert list(pseudo.columns) == ["id", "label", "audio", "vision"]
    assert pseudo["id"].tolist() == data.train.id
    assert not (folder / "made/text/seed-1/pseudo_labels.csv").exists()


def test_a_run_in_its_process_gives_the_numbers_of_one_here(folder):
    data = experiments.Experiment.of(DESCRIPTION).datasets["made"].load()
    model = mmiln.Model("mosi", seed=1, **DESCRIPTION["settings"])
    model.fit(data.train, data.valid, epochs=2, progress=False)
    frame = pd.read_csv(folder / FULL / "predictions.csv").query("part == 'test'")
    assert (frame["score"].to_numpy(np.float32) == model.predict(data.test).score).all()


def test_finished_runs_are_not_repeated_and_a_lost_one_comes_back_to_the_bit(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")}
    scores = predictions(folder)
    (folder / FULL / "run.json").unlink()
    (folder / FULL / "predictions.csv").write_text("half a fi")
    experiments.run(DESCRIPTION, folder, jobs=1, progress=False)  # one job here, two before
    after = {path: path.stat().st_mtime_ns for path in folder.rglob("run.json")}
    assert {path for path in after if after[path] != before[path]} == {folder / FULL / "run.json"}
    assert predictions(folder) == scores


def test_more_seeds_and_models_are_added_to_what_is_there(folder):
    before = (folder / FULL / "run.json").stat().st_mtime_ns
    report = experiments.run(DESCRIPTION | {"models": ["full", "no_mrm"]}, folder, jobs=2, progress=False)
    assert (folder / FULL / "run.json").stat().st_mtime_ns == before
    assert sorted(report.to_pandas()["model"].unique()) == ["full", "no_mrm"]
    experiments.run(DESCRIPTION, folder, progress=False)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 3}, r"epochs 2 \(now 3\)"),
        ({"settings": DESCRIPTION["settings"] | {"alpha": 0.7}}, r"alpha 0.3 \(now 0.7\)"),
        ({"selection": "test"}, r"selection 'valid' \(now 'test'\)"),
        ({"datasets": {"made": DESCRIPTION["datasets"]["made"] | {"seed": 9}}}, "data '"),
    ],
)
def test_a_folder_of_another_protocol_is_refused(folder, change, said):
    before = (folder / "experiment.json").read_bytes()
    with pytest.raises(StateError, match=said):
        experiments.run(DESCRIPTION | change, folder, progress=False)
    assert (folder / "experiment.json").read_bytes() == before


def test_runs_beside_another_torch_are_refused(folder):
    path = folder / FULL / "run.json"
    before = path.read_text()
    fields = json.loads(before)
    fields["machine"]["torch"] = "2.3.0+cpu"
    path.write_text(json.dumps(fields))
    with pytest.raises(StateError, match=r"holds a finished run with torch '2\.3\.0' \(now '2\."):
        experiments.run(DESCRIPTION, folder, progress=False)
    with pytest.raises(ProtocolError, match=r"torch: '2\.3\.0' and '2\."):
        experiments.Report.read(folder)
    path.write_text(before)
    experiments.run(DESCRIPTION, folder, progress=False)


def test_two_processes_do_not_run_in_one_folder(folder):
    with FileLock(folder / ".lock"), pytest.raises(StateError, match="another process"):
        experiments.run(DESCRIPTION, folder, progress=False)


def test_a_run_that_fails_says_why_and_stops_no_other(tmp_path):
    source = {"path": str(small_file.write(tmp_path / "no_vision.pkl"))}
    wrong = DESCRIPTION | {"seeds": [1], "models": ["vision", "text"], "datasets": {"made": source}}
    with pytest.raises(ExperimentError) as caught:
        experiments.run(wrong, tmp_path, progress=False)
    assert "1 run failed" in str(caught.value)
    assert "made: vision, seed 1: DataError: the model 'vision' needs vision" in str(caught.value)
    assert "made has text, raw_text, audio only" in str(caught.value)
    log = tmp_path / "made/vision/seed-1/log.txt"
    assert str(log) in str(caught.value)
    assert "Traceback" in log.read_text()
    assert (tmp_path / "made/text/seed-1/run.json").is_file()
    assert not (tmp_path / "made/vision/seed-1/run.json").exists()


def test_a_missing_file_is_told_once_a_run(tmp_path):
    wrong = DESCRIPTION | {"datasets": {"made": {"path": str(tmp_path / "none.pkl")}}, "seeds": [1]}
    with pytest.raises(ExperimentError, match=r"MissingFileError: expected a data set, but there is none"):
        experiments.run(wrong, tmp_path / "out", progress=False)


def workers_of(folder):
    """Processes of experiments that write below a folder."""
    found = []
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and str(folder) in os.readlink(f"/proc/{entry}/fd/2"):
                found.append(int(entry))
        except OSError:
            continue
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="looks at processes through /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_experiment_leaves_no_worker_and_goes_on(folder, tmp_path, how):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(DESCRIPTION))
    code = (
        "import json, sys; from mmiln import experiments\n"
        "experiments.run(json.loads(open(sys.argv[1]).read()), sys.argv[2], jobs=2)"
    )
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(out)], stderr=subprocess.PIPE, start_new_session=True
    )
    until(lambda: workers_of(out), "there are workers")
    process.send_signal(how)
    process.communicate(timeout=HANG_S)
    until(lambda: not workers_of(out), "there are no workers")
    experiments.run(DESCRIPTION, out, jobs=2, progress=False)
    assert predictions(out) == predictions(folder)


def test_cross_validation_tests_every_utterance_once_a_seed(tmp_path):
    source = DESCRIPTION["datasets"]["made"] | {"folds": 3}
    report = experiments.run(
        DESCRIPTION | {"datasets": {"made": source}, "models": ["text"], "epochs": 1},
        tmp_path,
        jobs=2,
        progress=False,
    )
    (group,) = report.groups["made"].values()
    assert len(group.runs) == 6
    assert len(group.scores.id) == len(set(group.scores.id)) == 80
    frame = report.to_pandas()
    assert frame["seed"].tolist() == [1, 2]
    pooled = pd.concat(
        pd.read_csv(tmp_path / f"made/text/seed-1-fold-{k}/predictions.csv").query("part == 'test'")
        for k in range(3)
    )
    assert frame["mae"][0] == pytest.approx(mmiln.Metrics.of(pooled["label"], pooled["score"]).mae)
    (tmp_path / "made/text/seed-2-fold-1/run.json").unlink()
    again = experiments.Report.read(tmp_path)
    assert again.to_pandas()["seed"].tolist() == [1]
    text = again.to_markdown()
    assert "text: left out for missing folds: seed 2." in text
    assert "Not finished: 1 of 6 runs." in text
