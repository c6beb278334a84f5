"""Late fusion of LSTMs."""

from dataclasses import replace

import pytest
import torch

from baselines.checks import ALL_OR_TWO, WIDTHS, build, check_gradients, check_oracle, inputs
from mmiln.baselines.inputs import Sequence
from mmiln.baselines.late_lstm import LateFusionLSTM
from reference.baselines import late_lstm as oracle

SIZES = {"text_hidden": 4, "audio_hidden": 5, "vision_hidden": 2, "post": 7}


@pytest.mark.parametrize("size", [4, 1])
@pytest.mark.parametrize(
    "widths", [*ALL_OR_TWO, WIDTHS | {"audio": 0, "vision": 0}, {"text": 0, "audio": 5, "vision": 0}]
)
def test_oracle(size, widths):
    check_oracle(build(LateFusionLSTM, widths, **SIZES), oracle.forward, inputs(widths, size=size))


def test_gradients():
    check_gradients(build(LateFusionLSTM, **SIZES), inputs(size=7))


@pytest.mark.parametrize("name", WIDTHS)
def test_order_of_frames_counts(name):
    """MMSA's LF-DNN sees the mean of audio and of vision."""
    net, x = build(LateFusionLSTM, **SIZES), inputs()
    frames: Sequence = getattr(x, name)
    turned = frames.frames.clone()
    for b, length in enumerate(frames.lengths.tolist()):
        turned[b, :length] = frames.frames[b, :length].flip(0)
    changed = (net(replace(x, **{name: Sequence(turned, frames.lengths)}))["M"] - net(x)["M"]).abs()
    assert changed[frames.lengths > 1].min() > 1e-6
    assert changed[frames.lengths == 1].max() == 0


def test_utterances_do_not_see_each_other_in_training():
    net, x = build(LateFusionLSTM, **SIZES, dropout=0.0).train(), inputs()
    alone = torch.cat([net(x.select(torch.tensor([b])))["M"] for b in range(4)])
    torch.testing.assert_close(alone, net(x)["M"], rtol=0, atol=1e-12)


def test_parameter_count():
    # MMSA's MOSI widths; nothing is published.
    net = LateFusionLSTM(LateFusionLSTM.Settings(), {"text": 768, "audio": 5, "vision": 20})
    lstms = sum(4 * h * (w + h + 2) for w, h in ((768, 128), (5, 32), (20, 32)))
    assert sum(p.numel() for p in net.parameters()) == lstms + 64 * 193 + 65
