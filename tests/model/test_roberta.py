"""Text encoders of RoBERTa's family against transformers and the oracle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from mmiln.baselines import Baseline
from mmiln.errors import BatchError, ConfigError, MissingFileError, WeightsError
from mmiln.text_encoder import TextEncoder, find_text_encoder
from reference import batches, configs, losses, model
from support import small_bert
from support.model_checks import (
    FROZEN,
    LENGTHS,
    PRESENT,
    PRESENT_IDS,
    SINGLE,
    TOLERANCE,
    agree,
    check_text_encoder,
)

ROBERTA = configs.TINY_ROBERTA
ALONE = {"audio_dim": 0, "vision_dim": 0}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bert.write_roberta(tmp_path_factory.mktemp("roberta"))


@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_against_the_oracle(directory: Path, present: dict, dtype: str) -> None:
    check_text_encoder(directory, present, dtype, ROBERTA)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Roberta", {}),
        ("Roberta", {"pad_token_id": 3}),  # positions from 4 on
        ("XLMRoberta", {"model_type": "xlm-roberta"}),
        ("Camembert", {"model_type": "camembert", "hidden_act": "gelu_new"}),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
@pytest.mark.parametrize("text", [LENGTHS["text"], [2], SINGLE["text"], [2, 14, 3]], ids=str)
def test_against_transformers(
    kind: str, changes: dict, dtype: str, tolerance: float, text: list[int], tmp_path: Path
) -> None:
    """The outputs and all gradients, by feeding the oracle what transformers computes."""
    transformers = pytest.importorskip("transformers", reason="its models are the peers compared with")
    kinds = getattr(transformers, f"{kind}Config"), getattr(transformers, f"{kind}Model")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = kinds[0](**(ROBERTA | changes), initializer_range=0.2)
        kinds[1](settings, add_pooling_layer=False).save_pretrained(tmp_path)
    peer = kinds[1].from_pretrained(tmp_path, attn_implementation="eager", add_pooling_layer=False)
    peer = peer.double().eval()
    config = configs.tiny(text_dim=8)
    lengths = {"text": text, "audio": [3] * len(text), "vision": [1, 2, 5][: len(text)]}
    batch = batches.random_batch(config, lengths, 0, ROBERTA)
    pad = settings.pad_token_id
    for tokens in batch["text_bert"]:  # transformers takes the padding's id for padding
        tokens[0][tokens[0] == pad] = 7
    built = mmiln.Model("mosi", text_encoder=tmp_path, dtype=dtype, **config)
    p = {name: weight.double().requires_grad_() for name, weight in built.state_dict().items()}
    hidden = [peer(ids[None]).last_hidden_state[0] for ids, _, _ in batch["text_bert"]]
    features = {name: batch[name] for name in ("audio", "vision", "labels")} | {"text": hidden}
    out = model.forward(p, config, features)
    agree(built.forward(batch, intermediates=True), out, tolerance)
    pseudo = dict.fromkeys(("audio", "vision"), batch["labels"])
    total = losses.losses(out, batch["labels"], pseudo, config)["total"]
    own = {f"text.bert.{name}": weight for name, weight in peer.named_parameters()}
    weights = own | {name: weight for name, weight in p.items() if name not in own}
    gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
    expected = {
        name: torch.zeros_like(weight) if gradient is None else gradient
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
    agree(built.gradients(batch), expected, tolerance)


@FROZEN
def test_frozen_parts_give_the_same(freeze: Any, layers: int, directory: Path) -> None:
    batch = batches.random_batch(configs.tiny(text_dim=8), LENGTHS, 0, ROBERTA)
    settings = {"text_encoder": directory, "dtype": "float64", **configs.tiny(text_dim=8)}
    whole, frozen = mmiln.Model("mosi", **settings), mmiln.Model("mosi", **settings, freeze_text=freeze)
    for _ in range(2):
        torch.testing.assert_close(frozen.forward(batch), whole.forward(batch), rtol=1e-12, atol=1e-12)


def test_a_checkpoint_with_a_head(directory: Path, tmp_path: Path) -> None:
    """As on the hub: names with a prefix, a language model's head, a buffer of positions."""
    import safetensors.torch as files

    small_bert.write_roberta(tmp_path)
    weights = files.load_file(directory / "model.safetensors")
    renamed = {f"roberta.{name}": weight for name, weight in weights.items()}
    rest = {name: torch.ones(1, 18) for name in ("lm_head.bias", "roberta.embeddings.position_ids")}
    files.save_file(renamed | rest, tmp_path / "model.safetensors")
    held = TextEncoder(tmp_path).weights()
    assert held.keys() == {f"text.bert.{name}" for name in weights}
    assert all(torch.equal(held[f"text.bert.{name}"], weight) for name, weight in weights.items())


def test_a_saved_model_is_a_roberta_again(directory: Path, tmp_path: Path) -> None:
    built = mmiln.Model("mosi", text_encoder=directory, **configs.tiny(text_dim=8, **ALONE))
    batch = {"raw_text": ["the film was good", "very badly made"]}
    expected = built.predict(batch).score
    built.save_pretrained(tmp_path)
    loaded = mmiln.Model.from_pretrained(tmp_path)
    np.testing.assert_array_equal(loaded.predict(batch).score, expected)
    again = mmiln.Model("mosi", text_encoder=tmp_path, **configs.tiny(text_dim=8, **ALONE))
    assert again.encoder is not None and again.encoder.is_roberta
    # Without the family the same weights are read from other positions.
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["text_encoder"]["model_type"] = "bert"
    (tmp_path / "config.json").write_text(json.dumps(saved))
    batch = {"text_bert": [tokens.numpy() for tokens in loaded.encoder.tokenizer.tokenize(batch["raw_text"])]}
    assert not np.allclose(mmiln.Model.from_pretrained(tmp_path).predict(batch).score, expected)


def tokens(ids: list[int], segment: int = 0) -> dict[str, Any]:
    return {"text_bert": np.array([[ids, [1] * len(ids), [segment] * len(ids)]])}


UNREADABLE = {
    "an id": (tokens([0, 300, 2]), "token id is 300, the text encoder knows up to 299"),
    "a segment": (tokens([0, 5, 2], 1), "segment is 1, the text encoder knows up to 0"),
    "a length": (tokens([5] * 17), "number of tokens is 17, the text encoder knows up to 16"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
@pytest.mark.parametrize("baseline", [False, True])
def test_tokens_without_an_embedding(fault: str, baseline: bool, directory: Path) -> None:
    if baseline:
        pytest.importorskip("transformers", reason="baselines read text with it")
        built: Any = Baseline("text_only", text_encoder=directory)
    else:
        built = mmiln.Model("mosi", text_encoder=directory, **configs.tiny(text_dim=8, **ALONE))
    batch, message = UNREADABLE[fault]
    assert built.predict(tokens([5] * 16)).score.shape == (1,)
    with pytest.raises(
        BatchError, match=f"{message}: these tokens are another tokenizer's; without text_bert"
    ):
        built.predict(batch)


@pytest.mark.parametrize("pad", [None, -1, 17, 1.0, "1", True])
def test_no_first_position(pad: Any, tmp_path: Path) -> None:
    small_bert.write_roberta(tmp_path, pad_token_id=pad if type(pad) is int and pad < 0 else 1)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"pad_token_id": pad}))
    with pytest.raises(ConfigError, match=r"pad_token_id in config\.json must be a whole number, at least 0"):
        TextEncoder(tmp_path)


def test_old_files_leave_the_padding_out(directory: Path, tmp_path: Path) -> None:
    small_bert.write_roberta(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["pad_token_id"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert TextEncoder(tmp_path).longest == TextEncoder(directory).longest == 16


@pytest.mark.parametrize("there", [True, False])  # of a repository on the hub, only safetensors are fetched
def test_the_way_to_convert_a_pickle(there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_bert.write_roberta(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / "pytorch_model.bin") if there else weights.unlink()
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    encoder = find_text_encoder("a/b")
    with pytest.raises(WeightsError if there else MissingFileError) as error:
        encoder.weights()
    assert "a/b" in str(error.value)
    assert "[kind.from_pretrained('a/b').save_pretrained(DIR, safe_serialization=True)" in str(error.value)
    assert "pytorch_model.bin" in str(error.value)


# Baselines


def test_a_baseline_reads_the_same(directory: Path) -> None:
    """Positions are right beside padding, whose id 0 is that of ``<s>`` here."""
    pytest.importorskip("transformers", reason="baselines read text with it")
    built = Baseline("text_only", text_encoder=directory, dtype="float64")
    sentences = ["the film was good", "bad", "very badly made, café"]
    scores = built.predict({"raw_text": sentences}).score
    for sentence, score in zip(sentences, scores, strict=True):
        assert built.predict({"raw_text": [sentence]}).score[0] == pytest.approx(score, abs=1e-6)
    network = built.core.network
    p = {f"text.{name}": weight for name, weight in built.state_dict().items()}
    for sentence, score in zip(sentences, scores, strict=True):
        (row,) = built.encoder.tokenizer.tokenize([sentence])
        with torch.no_grad():
            cls = model.bert(p, ROBERTA, row)[0]
            assert float(network.head(cls)[0]) == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("name", ["mag_bert", "emt", "self_mm"])
def test_baselines_train(name: str, directory: Path) -> None:
    pytest.importorskip("transformers", reason="baselines read text with it")
    rng = np.random.default_rng(0)
    sentences = ["the film was good", "bad and goodly", "very good, very bad"]
    frames = {n: [rng.normal(size=(len(s.split()), 4)) for s in sentences] for n in ("audio", "vision")}
    batch = {"raw_text": sentences, **frames, "labels": [1.0, -1.0, 0.5], "index": [0, 1, 2]}
    built = Baseline(name, text_encoder=directory, **({"missing": 0.4} if name == "emt" else {}))
    built.fit([batch], epochs=1, progress=False)
    if name == "emt":
        assert built.core.network.unknown == 3  # <unk>
