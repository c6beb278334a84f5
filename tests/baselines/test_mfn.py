"""MFN against its oracle, and where the field's toolkit is known to be wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from baselines.checks import build, check_gradients, check_oracle, inputs
from mmiln.baselines.inputs import Sequence
from mmiln.baselines.mfn import MFN
from reference.baselines.mfn import forward as oracle

# By path: the module reference.baselines would hide a package of that name.

SIZES: dict[str, Any] = {
    "text_hidden": 4, "audio_hidden": 3, "vision_hidden": 2, "memory": 5, "attention_hidden": 3,
    "update_hidden": 4, "retain_hidden": 6, "take_hidden": 7, "out_hidden": 3,
}  # fmt: skip


@pytest.mark.parametrize("size", [4, 1])
def test_against_the_oracle(size):
    check_oracle(build(MFN, **SIZES), oracle, inputs(aligned=True, size=size))


def test_losses_reach_every_parameter():
    check_gradients(build(MFN, **SIZES), inputs(aligned=True, size=7))


@pytest.mark.parametrize("view", ["audio", "vision"])
def test_frames_vary_over_time(view):
    """MMSA gives every word the mean of the utterance's frames."""
    network, x = build(MFN, **SIZES), inputs(aligned=True)
    frames = getattr(x, view)
    still = replace(x, **{view: frames.map(frames.mean[:, None].expand_as(frames.frames))})
    changed = (network(still)["M"] - network(x)["M"]).abs()
    assert changed[frames.lengths > 1].min() > 1e-6
    assert changed[frames.lengths == 1].max() < 1e-12


@pytest.mark.parametrize("view", ["text", "audio", "vision"])
def test_nothing_is_read_behind_the_end(view):
    """MMSA and the authors' code step on through padding, and read the states behind it."""
    network, x = build(MFN, **SIZES), inputs(aligned=True)
    frames = getattr(x, view)
    dirty = torch.where(frames.mask[:, :, None], frames.frames, 7.0)
    torch.testing.assert_close(
        network(replace(x, **{view: Sequence(dirty, frames.lengths)})), network(x), rtol=0, atol=0
    )


def test_the_memory_sees_the_step_before():
    """Attention reads c of two steps: the columns of the earlier one get a gradient."""
    network, x = build(MFN, **SIZES), inputs(aligned=True)
    network(x)["M"].sum().backward()
    earlier = network.fusion.attention[0].weight.grad[:, :9]
    assert (earlier != 0).any()
    # At the first step the earlier c is zero, and utterances of length 1 have no other step.
    network.zero_grad()
    network(x.select(torch.tensor([1])))["M"].sum().backward()
    assert (network.fusion.attention[0].weight.grad[:, :9] == 0).all()
    assert (network.fusion.attention[0].weight.grad[:, 9:] != 0).any()


def test_what_is_minimised():
    network, x = build(MFN, **SIZES), inputs(aligned=True)
    outputs = network(x)
    pairs = zip(outputs["M"].tolist(), x.labels.tolist(), strict=True)
    expected = sum(abs(m - y) for m, y in pairs) / 4
    assert network.losses(outputs, x)["total"].item() == pytest.approx(expected, abs=1e-12)


def count(widths: dict[str, int], **fields: Any) -> int:
    return sum(p.numel() for p in MFN(MFN.Settings(**fields), widths).parameters())


def test_sizes_are_those_published():
    # MMSA's setting for MOSI, at its widths; it reports 2.2 M.
    mmsa = {
        "text_hidden": 256, "audio_hidden": 32, "vision_hidden": 256, "memory": 400, "attention_hidden": 32,
        "update_hidden": 64, "retain_hidden": 256, "take_hidden": 32, "out_hidden": 128,
    }  # fmt: skip
    widths = {"text": 768, "audio": 5, "vision": 20}
    assert count(widths, **mmsa) == pytest.approx(2.2e6, rel=0.02)
    # The authors', at theirs; linear maps and LSTMs counted by hand. No number was published.
    lstms = 4 * (88 * (300 + 88 + 2) + 48 * (5 + 48 + 2) + 16 * (20 + 16 + 2))
    attention = 305 * 128 + 129 * 304
    update = 305 * 64 + 65 * 128
    gates = 433 * 256 + 257 * 128 + 433 * 64 + 65 * 128
    out = 281 * 64 + 65
    total = lstms + attention + update + gates + out
    assert count({"text": 300, "audio": 5, "vision": 20}) == total


def test_presets():
    for preset in MFN.PRESETS.values():
        MFN.Settings(**preset)
    assert MFN.Settings().lr == 0.01
    with pytest.raises(ValueError, match="memory"):
        MFN.Settings(memory=0)
