"""Text alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from baselines.checks import WIDTHS, build, check_gradients, check_oracle, inputs
from mmiln.baselines.inputs import Inputs, Sequence
from mmiln.baselines.text_only import TextOnly
from reference.baselines import text_only as oracle

ALONE = {"text": 7, "audio": 0, "vision": 0}


class Encoder(nn.Module):
    """Stands in for a BERT: an embedding, mixed over true tokens."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 7)

    def forward(self, input_ids, attention_mask, token_type_ids):
        hidden = self.embedding(input_ids) * attention_mask[:, :, None]
        mixed = hidden + hidden.sum(1, keepdim=True)
        return SimpleNamespace(last_hidden_state=mixed)


def with_encoder():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return TextOnly(TextOnly.Settings(hidden=5), ALONE, Encoder()).double().eval()


def tokens(more=0):
    lengths = torch.tensor([3, 1, 5])
    ids = torch.tensor([[1, 4, 2, 0, 0], [1, 0, 0, 0, 0], [1, 5, 6, 7, 2]])
    frames = torch.stack([ids, torch.zeros_like(ids)], 2)
    return Inputs(
        tokens=Sequence(nn.functional.pad(frames, (0, 0, 0, more)), lengths),
        labels=torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64),
    )


@pytest.mark.parametrize("size", [4, 1])
@pytest.mark.parametrize("widths", [WIDTHS, ALONE])
def test_oracle(size, widths):
    check_oracle(build(TextOnly, widths, hidden=5), oracle.forward, inputs(widths, size=size))


def test_gradients():
    check_gradients(build(TextOnly, hidden=5), inputs(size=7))
    check_gradients(with_encoder(), tokens())


def test_audio_and_vision_are_not_read():
    net, x = build(TextOnly, hidden=5), inputs()
    nonsense = {
        m: Sequence(torch.full_like(s.frames, torch.nan), s.lengths)
        for m, s in (("audio", x.audio), ("vision", x.vision))
    }
    assert torch.equal(net(replace(x, **nonsense))["M"], net(x)["M"])
    assert torch.equal(net(replace(x, audio=None, vision=None))["M"], net(x)["M"])
    names = set(build(TextOnly, ALONE, hidden=5).state_dict())
    assert names == set(net.state_dict())


def test_the_sentence_vector_of_an_encoder_is_its_first_token():
    net, x = with_encoder(), tokens()
    assert net.lstm is None
    embedded = net.bert.embedding.weight
    for b, ids in enumerate(([1, 4, 2], [1], [1, 5, 6, 7, 2])):
        cls = embedded[1] + sum(embedded[i] for i in ids)
        expected = net.head.weight[0] @ cls + net.head.bias[0]
        for outputs in (net(x), net(tokens(2))):
            torch.testing.assert_close(outputs["M"][b], expected)


def test_parameter_count():
    # MMSA's widths: an LSTM of 128 over 768 features, and a head; over an encoder only the head.
    widths = {"text": 768, "audio": 5, "vision": 20}
    net = TextOnly(TextOnly.Settings(), widths)
    assert sum(p.numel() for p in net.parameters()) == 4 * 128 * (768 + 128 + 2) + 129
    net = TextOnly(TextOnly.Settings(), widths, nn.Identity())
    assert sum(p.numel() for p in net.parameters()) == 769
