"""The sides of each benchmark compute the same."""

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

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.gpu import card, ops, step
from benchmarks.peer import Peer, Trainer, targets

PARTS = mmiln.Model.LOSSES

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
    model.core.begin_training(6, json.dumps(model.config.train))
    trainer = Trainer(peer, 6)
    for epoch in (1, 2):
        model.core.begin_epoch(epoch)
        for first in (0, 3):
            batch = make_batch(first)
            wide = {
                name: [u.astype("f8") for u in value] if isinstance(value, list) else value
                for name, value in batch.items()
            }
            expected = trainer.step(wide | {"labels": batch["labels"].astype("f8")}, epoch)
            losses = model.core.train_step(model.pack(batch))
            agree(dict(zip(PARTS, losses, strict=True)), expected, 1e-10)
    for name, labels in model.pseudo_labels.items():
        np.testing.assert_allclose(labels, trainer.ulgm.labels[name], rtol=1e-6)
    # The bias of attention's keys has gradient 0, of which Adam magnifies the rounding.
    agree(model.state_dict(), dict(peer.named_parameters()), 1e-6)


def test_packing_by_an_index_changes_nothing() -> None:
    model, peer = pair()
    peer.pack_by_index = True
    batch = make_batch()
    assert all(frames.packing is not None for _, frames in peer.collate(batch).values())
    assert_same(model, peer, batch)


def test_autocast_leaves_the_step_near() -> None:
    steps = []
    for autocast in (None, torch.bfloat16):
        _, peer = pair()
        steps.append(Trainer(peer, 3, autocast=autocast).step(make_batch()))
    for name, loss in steps[1].items():
        assert loss.dtype == torch.float32
        assert float(loss) != float(steps[0][name])
    torch.testing.assert_close(steps[1]["task"], steps[0]["task"], rtol=0.05, atol=0.05)


def test_padding_leaves_the_scores_near() -> None:
    """They are near but not equal: the padded peer's BiGRUs start in the padding."""
    _, peer = pair()
    batch = make_batch()
    cropped = peer(peer.collate(batch))
    peer.padded = True
    arrays = peer.collate(batch)
    assert {name: x.shape[1] for name, (x, _) in arrays.items()} == {"text": 50, "audio": 375, "vision": 500}
    padded = peer(arrays)
    for name in ("y_multimodal", "y_audio", "y_vision"):
        torch.testing.assert_close(padded[name], cropped[name], rtol=0.05, atol=0.05)


# Benchmarks for a card, tried on the CPU


def lines_of(
    main: Any, arguments: str, monkeypatch: Any, capsys: pytest.CaptureFixture[str]
) -> list[list[str]]:
    """The cells of what a benchmark prints on the CPU."""
    monkeypatch.setattr(sys, "argv", ["", "--device", "cpu", "--quick", "--threads", "1", *arguments.split()])
    assert main() == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_steps_on_a_card_run(monkeypatch: Any, capsys: Any) -> None:
    lines = lines_of(step.main, "--size 2 --data mosi --precision float32", monkeypatch, capsys)
    names = [cells[0] for cells in lines[2:]]
    assert names == ["MOSI, 2, float32: mmiln", "MOSI, 2, float32: PyTorch"]
    assert all(cell.endswith("s") for cells in lines[2:] for cell in (cells[1], cells[3], cells[5]))
    assert float(lines[3][2]) > 0


@pytest.mark.parametrize("op", ["linear", "bigru_control", "cmd", "ulgm_labels"])
def test_ops_on_a_card_run(op: str, monkeypatch: Any, capsys: Any) -> None:
    (cells,) = lines_of(ops.main, f"--only {op}", monkeypatch, capsys)[2:]
    assert cells[0] == f"`{op}`" and float(cells[4]) > 0 and cells[-1].endswith("%")


def test_launches_are_counted() -> None:
    events = [
        ("aten::mm", False, 9.0), ("cudaLaunchKernel", False, 9.0), ("cuLaunchKernelEx", False, 9.0),
        ("cudaGraphLaunch", False, 9.0), ("cudaMemcpyAsync", False, 9.0), ("cudaEventRecord", False, 9.0),
        ("sgemm", True, 1.0), ("Memcpy HtoD", True, 2.0), ("mmiln::Lstm", True, 9.0),
    ]  # fmt: skip
    assert card.counted(events) == card.Launches(4, 2, 3.0)
    assert card.counted(events[:6]) is None
    assert card.Launches(4, 2, 3.0).each(2) == card.Launches(2, 1, 1.5)


def test_bounds_are_the_slower_of_two() -> None:
    limits = card.Bounds(bandwidth=10.0, flops=100.0)
    assert limits.least(20, 100) == (2.0, "memory")
    assert limits.least(20, 1000) == (10.0, "float32")


def test_targets_are_met_or_not() -> None:
    def told(ours: float, eager: float, precision: str, encoder: str | None) -> str:
        results = {n: step.Result(s, s, s, None, None) for n, s in ((step.MMILN, ours), (step.EAGER, eager))}
        return step.targets(step.Setting("mosi", 32, precision, encoder, "cpu"), results)

    assert told(8e-4, 4e-2, "float32", None).endswith(
        "800 µs, met; PyTorch at least 20 times that: 50.0, met."
    )
    assert told(5e-3, 2e-2, "bfloat16", "x").endswith(
        "5 ms, not met; PyTorch at least 8 times that: 4.0, not met."
    )
    assert told(1e-3, 1e-2, "bfloat16", None) == ""
