"""MFM against its oracle, and where the field's toolkit is known to be wrong."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from baselines.checks import build, check_gradients, check_oracle, inputs, padded
from mmiln.baselines.distances import mmd
from mmiln.baselines.inputs import Sequence
from mmiln.baselines.mfm import MFM
from reference.baselines import mfm as oracle

# By path: the module reference.baselines would hide a package of that name.

SIZES: dict[str, Any] = {
    "text_hidden": 4, "audio_hidden": 3, "vision_hidden": 2, "memory": 5, "attention_hidden": 3,
    "update_hidden": 4, "retain_hidden": 6, "take_hidden": 7,
    "z_label": 5, "z_text": 4, "z_audio": 3, "z_vision": 2,
    "f_label": 7, "f_text": 5, "f_audio": 4, "f_vision": 3,
}  # fmt: skip
FACTORS = ("label", "text", "audio", "vision")


@pytest.mark.parametrize("size", [4, 1])
def test_against_the_oracle(size):
    check_oracle(build(MFM, **SIZES), oracle.forward, inputs(aligned=True, size=size))


def test_losses_reach_every_parameter():
    """MMSA has a head of MFN that no loss reaches."""
    network = build(MFM, **SIZES)
    check_gradients(network, inputs(aligned=True, size=7))


def test_losses():
    """Written out, with the prior that the seed gives."""
    weights = {"mmd": 3.0, "recon_text": 0.7, "recon_audio": 0.2, "recon_vision": 1.3}
    network, x = build(MFM, **SIZES, **weights), inputs(aligned=True)
    outputs = {name: value.detach() for name, value in network(x).items()}
    torch.manual_seed(5)
    losses = network.losses(outputs, x)
    torch.manual_seed(5)
    gap = 0.0
    for name in FACTORS:
        prior = torch.randn(outputs[f"z_{name}"].shape, dtype=torch.float64)
        gap += oracle.mmd(outputs[f"z_{name}"], prior)
    recon = 0.0
    for name in FACTORS[1:]:  # 14 true frames of each modality
        recon += weights[f"recon_{name}"] * float(outputs[f"error_{name}"].sum()) / 14
    task = float((outputs["M"] - x.labels).abs().mean())
    expected = {"task": task, "recon": recon, "mmd": gap, "total": task + recon + 3 * gap}
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(expected, abs=1e-12)
    assert gap > 0.01


def test_the_prior_is_another_one_each_step():
    """The prior is drawn from the global generator, seeded by the trainer at each step; scores are not."""
    network, x = build(MFM, **SIZES), inputs(aligned=True)
    outputs = network(x)
    first, second = (network.losses(outputs, x)["mmd"].item() for _ in range(2))
    assert first != second
    before = torch.get_rng_state()
    network(x)
    assert torch.equal(torch.get_rng_state(), before)


def test_mmd_pulls_towards_the_prior():
    torch.manual_seed(0)
    prior, z = torch.randn(200, 3), torch.randn(200, 3)
    assert mmd(z, prior) < 0.02 < 0.1 < mmd(3 * z, prior)
    assert mmd(z + 2, prior) > 0.1


@pytest.mark.parametrize("view", ["text", "audio", "vision"])
def test_padding_is_neither_read_nor_reconstructed(view):
    """MMSA and the authors' code encode zeros behind the end, and have the decoder learn them."""
    network, x = build(MFM, **SIZES), inputs(aligned=True)
    frames = getattr(x, view)
    dirty = torch.where(frames.mask[:, :, None], frames.frames, 7.0)
    other = padded(replace(x, **{view: Sequence(dirty, frames.lengths)}))
    totals = []
    for each in (x, other):
        torch.manual_seed(5)
        totals.append(network.losses(network(each), each)["total"].item())
    assert totals[0] == pytest.approx(totals[1], abs=1e-12)


@pytest.mark.parametrize("view", ["audio", "vision"])
def test_frames_vary_over_time(view):
    """MMSA gives every word the mean of the utterance's frames."""
    network, x = build(MFM, **SIZES), inputs(aligned=True)
    frames = getattr(x, view)
    still = replace(x, **{view: frames.map(frames.mean[:, None].expand_as(frames.frames))})
    changed = (network(still)["M"] - network(x)["M"]).abs()
    assert changed[frames.lengths > 1].min() > 1e-7
    assert changed[frames.lengths == 1].max() < 1e-12


def test_the_rate_given_is_the_rate_used():
    """MMSA and the authors' code leave Adam at its own default rate."""
    network = build(MFM, **SIZES, lr=0.123, decay=0.045)
    rates = {
        id(p): (group["lr"], group["weight_decay"]) for group in network.groups() for p in group["params"]
    }
    assert set(rates) == {id(p) for p in network.parameters()}
    assert set(rates.values()) == {(0.123, 0.045)}


def test_a_text_encoder_is_not_trained_to_be_reconstructed():
    """Its output gets a gradient through the encoders only."""
    network, x = build(MFM, **SIZES), inputs(aligned=True)
    text = x.text.frames.clone().requires_grad_()
    for decoder in network.decoders.values():  # gradients could then flow through the targets only
        torch.nn.init.zeros_(decoder.out.weight)
    network(replace(x, text=Sequence(text, x.text.lengths)))["error_text"].sum().backward()
    assert (text.grad == 0).all()


def count(widths: dict[str, int], **fields: Any) -> int:
    return sum(p.numel() for p in MFM(MFM.Settings(**fields), widths).parameters())


def test_sizes():
    # The authors' setting at their widths, counted by hand; no number was published.
    def lstm(width: int, hidden: int) -> int:
        return 4 * hidden * (width + hidden + 2)

    def maps(*widths: int) -> int:
        return sum((a + 1) * b for a, b in itertools.pairwise(widths))

    fusion = lstm(300, 88) + lstm(5, 64) + lstm(20, 48) + maps(400, 128, 400) + maps(400, 128, 64)
    fusion += 2 * maps(464, 128, 64) + maps(264, 32)
    encoders = lstm(300, 32) + maps(32, 32) + lstm(5, 8) + maps(8, 8) + lstm(20, 80) + maps(80, 80)
    factors = maps(32, 16, 16) + maps(32, 88, 88) + maps(8, 8, 8) + maps(80, 8, 8)
    decoders = lstm(104, 104) + maps(104, 300) + lstm(24, 24) + maps(24, 5) + lstm(24, 24) + maps(24, 20)
    total = fusion + encoders + factors + decoders + maps(16, 16, 1)
    assert count({"text": 300, "audio": 5, "vision": 20}) == total


def test_presets():
    for preset in MFM.PRESETS.values():
        MFM.Settings(**preset)
