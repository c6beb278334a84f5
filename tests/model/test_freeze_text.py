"""A text encoder that is frozen in part or as a whole: the same numbers, weights that stay, no work twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import mmiln
from mmiln.errors import ConfigError
from reference import batches, configs
from support.model_checks import FROZEN, LENGTHS, save_bert


@pytest.fixture(scope="module")
def bert_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


def model_of(bert_dir: Path, **fields: Any) -> tuple[mmiln.Model, dict[str, Any]]:
    config = configs.tiny(text_dim=8)
    batch = batches.random_batch(config, LENGTHS, 0, configs.TINY_BERT)
    batch["index"] = torch.arange(len(batch["labels"]))
    return mmiln.Model("mosi", text_encoder=bert_dir, dtype="float64", **config, **fields), batch


def is_frozen(name: str, layers: int) -> bool:
    parts = name.split(".")
    return name.startswith("text.bert.embeddings.") or (
        name.startswith("text.bert.encoder.layer.") and int(parts[4]) < layers
    )


@FROZEN
def test_scores_and_other_gradients_stay_the_same(freeze: Any, layers: int, bert_dir: Path) -> None:
    whole, batch = model_of(bert_dir)
    frozen, _ = model_of(bert_dir, freeze_text=freeze)
    for _ in range(2):  # computed, then kept
        torch.testing.assert_close(frozen.forward(batch), whole.forward(batch), rtol=1e-12, atol=1e-12)
    # Some of the sentences are known, some are new, one comes twice.
    other = {name: [value[i] for i in (2, 0, 0)] for name, value in batch.items()}
    other |= {"labels": batch["labels"][[2, 0, 0]], "index": batch["index"][[2, 0, 0]]}
    torch.testing.assert_close(frozen.forward(other), whole.forward(other), rtol=1e-12, atol=1e-12)
    for name, expected in whole.gradients(batch).items():
        found = frozen.gradients(batch)[name]
        if is_frozen(name, layers):
            assert not found.any(), name
        else:
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=name)


@FROZEN
def test_training_moves_the_rest_alone(freeze: Any, layers: int, bert_dir: Path) -> None:
    model, batch = model_of(bert_dir, freeze_text=freeze)
    model.forward(batch)
    before = model.state_dict()
    model.fit([batch], epochs=2, progress=False)
    moved = {name for name, after in model.state_dict().items() if not torch.equal(before[name], after)}
    assert "text.conv.weight" in moved
    # Key biases have no gradient: softmax does not see them.
    encoder = {n for n in before if n.startswith("text.bert.") and not n.endswith("key.bias")}
    assert moved & encoder == {name for name in encoder if not is_frozen(name, layers)}
    assert not any(is_frozen(name, layers) for name in moved)


def test_new_weights_are_seen(bert_dir: Path) -> None:
    model, batch = model_of(bert_dir, freeze_text=True)
    before = model.forward(batch)["y_multimodal"]
    state = {name: 1.5 * weight for name, weight in model.state_dict().items()}
    model.load_state_dict(state)
    other, _ = model_of(bert_dir)
    other.forward(batch)
    other.load_state_dict(state)
    found = model.forward(batch)["y_multimodal"]
    torch.testing.assert_close(found, other.forward(batch)["y_multimodal"], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found, before)


def test_what_is_frozen_is_kept_and_told(bert_dir: Path, tmp_path: Path) -> None:
    model, batch = model_of(bert_dir, freeze_text=1)
    model.forward(batch)
    model.save_pretrained(tmp_path)
    loaded = mmiln.Model.from_pretrained(tmp_path)
    assert loaded.config.model["freeze_text"] == 1
    summary = model.summary()
    frozen = sum(w.numel() for n, w in model.state_dict().items() if is_frozen(n, 1))
    assert summary.frozen == {"text.bert": frozen}
    assert f"{summary.parts['text.bert'] - frozen:,} trainable" in str(summary)
    assert loaded.summary() == summary


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ("embedding", "freeze_text"),
        (-1, "freeze_text"),
        (1.5, "freeze_text"),
        (99, "freeze_text must be at most the text encoder's 2 layers, got 99"),
    ],
)
def test_wrong_values(freeze: Any, message: str, bert_dir: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        model_of(bert_dir, freeze_text=freeze)


def test_nothing_to_freeze() -> None:
    with pytest.raises(ConfigError, match="freeze_text=True needs a text encoder to freeze"):
        mmiln.Model("mosi", freeze_text=True)


# Encoders of audio and vision


@pytest.mark.parametrize("frozen", [("audio",), ("vision",), ("audio", "vision")])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_encoders_of_audio_and_vision(frozen: tuple[str, ...], dtype: str) -> None:
    """The same scores and other gradients; nothing of them is trained, everything else is."""
    config, starts = configs.tiny(), tuple(f"{name}." for name in frozen)
    batch = batches.random_batch(config, LENGTHS, 0)
    batch["index"] = torch.arange(len(batch["labels"]))
    whole = mmiln.Model("mosi", dtype=dtype, seed=1, **config)
    part = mmiln.Model("mosi", dtype=dtype, seed=1, **config, **{f"freeze_{name}": True for name in frozen})
    assert torch.equal(part.forward(batch)["y_multimodal"], whole.forward(batch)["y_multimodal"])
    found, expected = part.gradients(batch), whole.gradients(batch)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert torch.equal(found[name], torch.zeros_like(gradient) if name.startswith(starts) else gradient)
    before = part.state_dict()
    part.fit([batch], epochs=2, progress=False)
    moved = {name for name, after in part.state_dict().items() if not torch.equal(before[name], after)}
    assert {name for name in before if name.startswith(starts)}.isdisjoint(moved)
    assert {name.split(".")[0] for name in moved} == {"text", "audio", "vision", "fusion", "heads"} - {
        *frozen
    }
    assert f"{frozen[0]}.lstm" in part.summary().frozen
    assert sum(part.summary().frozen.values()) == sum(
        before[n].numel() for n in before if n.startswith(starts)
    )
