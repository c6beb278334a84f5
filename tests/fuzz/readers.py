"""Everything that reads files: what a valid case is made of, and how it is read."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from rich.cells import cell_len

import mmiln
from mmiln.data import Split, Standardizer
from mmiln.data.formats.sentences import Sentences
from mmiln.errors import DataWarning
from mmiln.experiments import Experiment, Report, Search
from mmiln.text_encoder import TextEncoder
from support import sequences, small_bert

from . import make_corpus
from .formats import BYTES, CONTENT, NPY, PICKLE, SAFETENSORS, Format, text
from .mutate import Files

CORPUS = make_corpus.CORPUS
cell_len("文")  # rich imports the widths of characters when it first meets one beyond ASCII
_CONFIG = text(
    "model_type mmiln bert roberta xlm-roberta pad_token_id preset mosi-mmsa dtype float64 model train "
    "text_encoder text_dim vision_dim "
    "d_model num_layers freeze_text embeddings variant no_mfm no_gate_fusion hidden_size vocab_size "
    "num_hidden_layers intermediate_size max_position_embeddings is_decoder position_embedding_type"
)
_TOML = text(
    "path synthetic data.pkl datasets folds seeds models grid settings space low high step log choices "
    "device text_encoder dtype precision bf16 text_dim name seed",
    toml=True,
)
# What counts in a checkpoint is JSON within JSON.
_STATE = text(
    "identity counters epoch batch losses sizes seconds history valid_mae best_epoch random numpy python",
    '{"epoch": -1, "step": 0, "pending": 0, "optimizer_steps": 0}',
    '{"epoch": 2, "step": 4294967295, "pending": 9, "optimizer_steps": 2147483647}',
    '{"epoch": 9223372036854775808, "step": 0, "pending": -1, "optimizer_steps": -2147483648}',
)


@dataclass(frozen=True)
class Reader:
    """One reader: a valid case, and how it is read.

    Attributes:
        cases: Valid files to begin with.
        formats: By file name, which files are damaged and what they are made of.
        read: Reads the files in a folder, in one of several ways.
        mend: Makes files fit each other again after they were damaged.
    """

    cases: Callable[[], list[Files]]
    formats: dict[str, Format]
    read: Callable[[Path, int], object]
    mend: Callable[[Files], Files] = lambda files: files


def _files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


# Datasets


def _datasets() -> list[Files]:
    return [{"data.pkl": data} for data in _files(CORPUS / "dataset").values()]


def _read_dataset(folder: Path, option: int) -> object:
    how = ("zero", "mean", "raise", "zero")[option % 4]
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        options = {"test": option != 3, "clamp": option == 2}
        if option >= 4:
            options |= {"standardize": True, "seed": 0}  # a part alone has no train part otherwise
        dataset = mmiln.data.load(folder / "data.pkl", nonfinite=how, **options)
    return dataset.fingerprint(), [split[0] for split in dataset.splits.values()], str(dataset.describe())


def _contents() -> list[Files]:
    """The contents as text, so that values are damaged and not the pickle around them."""
    return [
        {"content.json": json.dumps(content, default=_plain).encode()}
        for content in (make_corpus.mmsa(), make_corpus.misa(lengths=True), make_corpus.misa(lengths=False))
    ]


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return {"array": value.tolist(), "dtype": value.dtype.str.lstrip("<=|")}
    return value.decode() if isinstance(value, bytes) else value.item()


def _array(content: dict[str, object]) -> object:
    if content.keys() == {"array", "dtype"} and re.fullmatch(r"[a-zA-Z]\d*", str(content["dtype"])):
        return np.array(content["array"], content["dtype"])
    return content


def _read_content(folder: Path, option: int) -> object:
    try:
        content = json.loads((folder / "content.json").read_text("utf-8"), object_hook=_array)
        data = pickle.dumps(content, 2 + option % 4)
    except Exception:  # no content at all
        return None
    (folder / "data.pkl").write_bytes(data)
    return _read_dataset(folder, option)


@cache
def _converted() -> list[Files]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "x.mmiln"
        mmiln.data.convert(CORPUS / "dataset" / "mmsa.pkl", target, progress=False)
        paths = sorted(path for path in target.rglob("*") if path.is_file())
        return [{str(path.relative_to(target)): path.read_bytes() for path in paths}]


def _read_converted(folder: Path, option: int) -> object:
    if option == 2:
        mmiln.data.verify(folder)
    how = (None, "mean")[option % 2]
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        dataset = mmiln.data.load(folder, nonfinite=how, standardize=option >= 4, test=option != 3)
        items = [item for split in dataset.splits.values() for item in split]
        return items, dataset.fingerprint(), dataset.report.notes, mmiln.data.Standardizer.fit(dataset.train)


def _with_sizes(files: Files) -> Files:
    """The manifest says how large the files are, or were."""
    try:
        content = json.loads(files["manifest.json"])
        for name in content["files"]:
            content["files"][name]["size"] = len(files[name])
    except Exception:  # no manifest at all
        return files
    return files | {"manifest.json": json.dumps(content).encode()}


_TABLE = b'text,n\ngood,1\n"so, bad",2\n'


def _read_sentences(folder: Path, option: int) -> object:
    data = (folder / "sentences.csv").read_bytes()
    if option % 4 == 3:
        return Sentences.of_lines(data).texts
    return Sentences.of_csv(folder / "sentences.csv", (None, "text", "n")[option % 4]).texts


_MANY = b"""id,text,label,split,label_T,audio
a,good,1.5,train,1,audio.npy
b,"so, bad",-2,dev,0,audio.npy
c,so,0,test,,audio.npy
"""


def _tables() -> list[Files]:
    numbers = BytesIO()
    np.save(numbers, np.arange(6, dtype=np.float32).reshape(3, 2))
    return [{"data.csv": _MANY, "audio.npy": numbers.getvalue()}]


def _read_table(folder: Path, option: int) -> object:
    target, labels = ((None, None), ("label_t", None), (None, (-2, 5)), (None, None))[option % 4]
    data = mmiln.data.load(
        folder / "data.csv", target=target, labels=labels, test=option != 3, clamp=option > 3
    )
    return data.fingerprint(), data.report.notes, str(data.describe())


def _parquet() -> list[Files]:
    table = BytesIO()
    pd.read_csv(BytesIO(_MANY)).drop(columns="audio").to_parquet(table)
    return [{"data.parquet": table.getvalue()}]


def _read_parquet(folder: Path, option: int) -> object:
    data = mmiln.data.load(folder / "data.parquet", test=option != 3)
    return data.fingerprint(), data.report.notes


@cache
def _sequences() -> list[Files]:
    with tempfile.TemporaryDirectory() as folder:
        content = {
            name: (
                root,
                {video: (frames[:6], times[:6]) for video, (frames, times) in [*entries.items()][-2:]},
            )
            for name, (root, entries) in sequences.mosi(columns=7).items()
        }
        return [_files(sequences.write_all(Path(folder), content))]


def _read_sequences(folder: Path, option: int) -> object:
    data = mmiln.data.load_csd(folder, align=option % 2 == 1, target=(None, 0, "fear", 3)[option // 2])
    return data.fingerprint(), data.report.notes


# Saved models, their encoders and tokenizers


def _model() -> list[Files]:
    return [_files(CORPUS / "model")]


def _read_model(folder: Path, option: int) -> object:
    model = mmiln.Model.from_pretrained(folder)
    return repr(model), model.summary(), model.get_params()


def _encoder() -> list[Files]:
    return [_files(CORPUS / "encoder")]


def _read_encoder(folder: Path, option: int) -> object:
    freeze = (False, True, 1, "embeddings")[option % 4]
    model = mmiln.Model("mosi", text_encoder=folder, freeze_text=freeze, **make_corpus.SMALL)
    return model.text_encoder_fingerprint(), model.summary()


@cache
def _roberta() -> list[Files]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = small_bert.write_roberta(Path(temporary))
        (folder / "tokenizer_config.json").write_text('{"add_prefix_space": false}')
        return [_files(folder)]


def _read_tokens(folder: Path, option: int) -> object:
    with warnings.catch_warnings(action="ignore", category=DataWarning):
        return TextEncoder(folder).tokenizer.tokenize(["good bad so", "", "goodly " * 9])


# Descriptions of experiments


def _descriptions() -> list[Files]:
    return [{"experiment.toml": (CORPUS / "experiment.toml").read_bytes()}]


def _read_experiment(folder: Path, option: int) -> object:
    experiment = Experiment.read(folder / "experiment.toml")
    experiment.check()
    for task in experiment.tasks():
        place = (folder / task.folder).resolve()
        assert place.is_relative_to(folder.resolve()), f"{task.folder} leaves the experiment's folder"
        assert all(len(part) < 256 for part in place.parts), f"{task.folder} can't be a path"
    copy = folder / "experiment.json"
    copy.write_text(json.dumps(experiment.model_dump(mode="json")), encoding="utf-8")
    assert Experiment.of_folder(folder) == experiment
    return experiment


def _searches() -> list[Files]:
    return [{"search.toml": (CORPUS / "search.toml").read_bytes()}]


def _read_search(folder: Path, option: int) -> object:
    search = Search.read(folder / "search.toml")
    search.check()
    return search


# Checkpoints


@cache
def _checkpoints() -> list[Files]:
    with tempfile.TemporaryDirectory() as temporary:
        make_corpus.checkpoint(Path(temporary))
        (folder,) = (path for path in Path(temporary).iterdir() if path.is_dir())
        return [_files(folder)]


def _resume(folder: Path, option: int) -> object:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(folder, run / "checkpoint-000002-000000001", ignore=shutil.ignore_patterns("run"))
    return make_corpus.control().fit(
        [make_corpus.batch()] * 2, [make_corpus.batch()], epochs=2, progress=False, checkpoint_dir=run,
        resume="adopt" if option % 2 else True,
    )  # fmt: skip


def _with_checksum(files: Files) -> Files:
    digest = hashlib.sha256(files["state.safetensors"]).hexdigest().encode()
    return files | {"state.json": re.sub(rb'"[0-9a-f]{64}"', b'"' + digest + b'"', files["state.json"])}


# Results


def _results() -> list[Files]:
    return [_files(CORPUS / "results")]


def _read_results(folder: Path, option: int) -> object:
    report = Report.read(folder)
    return report.to_markdown(), report.to_latex(), report.to_pandas()


def _read_standardizer(folder: Path, option: int) -> object:
    scaler = Standardizer.load(folder)
    return scaler.constant, scaler.transform(Split(["a"], np.zeros(1), audio=[np.ones((2, 1))]))


READERS = {
    "dataset": Reader(_datasets, {"data.pkl": PICKLE}, _read_dataset),
    "content": Reader(_contents, {"content.json": CONTENT}, _read_content),
    "converted": Reader(
        _converted,
        {
            "manifest.json": text("train valid test text text_bert raw_text audio vision zero mean raise"),
            "train/utterances.json": text("id raw_text"),
            "train/labels.npy": NPY,
            "train/audio.npy": NPY,
            "train/audio_offsets.npy": NPY,
            "valid/text_bert.npy": NPY,
        },
        _read_converted,
        _with_sizes,
    ),
    "sentences": Reader(
        lambda: [{"sentences.csv": _TABLE}],
        {"sentences.csv": text("text raw_text sentence")},
        _read_sentences,
    ),
    "table": Reader(
        _tables,
        {
            "data.csv": text(
                "text label labels split part mode id video_id clip_id label_T label_A audio vision"
            ),
            "audio.npy": NPY,
        },
        _read_table,
    ),
    "parquet": Reader(_parquet, {"data.parquet": BYTES}, _read_parquet),
    "sequences": Reader(_sequences, dict.fromkeys(_sequences()[0], BYTES), _read_sequences),
    "config": Reader(_model, {"config.json": _CONFIG}, _read_model),
    "experiment": Reader(_descriptions, {"experiment.toml": _TOML}, _read_experiment),
    "search": Reader(_searches, {"search.toml": _TOML}, _read_search),
    "model": Reader(_model, {"model.safetensors": SAFETENSORS}, _read_model),
    "encoder": Reader(_encoder, {"config.json": _CONFIG, "model.safetensors": SAFETENSORS}, _read_encoder),
    "tokenizer": Reader(
        lambda: [_files(CORPUS / "tokenizer")],
        {"config.json": _CONFIG, "tokenizer.json": text("WordPiece BPE Unigram type [UNK]")},
        _read_tokens,
    ),
    "vocabulary": Reader(
        lambda: [_files(CORPUS / "vocabulary")],
        {"tokenizer_config.json": text("do_lower_case"), "vocab.txt": text("[PAD] [UNK]")},
        _read_tokens,
    ),
    "merges": Reader(
        _roberta,
        {
            "tokenizer_config.json": text("add_prefix_space"),
            "vocab.json": text("<s> </s>"),
            "merges.txt": text(),
        },
        _read_tokens,
    ),
    "checkpoint": Reader(
        _checkpoints, {"state.json": _STATE, "state.safetensors": SAFETENSORS}, _resume, _with_checksum
    ),
    "results": Reader(_results, {"run.json": text(), "predictions.csv": text()}, _read_results),
    "standardizer": Reader(_results, {"standardizer.safetensors": SAFETENSORS}, _read_standardizer),
}
