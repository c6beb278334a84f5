"""Models against the oracle: what the tests on the CPU and on a card have in common."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmiln
from reference import batches, configs, losses, model, params

VARIANTS = ("full", "no_mrm", "no_mfm", "no_gate_fusion")
PRESENT = ({}, {"vision_dim": 0}, {"audio_dim": 0}, {"audio_dim": 0, "vision_dim": 0})
PRESENT_IDS = ("all", "audio", "vision", "text")
LENGTHS = {"text": [4, 1, 7], "audio": [5, 1, 9], "vision": [3, 6, 1]}
SINGLE = {"text": [1], "audio": [1], "vision": [1]}
TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
Outputs = Mapping[str, Any]


def agree(actual: Outputs, expected: Outputs, tolerance: float, floor: float = 0.05) -> None:
    """Asserts equal names and shapes; each tensor within `tolerance` of its norm, or of `floor` if larger."""
    assert set(actual) == set(expected)
    off = {}
    for name, value in expected.items():
        pairs = zip(actual[name], value, strict=True) if isinstance(value, list) else [(actual[name], value)]
        for mine, theirs in pairs:
            assert mine.shape == theirs.shape, name
            assert not mine.requires_grad, name
            error = float((mine.cpu().double() - theirs.detach()).norm())
            scale = max(float(theirs.detach().norm()), floor)
            if not error <= tolerance * scale:
                off[name] = (error, scale)
    assert off == {}


def build(
    config: dict, dtype: str = "float64", bert: dict | None = None, **arguments: Any
) -> tuple[mmiln.Model, dict[str, Tensor]]:
    """A model with perturbed random weights, and the same weights for the oracle."""
    p = params.perturb(params.init(config, 0, bert), 1)
    if dtype == "float32":
        p = {name: weight.float().double() for name, weight in p.items()}
    built = mmiln.Model("mosi", dtype=dtype, **(config | arguments))
    built.load_state_dict(p)
    return built, {name: weight.requires_grad_() for name, weight in p.items()}


def as_float32(batch: dict) -> dict:
    """The batch with values that float32 holds, still float64."""
    return {
        name: [u.float().double() for u in value] if isinstance(value, list) else value.float().double()
        for name, value in batch.items()
    }


def oracle_losses(p: dict, config: dict, batch: dict, pseudo: dict | None = None, bert: Any = None) -> tuple:
    """The oracle's losses and the gradient of their total by name; zero where there is none."""
    out = model.forward(p, config, batch, bert)
    if pseudo is None:
        pseudo = dict.fromkeys(model.sources(config), batch["labels"])
    found = losses.losses(out, batch["labels"], pseudo, config, batch.get("weights"))
    gradients = torch.autograd.grad(found["total"], list(p.values()), allow_unused=True)
    pairs = zip(p.items(), gradients, strict=True)
    return found, {name: torch.zeros_like(w) if g is None else g for (name, w), g in pairs}


def check_model(config: dict, lengths: dict, dtype: str = "float64", **arguments: Any) -> None:
    built, p = build(config, dtype, **arguments)
    batch = batches.random_batch(config, lengths, 0)
    if dtype == "float32":
        batch = as_float32(batch)
    tolerance = TOLERANCE[dtype]
    expected = model.forward(p, config, batch)
    agree(built.forward(batch, intermediates=True), expected, tolerance)
    plain = {name: value for name, value in expected.items() if name[:2] in ("y_", "F_")}
    agree(built.forward(batch), plain, tolerance)
    found, gradients = oracle_losses(p, config, batch)
    agree(built.losses(batch), found, tolerance)
    agree(built.gradients(batch), gradients, tolerance)
    np.testing.assert_allclose(
        built.predict([batch]).score, expected["y_multimodal"].detach(), rtol=1e-6, atol=1e-6
    )


SETTINGS = [
    ({"num_layers": 1}, LENGTHS),
    ({"num_layers": 3, "num_heads": 4}, LENGTHS),
    ({"num_layers": 4, "num_heads": 1}, SINGLE),
    ({"num_layers": 5}, {"text": [3], "audio": [2], "vision": [4]}),
    ({"num_layers": 6, "pooling": "first"}, {"text": [2, 3], "audio": [1, 1], "vision": [2, 1]}),
    ({"d_model": 5, "num_heads": 1}, LENGTHS),
    ({"d_model": 9, "num_heads": 3, "diff_normalize": False}, LENGTHS),
    ({"d_model": 1, "num_heads": 1}, LENGTHS),
    ({"text_kernel": 1, "audio_kernel": 3, "vision_kernel": 1}, LENGTHS),
    ({"text_kernel": 5, "audio_kernel": 5, "vision_kernel": 3}, LENGTHS),
    ({"text_kernel": 5, "audio_kernel": 7, "vision_kernel": 5}, SINGLE),  # wider than the sequence
    ({"diff_normalize": False}, SINGLE),
    ({}, {"text": [1] * 5, "audio": [1] * 5, "vision": [1] * 5}),
    ({}, {"text": [13, 2], "audio": [1, 31], "vision": [17, 5]}),
    ({"text_dim": 1, "audio_dim": 1, "vision_dim": 1}, LENGTHS),
    ({"audio_hidden": 1, "vision_hidden": 8, "multimodal_features": 1, "audio_features": 1}, LENGTHS),
    ({"alpha": 0.0, "beta": 2.5}, LENGTHS),
    ({"alpha": 1.5, "beta": 0.0, "label_bound": 5.0}, LENGTHS),
]


def save_bert(directory: Path, **changes: Any) -> Path:
    transformers = pytest.importorskip("transformers", reason="BertModel writes the encoder")
    settings = transformers.BertConfig(**(configs.TINY_BERT | changes), initializer_range=0.3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.BertModel(settings).save_pretrained(directory)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "the", "was", "very", "not"]
    (directory / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return directory


def check_text_encoder(
    bert_dir: Path, present: dict, dtype: str, bert: dict = configs.TINY_BERT, **arguments: Any
) -> None:
    config = configs.tiny(text_dim=8, **present)
    built, p = build(config, dtype, bert, text_encoder=bert_dir, **arguments)
    batch = batches.random_batch(config, LENGTHS, 0, bert)
    plain = {n: v if n == "text_bert" else as_float32({n: v})[n] for n, v in batch.items()}
    expected = model.forward(p, config, plain, bert)
    agree(built.forward(plain, intermediates=True), expected, TOLERANCE[dtype])
    maps = model.attention_maps(p, config, plain, bert)
    agree(built.attention_maps(plain), maps, TOLERANCE[dtype])
    found, gradients = oracle_losses(p, config, plain, bert=bert)
    agree(built.losses(plain), found, TOLERANCE[dtype])
    agree(built.gradients(plain), gradients, TOLERANCE[dtype])


# The field, and how many layers it freezes.
FROZEN = pytest.mark.parametrize(("freeze", "layers"), [("embeddings", 0), (1, 1), (True, 2)])
