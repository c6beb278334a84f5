"""AMML against its oracle. The field's toolkit (MMSA) does not have it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from baselines.checks import WIDTHS, build, check_gradients, check_oracle, inputs, padded, utterances
from mmiln.baselines.amml import AMML
from mmiln.baselines.inputs import Sequence
from reference.baselines import amml as oracle

# By path: the module reference.baselines would hide a package of that name.

SMALL: dict[str, Any] = {
    "text_hidden": 5, "audio_hidden": 4, "vision_hidden": 3, "width": 5, "post": 6, "dropout": 0.0,
    "inner_lr": 0.3,
}  # fmt: skip


class Bert(nn.Module):
    """An embedding table in place of a BERT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(11, width)

    def forward(self, input_ids, attention_mask, token_type_ids):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


@pytest.mark.parametrize("size", [4, 1])
def test_against_the_oracle(size):
    check_oracle(build(AMML, **SMALL), oracle.forward, inputs(size=size))


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("steps", [1, 2])
def test_losses_reach_every_parameter(second_order, steps):
    check_gradients(build(AMML, **SMALL, second_order=second_order, steps=steps), inputs(size=7))


@pytest.mark.parametrize("second_order", [False, True])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("size", [5, 1])
def test_losses_and_gradients_against_the_oracle(size, steps, second_order):
    """Adaptation written out; one utterance alone is support and query."""
    network, x = build(AMML, **SMALL, second_order=second_order, steps=steps), inputs(size=size)
    pairs = list(zip(utterances(x), x.labels, strict=True))
    support, query = (pairs[:2], pairs[2:]) if size > 1 else (pairs, pairs)
    parameters = dict(network.named_parameters())
    expected = oracle.losses(parameters, network.settings, support, query)
    losses = network.losses(network(x), x)
    assert tuple(losses) == AMML.LOSSES
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=0, atol=1e-10)
    slopes, ours = (
        torch.autograd.grad(each["total"], list(parameters.values())) for each in (expected, losses)
    )
    for name, a, b in zip(parameters, slopes, ours, strict=True):
        torch.testing.assert_close(b, a, rtol=0, atol=1e-9, msg=name)


def test_the_order_matters():
    x = inputs(size=5)
    slopes = []
    for second in (False, True):
        network = build(AMML, **SMALL, second_order=second)
        task = network.losses(network(x), x)["task"]
        heads = [network.unimodal[name].head.weight for name in "TAV"]
        slopes.append(torch.autograd.grad(task, heads, allow_unused=True))
    assert all(slope is None or not bool(slope.any()) for slope in slopes[0])
    assert all(bool(slope.any()) for slope in slopes[1])


def test_rates():
    """Each modality has its own rate; at rates near 0 the query is scored without adaptation."""
    network, x = build(AMML, **SMALL), inputs(size=4)
    plain = (network(x)["M"][2:] - x.labels[2:]).abs().mean()
    tasks = []
    for i in range(3):
        nn.init.constant_(network.rates, -60.0)
        torch.testing.assert_close(network.losses(network(x), x)["task"], plain)
        network.rates.data[i] = 0.0
        tasks.append(network.losses(network(x), x)["task"].item())
    assert len({plain.item(), *tasks}) == 4


def test_an_inner_step_lowers_the_loss_of_its_support():
    network, x = build(AMML, **(SMALL | {"inner_lr": 0.01})), inputs(size=4)
    for name, m in oracle.NAMES.items():
        given = getattr(x, m)
        adapted, before = network._adapt(network.unimodal[name], network.rates[0].exp(), given, x)
        after = torch.func.functional_call(network.unimodal[name], adapted, (given,))[1]
        assert (after - x.labels).abs().mean().item() < before.item()


def test_losses_change_no_weight_and_work_without_gradients():
    network, x = build(AMML, **SMALL), inputs(size=4)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    losses = network.losses(network(x), x)
    with torch.no_grad():
        again = network.losses(network(x), x)
    torch.testing.assert_close(again, {name: loss.detach() for name, loss in losses.items()})
    assert all(bool((tensor == before[name]).all()) for name, tensor in network.state_dict().items())
    more = padded(x)
    torch.testing.assert_close(network.losses(network(more), more), losses)


@pytest.mark.parametrize("size", [3, 1])
def test_a_bert_is_trained_and_not_adapted(size):
    torch.manual_seed(0)
    network = AMML(AMML.Settings(**SMALL), WIDTHS, Bert(WIDTHS["text"])).double()
    x = inputs(size=size)
    tokens = Sequence.of(
        torch.tensor([[2, 0], [5, 0], [3, 0], [4, 0], [3, 0], [6, 0]]), torch.tensor([3, 2, 1])
    )
    x = replace(replace(x, tokens=tokens).select(torch.arange(size)), text=None)
    outputs = network(x)
    torch.testing.assert_close(outputs["cls"], network.bert.table(torch.tensor([2, 4, 6][:size])))
    losses = network.losses(outputs, x)
    losses["total"].backward()
    assert bool(network.bert.table.weight.grad[[2, 4, 6][:size]].any(1).all())
    assert not bool(network.bert.table.weight.grad[[5, 3]].any())
    assert not hasattr(network.unimodal["T"].lstm, "rnn")


def test_size():
    """At the widths of MMSA's unaligned MOSI: 768, 5, 20. No size is published; counted by hand."""
    network = AMML(AMML.Settings(), {"text": 768, "audio": 5, "vision": 20})
    lstms = 4 * (64 * (768 + 64 + 2) + 32 * (5 + 32 + 2) + 32 * (20 + 32 + 2))
    maps = 65 * 64 + 2 * 33 * 64 + 3 * 65
    assert sum(p.numel() for p in network.parameters()) == lstms + maps + 193 * 128 + 129 * 128 + 129 + 3
