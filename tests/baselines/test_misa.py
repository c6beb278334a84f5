"""MISA against its oracle, and where the field's toolkit is known to be wrong."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from baselines.checks import ALL_OR_TWO, build, check_gradients, check_oracle, inputs, padded
from mmiln.baselines.distances import cmd, orthogonality
from mmiln.baselines.inputs import Inputs, Sequence
from mmiln.baselines.misa import MISA
from reference.baselines import misa as oracle

# By path: the module reference.baselines would hide a package of that name.


def small(widths: dict[str, int] | None = None, **fields: Any) -> MISA:
    return build(MISA, widths, **({"width": 6, "rnn_max": 4} | fields))


class TinyBert(nn.Module):
    """Its output at padding is not zero, like that of a real BERT."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 7)

    def forward(self, input_ids: Tensor, **_: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(input_ids) + 1)


def with_bert() -> tuple[MISA, Inputs]:
    torch.manual_seed(1)
    network = MISA(MISA.Settings(width=6), {"text": 7, "audio": 5, "vision": 3}, TinyBert()).double().eval()
    x = inputs({"text": 0, "audio": 5, "vision": 3})
    lengths = torch.tensor([3, 1, 6, 4])
    tokens = Sequence.of(torch.randint(1, 20, (14, 2)), lengths)
    return network, replace(x, tokens=tokens)


@pytest.mark.parametrize("widths", ALL_OR_TWO)
@pytest.mark.parametrize("rnn_max", [4, 300])
@pytest.mark.parametrize("size", [5, 1])
def test_against_the_oracle(size, rnn_max, widths):
    check_oracle(small(widths, rnn_max=rnn_max), oracle.forward, inputs(widths, size=size))


@pytest.mark.parametrize("widths", ALL_OR_TWO)
def test_losses_reach_every_parameter(widths):
    check_gradients(small(widths), inputs(widths, size=7))


@pytest.mark.parametrize("widths", ALL_OR_TWO)
@pytest.mark.parametrize("size", [5, 2])
def test_losses_written_out(size, widths):
    network, x = small(widths, sim=0.7, diff=0.2, recon=1.3), inputs(widths, size=size)
    outputs = network(x)
    losses = network.losses(outputs, x)
    assert tuple(losses) == ("task", "diff", "sim", "recon", "total")
    for name, expected in oracle.losses(outputs, x.labels, network.settings).items():
        torch.testing.assert_close(losses[name], expected, rtol=1e-9, atol=1e-12)


def test_a_batch_of_one_has_finite_losses_and_gradients():
    """The variance of one row is zero, where the square root has no derivative."""
    network, x = small().train(), inputs(size=1)
    losses = network.losses(network(x), x)
    losses["total"].backward()
    assert losses["diff"] == 0
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters())


def test_equal_samples_are_at_no_distance():
    x = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    cmd(x, x.detach()).backward()
    assert bool(x.grad.isfinite().all())
    assert float(orthogonality(torch.ones(4, 3), torch.ones(4, 3))) == 0.0


# The toolkit packs audio and vision with the lengths of text.


@pytest.mark.parametrize(("name", "row"), [("audio", 0), ("vision", 1)])
def test_frames_beyond_the_length_of_text_are_read(name, row):
    network, x = small(), inputs()
    sequence = getattr(x, name)
    last = int(sequence.lengths[row]) - 1
    assert last >= int(x.text.lengths[row])
    frames = sequence.frames.clone()
    frames[row, last] += 1
    changed = (network(replace(x, **{name: Sequence(frames, sequence.lengths)}))["M"] - network(x)["M"]).abs()
    assert changed[row] > 1e-6
    assert changed[torch.arange(4) != row].max() < 1e-12


@pytest.mark.parametrize(("name", "row"), [("audio", 2), ("vision", 0)])
def test_padding_within_the_length_of_text_is_not_read(name, row):
    network, x = small(), inputs()
    sequence = getattr(x, name)
    end = int(sequence.lengths[row])
    assert end < int(x.text.lengths[row])
    frames = sequence.frames.clone()
    frames[row, end:] = 5
    spoilt = replace(x, **{name: Sequence(frames, sequence.lengths)})
    torch.testing.assert_close(network(spoilt)["M"], network(x)["M"], rtol=0, atol=1e-12)


# Its own code takes the mean over padding too.


def test_text_of_a_bert_is_the_mean_of_true_tokens():
    network, x = with_bert()
    assert "text" not in network.rnn
    hidden = network.bert(x.tokens.frames[..., 0]).last_hidden_state
    mean = torch.stack([hidden[b, : int(n)].mean(0) for b, n in enumerate(x.tokens.lengths)])
    with torch.no_grad():
        torch.testing.assert_close(network(x)["u_text"], network.project["text"](mean))
        torch.testing.assert_close(network(padded(x))["M"], network(x)["M"], rtol=0, atol=1e-12)


def test_gradients_reach_a_bert():
    network, x = with_bert()
    network.losses(network(x), x)["total"].backward()
    assert bool((network.bert.table.weight.grad != 0).any())


# Sizes


def test_the_number_of_parameters_is_that_of_the_public_code():
    """At 5 audio, 20 vision features and BERT-base (not counted), by hand from its models.py.

    Without its discriminator (516) and the layer norm of text (3072), which are unused with a BERT. No
    published total was found.
    """
    network = MISA(MISA.Settings(), {"text": 768, "audio": 5, "vision": 20}, nn.Identity())
    recurrent = (480 + 680 + 20) + (6720 + 9920 + 80)
    projections = (768 * 128 + 384) + (20 * 128 + 384) + (80 * 128 + 384)
    linear = 128 * 128 + 128
    fusion = 4 * linear + (128 * 2048 + 2048) + (2048 * 128 + 128) + 4 * 128
    head = (768 * 384 + 384) + (384 + 1)
    assert (
        sum(p.numel() for p in network.parameters()) == recurrent + projections + 7 * linear + fusion + head
    )


def test_recurrent_states_are_as_wide_as_the_papers_features():
    network = MISA(MISA.Settings(), {"text": 300, "audio": 74, "vision": 47})
    assert [network.rnn[m].lstm1.rnn.hidden_size for m in ("text", "audio", "vision")] == [300, 74, 47]


def test_recurrent_weights_begin_orthogonal():
    weight = small().rnn["audio"].lstm2.rnn.weight_hh_l0_reverse
    torch.testing.assert_close(weight.T @ weight, torch.eye(4, dtype=torch.float64), atol=1e-6, rtol=0)
