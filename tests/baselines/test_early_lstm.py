"""Early fusion, one LSTM."""

from dataclasses import replace

import pytest
import torch

from baselines.checks import WIDTHS, build, check_gradients, check_oracle, inputs
from mmiln.baselines.early_lstm import EarlyFusionLSTM
from mmiln.baselines.inputs import Sequence
from reference.baselines import early_lstm as oracle


@pytest.mark.parametrize("size", [4, 1])
@pytest.mark.parametrize("widths", [WIDTHS, WIDTHS | {"audio": 0}])
def test_oracle(size, widths):
    x = inputs(widths, aligned=True, size=size)
    check_oracle(build(EarlyFusionLSTM, widths, hidden=5), oracle.forward, x)


def test_gradients():
    check_gradients(build(EarlyFusionLSTM, hidden=5), inputs(aligned=True, size=7))


def test_words_are_aligned():
    """Shifting audio by one word changes the score."""
    assert EarlyFusionLSTM.ALIGNED
    net, x = build(EarlyFusionLSTM, hidden=5), inputs(aligned=True)
    late = replace(x, audio=x.audio.map(x.audio.frames.roll(1, 1)))
    assert (net(late)["M"] - net(x)["M"]).abs()[x.text.lengths > 1].min() > 1e-6


def test_utterances_do_not_see_each_other_in_training():
    """MMSA normalises positions, padding among them, over the batch."""
    net, x = build(EarlyFusionLSTM, hidden=5, dropout=0.0).train(), inputs(aligned=True)
    alone = torch.cat([net(x.select(torch.tensor([b])))["M"] for b in range(4)])
    torch.testing.assert_close(alone, net(x)["M"], rtol=0, atol=1e-12)


def test_the_state_is_that_of_the_true_end():
    """MMSA takes the state after the padding."""
    net, x = build(EarlyFusionLSTM, hidden=5), inputs(aligned=True)
    behind = x.audio.frames.masked_fill(~x.audio.mask[:, :, None], 7.0)
    assert torch.equal(net(replace(x, audio=Sequence(behind, x.audio.lengths)))["M"], net(x)["M"])
    frames = x.audio.frames.clone()
    frames[torch.arange(4), x.audio.lengths - 1] += 1.0  # the last true frame
    changed = net(replace(x, audio=Sequence(frames, x.audio.lengths)))["M"] - net(x)["M"]
    assert changed.abs().min() > 1e-6


def test_parameter_count():
    # The aligned widths of the papers, 300 + 74 + 47; nothing is published.
    net = EarlyFusionLSTM(EarlyFusionLSTM.Settings(), {"text": 300, "audio": 74, "vision": 47})
    lstm = 4 * 128 * (421 + 128 + 2)
    assert sum(p.numel() for p in net.parameters()) == lstm + 128 * 129 + 129
