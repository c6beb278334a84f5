"""Writes `corpus/` anew: `python tests/fuzz/make_corpus.py`. All of it is made up, and small."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

import mmiln
from mmiln.callbacks import Callback
from mmiln.data import Split
from mmiln.data.standardizer import Standardizer

sys.path.insert(0, str(Path(__file__).parents[1]))
from reference.params import bert_shapes

CORPUS = Path(__file__).parent / "corpus"

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "##ly")
BERT = {
    "model_type": "bert", "vocab_size": len(WORDS), "hidden_size": 2, "num_hidden_layers": 1,
    "num_attention_heads": 1, "intermediate_size": 2, "hidden_act": "gelu", "max_position_embeddings": 6,
    "type_vocab_size": 1, "layer_norm_eps": 1e-12,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "audio_dim": 1, "vision_dim": 0, "d_model": 2, "num_heads": 1, "num_layers": 1, "audio_hidden": 1,
    "audio_kernel": 1, "multimodal_features": 1, "audio_features": 1, "seed": 1, "accumulate": 2,
}  # fmt: skip
EXPERIMENT = """\
name = "some"
models = ["full", "text"]
seeds = [1111, 1112]
epochs = 3
selection = "valid"
keep_models = true

[datasets.small]
path = "synthetic"
n_train = 20
n_valid = 10
n_test = 10
seed = 1

[datasets."a file"]
path = "data.pkl"
standardize = true
folds = 3
published = "mosi"

[settings]
preset = "mosi"
d_model = 4
num_heads = 2
text_dim = 8
freeze_text = false
device = "cpu"
dtype = "float32"
variant = "full"

[grid]
num_layers = [1, 2]
"""
SEARCH = """\
name = "wide"
model = "full"
seeds = [1]
epochs = 2
trials = 3
seed = 5
space.alpha = { low = 0.0, high = 1.0, step = 0.5 }
space.num_layers = { low = 1, high = 3 }
space.lr_other = { low = 1e-4, high = 1e-2, log = true }
space.variant = { choices = ["full", "no_mrm"] }
settings = { d_model = 4, num_heads = 1 }

[dataset]
path = "data.pkl"
"""


def mmsa() -> dict[str, Any]:
    """Aligned text features and tokens, padded audio with lengths, vision without."""
    rng = np.random.default_rng(0)

    def part(name: str, n: int) -> dict[str, Any]:
        tokens = np.zeros((n, 3, 3))
        tokens[:, 0] = [2, 5, 3]
        tokens[:, 1] = 1
        return {
            "id": [f"{name}$_${i}" for i in range(n)],
            "raw_text": np.array(["good"] * n),
            "text": rng.normal(size=(n, 3, 2)).astype(np.float32),
            "text_bert": tokens,
            "audio": rng.normal(size=(n, 2, 1)),
            "audio_lengths": [2] * n,
            "vision": np.ones((n, 2, 1), np.float32),
            "regression_labels": rng.uniform(-3, 3, n),
            "annotations": ["Neutral"] * n,
        }

    return {"train": part("a", 3), "valid": part("b", 2), "test": part("c", 1)}


def misa(lengths: bool) -> list[Any]:
    """A single part of three videos."""
    rng = np.random.default_rng(1)
    samples = []
    for i in range(3):
        features: tuple[Any, ...] = (np.arange(2), rng.normal(size=(2, 1)), np.ones((2, 2)), ["so", b"good"])
        samples.append((features + (2, np.int64(1)) * lengths, np.array([[1.5]]), f"v{i}_1[0]"))
    return samples


def mag_bert() -> dict[str, list[Any]]:
    """Words come first, and there are no word ids."""
    of = {"train": 2, "dev": 1, "test": 1}
    return {
        part: [((["so", "good"][:n], np.ones((n, 1)), np.zeros((n, 2))), np.array([[0.5]]), f"{part}[{n}]")
               for n in range(1, count + 1)]
        for part, count in of.items()
    }  # fmt: skip


def datasets(folder: Path) -> None:
    folder.mkdir()
    whole = mmsa()
    for name, content, protocol in (
        ("mmsa", whole, 4),
        ("mmsa-2", {name: whole[name] for name in ("train", "test")}, 2),
        ("misa", misa(lengths=False), 4),
        ("misa-0", misa(lengths=True)[:3], 0),
        ("parts", {"train": misa(lengths=True), "dev": misa(lengths=False)[:1]}, 2),
        ("mag-bert", mag_bert(), 3),
    ):
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(content, protocol))


def bert(folder: Path) -> None:
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    shapes = bert_shapes(BERT, prefix="bert")
    weights = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(BERT) + "\n")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}\n')


def tokenizer(folder: Path) -> None:
    """Both kinds of tokenizer, each beside the encoder's configuration."""
    from tokenizers import BertWordPieceTokenizer

    for name in ("vocabulary", "tokenizer"):
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(BERT) + "\n")
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(folder / "encoder" / name, folder / "vocabulary")
    made = BertWordPieceTokenizer(str(folder / "vocabulary" / "vocab.txt"), lowercase=True)
    made.save(str(folder / "tokenizer" / "tokenizer.json"), pretty=False)


def batch() -> dict[str, Any]:
    """The batch that the corpus' models are trained on; resuming reads it again."""
    frames = [np.array([[0.5], [1.0]], np.float32), np.array([[-1.0]], np.float32)]
    return {"audio": frames, "labels": np.array([1.0, -0.5], np.float32)}


def control(**changes: Any) -> mmiln.Model:
    """The model of the checkpoint: audio alone, so that its file is small."""
    return mmiln.Model("mosi", **SMALL | {"text_dim": 0} | changes)


class Cut(Exception):
    """Raised to interrupt a run."""


class CutInTheSecondEpoch(Callback):
    def on_batch_end(self, model: mmiln.Model, epoch: int, batch: int) -> None:
        if (epoch, batch) == (2, 2):
            raise Cut


def checkpoint(folder: Path) -> None:
    """Writes a checkpoint from the middle of an epoch: accumulated gradients, best weights, losses.

    It is made when it is needed, as only the version that wrote one goes on with it.
    """
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    model = control()
    try:
        model.fit(
            [batch()] * 2, [batch()], epochs=2, progress=False, checkpoint_dir=folder, checkpoint_every=0,
            callbacks=[CutInTheSecondEpoch()],
        )  # fmt: skip
    except Cut:
        pass
    for path in sorted(folder.iterdir())[:-1]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def results(folder: Path) -> None:
    """A finished run."""
    from mmiln.experiments import runs

    rng = np.random.default_rng(0)

    def part(name: str, n: int) -> Split:
        frames = list(rng.normal(size=(n, 2, 1)))
        return Split([f"{name}{i}" for i in range(n)], rng.uniform(-3, 3, n), audio=frames)

    dataset = mmiln.data.Dataset(part("a", 3), part("b", 2), part("c", 3), name="made-up")
    runs.train(dataset, control(), folder, epochs=1, progress=False, keep_model=False)
    record = json.loads((folder / "run.json").read_text())
    # Nothing of the machine that made it.
    record["machine"] = dict.fromkeys(record["machine"], "some") | {"threads": 1}
    record |= {"seconds": 1.0, "peak_memory_mib": 100.0, "finished": "2026-01-01T00:00:00Z"}
    record["history"]["seconds"] = [1.0]
    (folder / "run.json").write_text(json.dumps(record) + "\n")
    Standardizer.fit(dataset.train).save(folder)


def main() -> None:
    shutil.rmtree(CORPUS, ignore_errors=True)
    CORPUS.mkdir()
    datasets(CORPUS / "dataset")
    bert(CORPUS / "encoder")
    tokenizer(CORPUS)
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary)
        mmiln.Model("mosi", text_encoder=CORPUS / "encoder", freeze_text=1, **SMALL).save_pretrained(saved)
        (CORPUS / "model").mkdir()
        for name in ("config.json", "model.safetensors"):
            shutil.copy(saved / name, CORPUS / "model")
    results(CORPUS / "results")
    (CORPUS / "experiment.toml").write_text(EXPERIMENT)
    (CORPUS / "search.toml").write_text(SEARCH)
    size = sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file())
    print(f"{CORPUS}: {size / 1000:.1f} kB")


if __name__ == "__main__":
    main()
