"""MulT, where its code or the field's toolkit (MMSA) is known to be wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from baselines.checks import ALL_OR_TWO, build, check_gradients, check_oracle, inputs, padded
from mmiln.baselines.inputs import Inputs, Sequence
from mmiln.baselines.mult import MulT
from reference.baselines.mult import forward as oracle

SMALL: dict[str, Any] = {
    "width": 6, "heads": 3, "layers": 2, "text_kernel": 1, "audio_kernel": 1, "vision_kernel": 1
}  # fmt: skip
MODALITIES = ("text", "audio", "vision")


def score(network: MulT, x: Inputs) -> torch.Tensor:
    with torch.no_grad():
        return network(x)["M"]


def changed(x: Inputs, name: str, steps: torch.Tensor) -> Inputs:
    """The batch with one frame of each utterance changed."""
    sequence = getattr(x, name)
    frames = sequence.frames.clone()
    frames[torch.arange(len(frames)), steps] += 1
    return replace(x, **{name: Sequence(frames, sequence.lengths)})


@pytest.mark.parametrize("size", [19, 4, 1])
@pytest.mark.parametrize("kernel", [1, 5])
def test_against_the_oracle(size, kernel):
    network = build(MulT, **SMALL | {f"{name}_kernel": kernel for name in MODALITIES})
    check_oracle(network, oracle, inputs(size=size))


@pytest.mark.parametrize("widths", ALL_OR_TWO[1:])
def test_two_modalities_against_the_oracle(widths):
    check_oracle(build(MulT, widths, **SMALL), oracle, inputs(widths))


@pytest.mark.parametrize("widths", ALL_OR_TWO)
def test_losses_reach_every_parameter(widths):
    check_gradients(build(MulT, widths, **SMALL), inputs(widths, size=7))


def silence(network: MulT) -> MulT:
    """Turns attention off, so that each stream reads each step alone."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "out_proj" in name:
                parameter.zero_()
    return network


@pytest.mark.parametrize("name", MODALITIES)
def test_the_last_true_step_is_read(name):
    """The last padded step would be zero for any utterance."""
    network, x = silence(build(MulT, **SMALL)), padded(inputs())
    lengths = getattr(x, name).lengths
    before = score(network, x)
    assert (score(network, changed(x, name, lengths - 1)) - before).abs().min() > 1e-6
    longer = lengths > 1
    assert (score(network, changed(x, name, (lengths - 2).clamp(min=0))) - before)[longer].abs().max() == 0


@pytest.mark.parametrize("name", MODALITIES)
def test_attention_sees_every_true_step(name):
    """The first step of each sequence affects the score, which is read at the last."""
    network, x = build(MulT, **SMALL), inputs()
    first = torch.zeros(4, dtype=torch.int64)
    assert (score(network, changed(x, name, first)) - score(network, x)).abs().min() > 1e-7


def test_convolutions_see_zeros_behind_the_end():
    """They keep the number of steps: with a kernel of 5 one step stays one step (MMSA removes 4)."""
    network = build(MulT, **SMALL | {f"{name}_kernel": 5 for name in MODALITIES})
    x = inputs()
    alone = torch.stack([score(network, x.select(torch.tensor([i])))[0] for i in range(4)])
    torch.testing.assert_close(score(network, padded(x)), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", MODALITIES)
def test_positions_are_read(name):
    """Steps in another order give another score."""
    network, x = build(MulT, **SMALL), inputs()
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(4, 5, getattr(x, name).frames.shape[2], generator=generator, dtype=torch.float64)
    five = torch.full((4,), 5)
    order = torch.tensor([1, 3, 0, 2, 4])  # the last stays: it is the one that is read
    straight, turned = (replace(x, **{name: Sequence(f, five)}) for f in (frames, frames[:, order]))
    assert (score(network, straight) - score(network, turned)).abs().min() > 1e-7


def test_a_step_whose_first_channel_is_zero_has_a_position():
    """The published code treats it as padding without a position: a source's order would not matter then."""
    transformer = build(MulT, **SMALL).cross["audio_text"]
    generator = torch.Generator().manual_seed(1)
    target, source = (torch.randn(1, t, 6, generator=generator, dtype=torch.float64) for t in (3, 5))
    source[:, :, 0] = 0
    with torch.no_grad():
        straight, turned = (
            transformer(Sequence(target, torch.tensor([3])), Sequence(frames, torch.tensor([5]))).frames
            for frames in (source, source.flip(1))
        )
    assert (straight - turned).abs().min() > 1e-7


def test_sizes():
    """Parameters at MMSA's widths for MOSI, text 768, audio 5 and vision 20.

    Layers of d = 40 have 12 d^2 + 13 d parameters: 6 * 4 crossmodal, 3 * 4 of width 2 d, norms behind each
    transformer, the head's two maps of 6 d. With MMSA's d = 50 and kernels of 5 there are 2.57 M, the number
    that comparisons print; the paper's Table 5 has d = 40 and kernels 1, 3, 3.
    """
    widths = {"text": 768, "audio": 5, "vision": 20}

    def count(**fields: Any) -> int:
        return sum(p.numel() for p in MulT(MulT.Settings(**fields), widths).parameters())

    kernels = {"text_kernel": 5, "audio_kernel": 5, "vision_kernel": 5}
    assert count(width=50, heads=10, layers=4, **kernels) == 2_571_551
    assert count(width=40, layers=4, text_kernel=1, audio_kernel=3, vision_kernel=3) == 1_557_961
