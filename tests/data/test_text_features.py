"""Features that a frozen encoder of transformers computes once, when a data set is converted."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import mmiln
from mmiln import cli
from mmiln.errors import BatchError, ConfigError, DataError, DataWarning, MissingFileError
from support import small_bert

transformers = pytest.importorskip("transformers", reason="computes the features")

SENTENCES = ["the film was good", "very bad", "", "goodly film and very bad film", "bad"]
SIZES = {"hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 10}


def save(kind: str, folder: Path, **settings: Any) -> Path:
    """A tiny encoder with BERT's tokenizer."""
    config = getattr(transformers, f"{kind}Config")(vocab_size=len(small_bert.WORDS), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    words = folder / "vocab.txt"
    words.write_text("\n".join(small_bert.WORDS))
    transformers.BertTokenizerFast(str(words)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("electra")
    return save("Electra", folder, embedding_size=6, max_position_embeddings=40, **SIZES)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)

    def part(name: str, sentences: list[str]) -> dict[str, Any]:
        n = len(sentences)
        tokens = np.ones((n, 3, 4))
        return {
            "id": [f"{name}{i}" for i in range(n)], "raw_text": sentences,
            "audio": rng.normal(size=(n, 3, 2)), "audio_lengths": [3] * n, "text": rng.normal(size=(n, 4, 5)),
            "text_bert": tokens, "regression_labels": np.linspace(-2, 2, n),
        }  # fmt: skip

    said = {"train": SENTENCES * 8, "valid": SENTENCES[:2], "test": SENTENCES[::-1]}
    parts = {name: part(name, sentences) for name, sentences in said.items()}
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(parts))
    return tmp_path / "data.pkl"


def test_features_are_those_of_transformers(encoder: Path, source: Path, tmp_path: Path) -> None:
    converted = mmiln.data.convert(source, tmp_path / "x.mmiln", text_features=encoder, progress=False)
    assert converted.fields == ["text", "raw_text", "audio"]
    assert converted.dims["text"] == 12
    assert (
        f"text: features of {encoder}, 12 wide, computed once; text_bert is left out."
        in converted.report.notes
    )
    peer = transformers.ElectraModel.from_pretrained(encoder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(encoder)
    for split in converted.splits.values():
        assert len(split.text) == len(split.raw_text)
        for sentence, frames in zip(split.raw_text, split.text, strict=True):
            with torch.no_grad():
                expected = peer(**tokenizer(sentence, return_tensors="pt")).last_hidden_state[0]
            np.testing.assert_allclose(frames, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(converted.train.audio[3], mmiln.data.load(source).train.audio[3])
    model = mmiln.Model("mosi", num_layers=1, vision_dim=0)
    model.fit(converted.train, converted.valid, epochs=1, progress=False)
    assert len(model.predict(converted.test)) == 5


def test_from_the_command_line(encoder: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "y.mmiln"
    arguments = ["convert", str(source), str(target), "--text-features", str(encoder), "--json"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert any("12 wide" in note for note in json.loads(result.stdout)["notes"])
    assert mmiln.data.load(target).dims["text"] == 12


@pytest.mark.parametrize(
    ("kind", "settings", "longest"),
    [("Electra", {"max_position_embeddings": 5}, 5), ("Roberta", {"max_position_embeddings": 8}, 6)],
)
def test_sentences_that_are_cut_are_counted(
    kind: str, settings: dict[str, int], longest: int, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "encoder").mkdir()
    settings |= {"pad_token_id": 1} if kind == "Roberta" else {"embedding_size": 6}
    encoder = save(kind, tmp_path / "encoder", **SIZES, **settings)
    with pytest.warns(DataWarning) as told:
        converted = mmiln.data.convert(source, tmp_path / "x.mmiln", text_features=encoder, progress=False)
    told_of_train = f"of 40 sentences of train have more than {longest} tokens, all that {encoder} reads"
    assert sum(told_of_train in str(warning.message) for warning in told) == 1
    lengths = [len(frames) for frames in converted.train.text[:5]]
    assert max(lengths) == longest
    assert converted.report.counts["train.text.cut"] == 8 * (2 if longest == 5 else 1)


def test_what_can_not_be_computed(encoder: Path, source: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.mmiln"
    with pytest.raises(MissingFileError, match="transformers can't load a model and tokenizer"):
        mmiln.data.convert(source, target, text_features=tmp_path, progress=False)
    content = pickle.loads(source.read_bytes())
    del content["valid"]["raw_text"], content["train"]["raw_text"], content["test"]["raw_text"]
    source.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"expected raw_text, to compute text features of, got .* in train"):
        mmiln.data.convert(source, target, text_features=encoder, progress=False)
    assert not target.exists()


def test_the_way_is_named_where_an_encoder_is_of_another_kind(encoder: Path) -> None:
    with pytest.raises(ConfigError, match=r"got 'electra': let `mmiln convert --text-features`"):
        mmiln.Model("mosi", text_encoder=encoder)


def test_tokens_of_another_vocabulary_can_be_left_out(source: Path, tmp_path: Path) -> None:
    (tmp_path / "roberta").mkdir()
    encoder = small_bert.write_roberta(tmp_path / "roberta")
    model = mmiln.Model("mosi", text_encoder=encoder, num_layers=1, vision_dim=0)
    with pytest.raises(BatchError, match="mmiln convert --no-text-bert"):
        model.predict(mmiln.data.load(source).test)
    target = tmp_path / "x.mmiln"
    arguments = ["convert", str(source), str(target), "--no-text-bert", "--json"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    converted = mmiln.data.load(target)
    assert converted.fields == ["text", "raw_text", "audio"]
    assert "text_bert is left out: text encoders tokenize raw_text." in converted.report.notes
    assert len(model.predict(converted.test)) == 5
    content = pickle.loads(source.read_bytes())
    for part in content.values():
        del part["raw_text"]
    source.write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="expected raw_text to leave text_bert out"):
        mmiln.data.convert(source, tmp_path / "y.mmiln", text_bert=False, progress=False)
