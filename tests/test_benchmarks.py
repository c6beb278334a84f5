"""What the benchmarks compare is one and the same computation."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mmiln

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.peer import Peer, Trainer, targets

DIMS = {"text_dim": 7, "audio_dim": 5, "vision_dim": 6}
LENGTHS = {"text": [4, 1, 7], "audio": [5, 1, 9], "vision": [3, 6, 1]}
DROPOUTS = ("multimodal", "audio", "vision", "attn", "residual", "embed")
SETTINGS: dict[str, Any] = {
    **{f"{part}_dropout": 0.0 for part in DROPOUTS},
    **{"d_model": 8, "num_heads": 2, "num_layers": 2, "accumulate": 1},
    **{"audio_hidden": 4, "vision_hidden": 5, "text_kernel": 3, "vision_kernel": 3},
}


def make_batch(first: int = 0, bert: bool = False) -> dict[str, Any]:
    rng = np.random.default_rng(first)
    batch: dict[str, Any] = {
        name: [rng.standard_normal((t, DIMS[f"{name}_dim"])).astype("f4") for t in lengths]
        for name, lengths in LENGTHS.items()
    }
    if bert:
        del batch["text"]
        tokens = [rng.integers(0, 30, t) for t in LENGTHS["text"]]
        batch["text_bert"] = [np.stack([ids, np.ones_like(ids), ids % 2]) for ids in tokens]
    batch["labels"] = np.array([1.2, -2.0, 0.4], "f4")
    return batch | {"index": np.arange(first, first + 3)}


def pair(encoder: str | None = None, **settings: Any) -> tuple[mmiln.Model, Peer]:
    """A model, and a peer in evaluation mode with the same weights."""
    dims = DIMS if encoder is None else {name: DIMS[name] for name in ("audio_dim", "vision_dim")}
    model = mmiln.Model("mosi", text_encoder=encoder, **dims, **(SETTINGS | settings))
    bert = None
    if encoder is not None:
        from transformers import BertModel

        bert = BertModel.from_pretrained(encoder, add_pooling_layer=False)
    weights = model.state_dict()
    peer = Peer(model.config.to_dict(), bert).to(next(iter(weights.values())).dtype).eval()
    peer.load_state_dict(weights)
    return model, peer


def agree(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float) -> None:
    """Each tensor within `tolerance` of its norm."""
    assert set(actual) == set(expected)
    for name, value in expected.items():
        off = float((actual[name].detach() - value.detach()).norm() / (value.detach().norm() + 1e-3))
        assert off <= tolerance, (name, off)


def assert_same(model: mmiln.Model, peer: Peer, batch: dict[str, Any]) -> None:
    out = peer(peer.collate(batch))
    theirs = {name: value for name, value in out.items() if not name.startswith("control")}
    agree(model.forward(batch), theirs, 1e-4)
    labels, _ = targets(batch)
    losses = peer.losses(out, labels, {"audio": labels, "vision": labels})
    agree(model.losses(batch), losses, 1e-4)
    losses["total"].backward()
    agree(model.gradients(batch), {name: p.grad for name, p in peer.named_parameters()}, 1e-4)


def test_peer_computes_the_same() -> None:
    model, peer = pair()
    assert_same(model, peer, make_batch())


def test_peer_with_bert_computes_the_same(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="BertModel is the text encoder")
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12
        )
    ).save_pretrained(tmp_path)
    model, peer = pair(str(tmp_path))
    assert_same(model, peer, make_batch(bert=True))


def test_peer_trains_the_same() -> None:
    """Two epochs of two steps: Adam, its groups, and pseudo-labels."""
    model, peer = pair(dtype="float64")
    model._core.begin_training(6, json.dumps(model.config.train))
    trainer = Trainer(peer, 6)
    for epoch in (1, 2):
        model._core.begin_epoch(epoch)
        for first in (0, 3):
            batch = make_batch(first)
            wide = {
                name: [u.astype("f8") for u in value] if isinstance(value, list) else value
                for name, value in batch.items()
            }
            expected = trainer.step(wide | {"labels": batch["labels"].astype("f8")}, epoch)
            agree(model._core.train_step(model._pack(batch)), expected, 1e-10)
    for name, labels in model.pseudo_labels.items():
        np.testing.assert_allclose(labels, trainer.ulgm.labels[name], rtol=1e-6)
    # The bias of attention's keys has gradient 0, of which Adam magnifies the rounding.
    agree(model.state_dict(), dict(peer.named_parameters()), 1e-6)


def test_padding_leaves_the_scores_near() -> None:
    """Not equal: the padded peer's BiGRUs start in the padding."""
    _, peer = pair()
    batch = make_batch()
    cropped = peer(peer.collate(batch))
    peer.padded = True
    arrays = peer.collate(batch)
    assert {name: x.shape[1] for name, (x, _) in arrays.items()} == {"text": 50, "audio": 375, "vision": 500}
    padded = peer(arrays)
    for name in ("y_multimodal", "y_audio", "y_vision"):
        torch.testing.assert_close(padded[name], cropped[name], rtol=0.05, atol=0.05)
