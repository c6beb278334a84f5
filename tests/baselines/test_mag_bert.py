"""MAG-BERT against its oracle, and where the field's toolkit is known to be wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from baselines.checks import check_gradients, check_oracle, padded
from mmiln.baselines.inputs import Inputs, Sequence
from mmiln.baselines.mag_bert import Gate, MagBERT
from mmiln.errors import ConfigError
from reference.baselines import mag_bert as oracle
from reference.configs import TINY_BERT

transformers = pytest.importorskip("transformers", reason="BertModel is the encoder")

# By path: the module reference.baselines would hide a package of that name.

WIDTHS = {"text": 8, "audio": 5, "vision": 3}
LENGTHS = (4, 1, 7, 3, 5)


def bert(*, pooler: bool = True, attention: str = "eager", **changes: Any) -> torch.nn.Module:
    config = transformers.BertConfig(**(TINY_BERT | changes), initializer_range=0.4)
    config._attn_implementation = attention
    return transformers.BertModel(config, add_pooling_layer=pooler)


def build(*, pooler: bool = True, attention: str = "eager", **fields: Any) -> MagBERT:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        encoder = bert(pooler=pooler, attention=attention)
        network = MagBERT(MagBERT.Settings(**fields), WIDTHS, encoder).double().eval()
        torch.nn.init.normal_(network.gate.bias, std=0.3)
    return network


def inputs(size: int = 5) -> Inputs:
    """``text`` repeats the tokens, so that ``utterances`` has them; the network reads ``tokens``."""
    rng = torch.Generator().manual_seed(0)
    long = torch.tensor(LENGTHS[:size])
    total = int(long.sum())
    ids = torch.randint(5, 30, (total,), generator=rng)
    tokens = Sequence.of(torch.stack([ids, torch.randint(0, 2, (total,), generator=rng)], 1), long)
    parts = {}
    for name in ("audio", "vision"):
        packed = torch.randn(total, WIDTHS[name], generator=rng, dtype=torch.float64)
        parts[name] = Sequence.of(packed, long)
    labels = torch.rand(size, generator=rng, dtype=torch.float64) * 6 - 3
    return Inputs(tokens=tokens, text=tokens, **parts, labels=labels, index=torch.arange(size))


@pytest.mark.parametrize("beta", [1.0, 0.05])  # 0.05: every shift is shortened
@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_against_the_oracle(beta, pooler, attention):
    network = build(beta=beta, pooler=pooler, attention=attention)
    for size in (5, 1):
        check_oracle(network, partial(oracle.forward, config=TINY_BERT), inputs(size))


@pytest.mark.parametrize("pooler", [True, False])
def test_losses_reach_every_parameter(pooler):
    check_gradients(build(pooler=pooler), inputs())


def test_without_a_bert_it_is_refused():
    with pytest.raises(ConfigError, match="needs text_encoder="):
        MagBERT(MagBERT.Settings(), WIDTHS)


def test_a_shift_is_no_longer_than_beta_times_the_embedding():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        z, audio, vision = (torch.randn(2, 3, w) for w in (8, 5, 3))
        gate = Gate(8, 5, 3, beta=0.25, dropout=0.0).requires_grad_(False)
    gate.norm = torch.nn.Identity()
    long = gate(z, 1e4 * audio, 1e4 * vision) - z
    torch.testing.assert_close(long.norm(dim=2), 0.25 * z.norm(dim=2))
    for layer in (gate.shift_audio, gate.shift_vision):
        layer.weight *= 1e-3
    short = gate(z, audio, vision) - z
    assert bool((short.norm(dim=2) < 0.1 * z.norm(dim=2)).all())
    assert float(short.abs().max()) > 0


def test_a_shift_of_length_zero_has_a_gradient():
    """Gates that are shut and a bias of zero, as before the first step."""
    gate = Gate(8, 5, 3, beta=1.0, dropout=0.0)
    torch.nn.init.constant_(gate.gate_audio.bias, -1e3)
    torch.nn.init.constant_(gate.gate_vision.bias, -1e3)
    z = torch.randn(1, 2, 8, requires_grad=True)
    out = gate(z, torch.randn(1, 2, 5), torch.randn(1, 2, 3))
    torch.testing.assert_close(out, gate.norm(z))
    (out * torch.randn(8)).sum().backward()
    assert bool(z.grad.isfinite().all())
    assert bool(gate.bias.grad.isfinite().all())
    assert bool((gate.bias.grad != 0).any())


# An early MMSA, which swaps audio and vision between the model and its gate


@pytest.mark.parametrize("name", ["audio", "vision"])
def test_each_modality_moves_the_score_through_its_own_weights(name):
    network, x = build(), inputs()
    with torch.no_grad():
        getattr(network.gate, f"shift_{name}").weight.zero_()
        score = network(x)["M"]
        moved = {}
        for changed in ("audio", "vision"):
            frames = getattr(x, changed)
            moved[changed] = (
                network(replace(x, **{changed: frames.map(2 * frames.frames)}))["M"] - score
            ).abs()
    assert moved.pop(name).max() == 0
    assert moved.popitem()[1].min() > 1e-6


def test_padding_changes_nothing():
    """Tokens after the end may be anything: attention does not see them."""
    network, x = build(), inputs()
    more = padded(x)
    ids = more.tokens.frames.masked_fill(~more.tokens.mask[:, :, None], 1)
    with torch.no_grad():
        found = network(replace(more, tokens=Sequence(ids, more.tokens.lengths)))
        torch.testing.assert_close(found, network(x), rtol=0, atol=1e-12)


def test_a_gate_that_does_nothing_leaves_bert_as_it_is():
    """If the shift is zero and the norm changes nothing, the result is that of transformers' own forward."""
    network, x = build(), inputs()
    with torch.no_grad():
        network.gate.bias.zero_()
        for layer in (network.gate.shift_audio, network.gate.shift_vision):
            layer.weight.zero_()
        network.gate.norm = torch.nn.Identity()
        ids, segments = x.tokens.frames.unbind(2)
        plain = network.bert(input_ids=ids, attention_mask=x.tokens.mask.long(), token_type_ids=segments)
        torch.testing.assert_close(network(x)["M"], network.head(plain.pooler_output)[:, 0])


def test_what_the_gate_adds_to_a_bert():
    """Parameters at MMSA's widths for MOSI (text 768, audio 5, vision 20), in a BERT without layers.

    Gates 768 (768 + 5) + 768 and 768 (768 + 20) + 768, maps 768 * 5 and 768 * 20, b_H 768, norm 2 * 768, head
    769: 1.22 M beside the 109.5 M of bert-base-uncased. The published code has 768 more (a bias in each map).
    """
    encoder = bert(hidden_size=768, num_hidden_layers=0, num_attention_heads=12)
    network = MagBERT(MagBERT.Settings(), {"text": 768, "audio": 5, "vision": 20}, encoder)
    own = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("bert."))
    assert own == 768 * (773 + 1) + 768 * (788 + 1) + 768 * 25 + 768 + 2 * 768 + 769 == 1_222_657
