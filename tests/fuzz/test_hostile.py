"""Hostile and broken files that were refused too late, or by a foreign error, or not at all."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.numpy import save_file

import mmiln
from mmiln.data import Split, Standardizer
from mmiln.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DataWarning,
    MissingFileError,
    NonFiniteError,
    StateError,
    WeightsError,
)
from mmiln.experiments import Experiment, Report, Search, runs
from mmiln.files import read_json, read_safetensors, read_toml
from mmiln.text_encoder import TextEncoder
from mmiln.training.checkpoints import Checkpoints

from . import make_corpus
from .guard import bounded_memory
from .mutate import write
from .readers import CORPUS, READERS

TRILLION = 10**12
SMALL = {"path": "synthetic", "n_train": 40, "n_valid": 20, "n_test": 20}
EXPERIMENT: dict[str, Any] = {"name": "some", "datasets": {"small": SMALL}}


@pytest.fixture(autouse=True)
def _bounded() -> Any:
    with bounded_memory():
        yield


# More is claimed than there is


@pytest.mark.parametrize(
    ("shape", "end"),
    [
        ([TRILLION], 4 * TRILLION),
        ([TRILLION], 8),
        ([2**32, 2**32], 0),
        ([10**6, 10**6], 8),
        ([0, TRILLION], 8),
    ],
)
def test_a_header_of_safetensors_that_claims_too_much(shape: list[int], end: int, tmp_path: Path) -> None:
    header = json.dumps({"weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode()
    for name in ("model.safetensors", "standardizer.safetensors"):
        (tmp_path / name).write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(WeightsError, match="can't be read as safetensors"):
        read_safetensors(tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="is damaged"):
        Standardizer.load(tmp_path)


@pytest.mark.parametrize("length", [TRILLION, 2**64 - 1, 2**63, 100_000_000])
def test_a_header_of_safetensors_that_is_said_to_be_long(length: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b"{}")
    with pytest.raises(WeightsError, match="can't be read as safetensors"):
        read_safetensors(tmp_path / "x")


SIZES = ("text_dim", "audio_dim", "d_model", "num_layers", "audio_hidden", "multimodal_features")


@pytest.mark.parametrize("size", [TRILLION, 2**63 - 1])
@pytest.mark.parametrize("name", SIZES)
def test_a_model_of_a_trillion_is_refused(name: str, size: int) -> None:
    with pytest.raises(ConfigError, match=r"weights|at most a million"):
        mmiln.Model(**make_corpus.SMALL | {"text_dim": 2, "vision_dim": 1, name: size})


def test_the_least_number_of_weights_is_one() -> None:
    for variant in ("full", "no_mfm", "no_gate_fusion"):
        model = mmiln.Model("mosi", variant=variant, text_dim=50, audio_dim=40, vision_dim=30)
        least, whole = mmiln.config.least_weights(model.config.model), model.summary().total
        assert least <= whole <= 3 * least


def test_the_weights_of_a_text_encoder_are_counted() -> None:
    encoder = TextEncoder(CORPUS / "encoder")
    held = sum(tensor.numel() for tensor in encoder.weights().values())
    assert held / 2 < mmiln.text_encoder.least_encoder_weights(encoder.config) < held


def _changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", SIZES[1:])
def test_a_saved_model_must_hold_what_its_config_claims(name: str, tmp_path: Path) -> None:
    shutil.copytree(CORPUS / "model", tmp_path, dirs_exist_ok=True)
    size = {"d_model": 5_000, "audio_hidden": 10_000, "multimodal_features": 10_000}.get(name, 10**6)
    _changed(tmp_path / "config.json", lambda config: config["model"].update({name: size}))
    with pytest.raises(WeightsError, match=r"config\.json describes .* weights or more"):
        mmiln.Model.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["vocab_size", "num_hidden_layers", "intermediate_size"])
@pytest.mark.parametrize("size", [2**30, TRILLION])
def test_a_text_encoder_must_hold_what_its_config_claims(name: str, size: int, tmp_path: Path) -> None:
    shutil.copytree(CORPUS / "encoder", tmp_path, dirs_exist_ok=True)
    _changed(tmp_path / "config.json", lambda config: config.update({name: size}))
    with pytest.raises((WeightsError, ConfigError), match="whole number" if size == TRILLION else "weights"):
        mmiln.Model("mosi", text_encoder=tmp_path, audio_dim=1, vision_dim=0).state_dict()


# JSON and TOML

BROKEN = {
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "deep and whole": b"[" * 100_000 + b"]" * 100_000,
    "a number of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "half a character": b'{"a": "\\ud800"}',
    "no UTF-8": b'{"a": "\xff"}',
    "nothing": b"",
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_json_is_a_config_error_everywhere(case: str, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json", "experiment.json"):
        (tmp_path / name).write_bytes(BROKEN[case])
    (tmp_path / "model.safetensors").touch()
    for read in (
        lambda: read_json(tmp_path / "config.json"),
        lambda: mmiln.Model.from_pretrained(tmp_path),
        lambda: TextEncoder(tmp_path),
        lambda: Experiment.of_folder(tmp_path),
    ):
        with pytest.raises(ConfigError, match="can't be read as JSON"):
            read()


@pytest.mark.parametrize("content", [b"a = " + b"[" * 100_000, b"a = " + b"9" * 5000, b'a = "\xff"', b"a"])
def test_what_is_no_toml_is_a_config_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    for read in (read_toml, Experiment.read, Search.read):
        with pytest.raises(ConfigError, match="can't be read as TOML"):
            read(tmp_path / "x.toml")


def test_a_description_that_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text("[1]")
    with pytest.raises(ConfigError, match="valid dictionary"):
        Experiment.of_folder(tmp_path)


# Saved models


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.pop("text_encoder"), "'text_encoder' is missing"),
        (lambda config: config["model"].update(preset="mosi"), "unknown field 'preset'"),
        (lambda config: config["train"].update(device="cpu"), "unknown field 'device'"),
        (lambda config: config["model"].update(audio_dim=True), "must be a whole number"),
        (lambda config: config["text_encoder"].pop("num_hidden_layers"), "num_hidden_layers"),
        (lambda config: config["text_encoder"].update(hidden_size=True), "hidden_size"),
    ],
)
def test_a_config_that_is_not_whole(
    change: Callable[[dict[str, Any]], object], message: str, tmp_path: Path
) -> None:
    shutil.copytree(CORPUS / "model", tmp_path, dirs_exist_ok=True)
    _changed(tmp_path / "config.json", change)
    with pytest.raises(ConfigError, match=message):
        mmiln.Model.from_pretrained(tmp_path)


def test_names_that_no_file_has() -> None:
    for name in ("x" * 5000, "~nobody-of-this-name", "a\0b"):
        with pytest.raises(MissingFileError):
            mmiln.Model("mosi", text_encoder=name + "/")
        with pytest.raises(MissingFileError):
            mmiln.data.load(name)
    with pytest.raises(ConfigError, match="text_encoder must be a directory"):
        mmiln.Model("mosi", text_encoder=5)
    with pytest.raises(ConfigError, match="unknown preset"):
        mmiln.Model("\ud800")


@pytest.mark.parametrize(
    ("kind", "name", "content"),
    [
        ("tokenizer", "tokenizer.json", b"null"),
        ("tokenizer", "tokenizer.json", b"\xff"),
        ("vocabulary", "tokenizer_config.json", b"[]"),
        ("vocabulary", "tokenizer_config.json", b"{"),
        ("vocabulary", "tokenizer_config.json", b'{"do_lower_case": "perhaps"}'),
        ("vocabulary", "vocab.txt", b"\xff\xfe"),
        ("vocabulary", "vocab.txt", b"good\nbad\n"),
        ("vocabulary", "vocab.txt", b"[CLS]\n[SEP]\n"),
    ],
)
def test_a_tokenizer_that_is_none(kind: str, name: str, content: bytes, tmp_path: Path) -> None:
    shutil.copytree(CORPUS / kind, tmp_path, dirs_exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError):
        TextEncoder(tmp_path).tokenizer.tokenize(["some words"])


# Checkpoints


def _numpy(place: int) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["random"]["numpy"].__setitem__(2, place)


@pytest.mark.filterwarnings("ignore:(?s).*trying the one before", "ignore:corr is NaN")
@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_numpy(625), CheckpointError),
        (_numpy(-1), CheckpointError),
        (lambda state: state["random"]["numpy"][1].pop(), CheckpointError),
        (lambda state: state["random"]["python"][1].__setitem__(624, 625), CheckpointError),
        (lambda state: state["random"].pop("python"), CheckpointError),
        (lambda state: state.update(best_epoch=2), CheckpointError),
        (lambda state: state["history"].pop("valid_mae"), CheckpointError),
        (lambda state: state["history"].update(valid_mae=[float("nan")]), CheckpointError),
        (lambda state: state["sizes"].append(1), CheckpointError),
        (lambda state: state.update(batch=TRILLION), CheckpointError),
        (lambda state: state.update(epoch=0), CheckpointError),
        (lambda state: state.update(counters="\ud800"), CheckpointError),
        (lambda state: state.update(losses=[[1e308] * 4], sizes=[1000]), NonFiniteError),
        (lambda state: state.update(best_epoch=None) or state["history"].clear(), StateError),
    ],
)
def test_a_checkpoint_whose_state_is_none(
    change: Callable[[dict[str, Any]], object], error: type[Exception], tmp_path: Path
) -> None:
    (files,) = READERS["checkpoint"].cases()
    write(tmp_path, files)
    _changed(tmp_path / "state.json", change)
    with pytest.raises(error):
        READERS["checkpoint"].read(tmp_path, 0)


def test_a_checkpoint_without_the_state_of_torchs_generator(tmp_path: Path) -> None:
    (files,) = READERS["checkpoint"].cases()
    tensors = safetensors.torch.load(files["state.safetensors"])
    del tensors["random.torch"]
    for state in (
        {"random.torch": torch.zeros(3)},
        {"random.torch": torch.zeros(5056, dtype=torch.uint8)},
        {},
    ):
        broken = files | {"state.safetensors": safetensors.torch.save(tensors | state)}
        write(tmp_path, READERS["checkpoint"].mend(broken))
        with pytest.raises(CheckpointError, match="torch's generators"):
            READERS["checkpoint"].read(tmp_path, 0)


def test_deleting_checkpoints_follows_no_link(tmp_path: Path) -> None:
    kept = tmp_path / "elsewhere" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("kept")
    half = tmp_path / "run" / ".checkpoint-000001-000000001.writing"
    half.mkdir(parents=True)
    (half / "link").symlink_to(kept.parent)
    with Checkpoints(tmp_path / "run", 0):
        assert not half.exists()
    half.symlink_to(kept.parent)
    with pytest.raises(CheckpointError, match="symbolic link"), Checkpoints(tmp_path / "run", 0):
        pass
    assert kept.read_text() == "kept"


# Experiments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "../up"}, "name"),
        ({"name": "/etc"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "x" * 5000}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"datasets": {"../up": SMALL}}, "datasets"),
        ({"datasets": {"é" * 200: SMALL}}, "datasets"),
        ({"models": ["../full"]}, "there is no model"),
        ({"datasets": {"a": SMALL | {"folds": TRILLION}}}, "folds"),
        ({"datasets": {"a": SMALL | {"n_train": TRILLION}}}, "n_train"),
        ({"datasets": {"a": SMALL | {"seed": -1}}}, "seed"),
        ({"grid": {f"f{n}": list(range(10)) for n in range(30)}}, "more than 10,000 runs"),
        ({"grid": {"alpha": ["x" * 5000]}}, "too long"),
        ({"grid": {"text_encoder": ["a/b", "a_b"]}}, "names the same twice"),  # they would share a folder
    ],
)
def test_an_experiment_that_can_not_be_run(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Experiment.of(EXPERIMENT | change)


def test_values_of_a_grid_lead_nowhere_else(tmp_path: Path) -> None:
    values = ["../../up", "/etc/passwd", "..", "a\0b", "~"]
    experiment = Experiment.of(EXPERIMENT | {"grid": {"text_encoder": values}})
    folders = {(tmp_path / task.folder).resolve() for task in experiment.tasks()}
    assert len(folders) == len(values) * len(experiment.seeds)
    assert {folder.parent.parent for folder in folders} == {tmp_path / "small"}


# Results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    shutil.copytree(CORPUS / "results", tmp_path / "results")
    return tmp_path / "results"


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["machine"].pop("device"),
        lambda record: record["code"].pop("digest"),
        lambda record: record["config"].pop("patience"),
        lambda record: record["history"].update(seconds=[]),
        lambda record: record["sizes"].update(test=0),
        lambda record: record.update(sizes={}),
        lambda record: record.update(best_epoch=10**400),
        lambda record: record.update(parameters=10**400),
    ],
)
def test_a_record_that_is_not_whole(change: Callable[[dict[str, Any]], object], results: Path) -> None:
    _changed(results / "run.json", change)
    with pytest.raises(DataError, match="is no record of a run"):
        Report.read(results)


@pytest.mark.parametrize("value", ["words", "inf", "1e400", "null", ""])
def test_predictions_that_are_no_numbers(value: str, results: Path) -> None:
    path = results / "predictions.csv"
    path.write_text(path.read_text().replace("-0.7066071", value))
    with pytest.raises(DataError, match="is no table of predictions"):
        Report.read(results).to_markdown()


@pytest.mark.filterwarnings("ignore:The BCa confidence interval")  # the rows are equal
def test_figures_stay_in_their_folder(results: Path, tmp_path: Path) -> None:
    record = json.loads((results / "run.json").read_text())
    for depth in (1, 2):
        folder = results / str(depth)
        folder.mkdir()
        shutil.copy(results / "predictions.csv", folder)
        record["row"] = {"model": "full", "grid": {"num_layers": depth}}
        record["config"]["num_layers"] = depth
        record["dataset_name"] = "x/../../../up"
        (folder / "run.json").write_text(json.dumps(record))
    (results / "run.json").unlink()
    (results / "out" / "figure4-x").mkdir(parents=True)  # to go up from
    written = Report.read(results).save(results / "out")
    assert {path.suffix for path in written} >= {".png", ".pdf"}
    assert {path.resolve().parent for path in written} == {results / "out"}


@pytest.mark.parametrize(
    "std", [np.ones((2, 2)), np.ones(3), np.full(2, np.nan), np.ones(2, np.float32), np.ones(2, np.uint8)]
)
def test_a_standardizer_that_is_none(std: np.ndarray, tmp_path: Path) -> None:
    save_file({"audio.mean": np.zeros(2), "audio.std": std}, tmp_path / "standardizer.safetensors")
    with pytest.raises(DataError, match=r"audio\.std"):
        Standardizer.load(tmp_path)


def test_a_standardizer_that_divides_by_next_to_nothing(tmp_path: Path) -> None:
    scales = {"audio.mean": np.zeros(1), "audio.std": np.full(1, 1e-310)}
    save_file(scales, tmp_path / "standardizer.safetensors")
    with pytest.warns(DataWarning, match="2 values of audio are more than 1000 deviations"):
        split = Standardizer.load(tmp_path).transform(Split(["a"], [0], audio=[np.ones((2, 1))]))
    assert split.audio[0].tolist() == [[1000.0], [1000.0]]


# Datasets


def _mmsa(**fields: Any) -> dict[str, Any]:
    content = make_corpus.mmsa()
    content["train"] |= fields
    return content


def _misa(features: tuple[Any, ...] = (), label: Any = 1.0) -> list[Any]:
    samples = make_corpus.misa(lengths=False)
    samples[0] = (samples[0][0] + features, label, samples[0][2])
    return samples


NAN, INF = float("nan"), float("inf")
TOKENS = make_corpus.mmsa()["train"]["text_bert"]
DATASETS: dict[str, tuple[Any, str]] = {
    "fields named by numbers": ({"train": {1: 2, "x": 3}}, "expected any of"),
    "tokens that are infinite": (_mmsa(text_bert=np.where(TOKENS == 5, INF, TOKENS)), "whole numbers"),
    "tokens that are NaN": (_mmsa(text_bert=np.where(TOKENS == 5, NAN, TOKENS)), "whole numbers"),
    "tokens that are huge": (_mmsa(text_bert=np.where(TOKENS == 5, 1e300, TOKENS)), "whole numbers"),
    "tokens of float16": (_mmsa(text_bert=np.full(TOKENS.shape, INF, np.float16)), "whole numbers"),
    "ids that are a number": (_mmsa(id=5), "as many entries"),
    "one text for one utterance": (
        {"train": {"id": "a", "raw_text": "b", "regression_labels": 1.0}}, "expected 'id' to be a list"
    ),
    "rows of unequal length as ids": (_mmsa(id=[["a", "b"], ["c"], ["d"]]), "expected one string"),
    "half a character in an id": (_mmsa(id=["\ud800", "b", "c"]), "half a character"),
    "half a character in a text": (_mmsa(raw_text=["\udfff", "b", "c"]), "half a character"),
    "labels beyond float32": (_mmsa(regression_labels=[1e300, 0, 0]), "finite labels"),
    "complex labels": (_mmsa(regression_labels=np.ones(3, complex)), "one number for each"),
    "labels of MISA beyond float32": (_misa(label=1e300), "finite labels"),
    "complex labels of MISA": (_misa(label=np.array([1j])), "of another form"),
    "a length that is infinite": (_misa((INF, 1)), "of another form"),
    "a length beyond all bounds": (_misa((10**30, 1)), "of another form"),
}  # fmt: skip


@pytest.mark.parametrize("case", DATASETS)
def test_a_dataset_that_is_none(case: str, tmp_path: Path) -> None:
    content, message = DATASETS[case]
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=message):
        mmiln.data.load(tmp_path / "data.pkl").fingerprint()


def test_what_is_read_of_a_run_is_what_was_written(results: Path) -> None:
    record = runs.Record.read(results)
    record.write(results)
    assert runs.Record.read(results) == record
