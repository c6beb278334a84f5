"""LMF."""

import pytest
import torch
from torch import nn

from baselines.checks import ALL_OR_TWO, build, check_gradients, check_oracle, inputs
from mmiln.baselines.blocks import BatchNorm
from mmiln.baselines.lmf import LMF
from reference.baselines import lmf as oracle

SIZES = {"rank": 3, "text_hidden": 4, "text_out": 5, "audio_hidden": 6, "vision_hidden": 2}


def network(widths=None, **fields):
    network = build(LMF, widths, **SIZES | fields)
    nn.init.constant_(network.bias, 0.3)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


@pytest.mark.parametrize("widths", ALL_OR_TWO)
@pytest.mark.parametrize("size", [4, 1])
@pytest.mark.parametrize("rank", [3, 1])
def test_oracle(size, rank, widths):
    check_oracle(network(widths, rank=rank), oracle.forward, inputs(widths, size=size))


@pytest.mark.parametrize("widths", ALL_OR_TWO)
def test_gradients(widths):
    check_gradients(network(widths), inputs(widths, size=7))


def test_every_parameter_is_trained():
    """The paper's code and MMSA leave the weights of the ranks and the bias out of the optimiser."""
    quiet = {"decay": 0.0, "text_dropout": 0.0, "audio_dropout": 0.0, "vision_dropout": 0.0}
    net, x = network(**quiet, vision_hidden=6).train(), inputs(size=7)
    grouped = [id(p) for group in net.groups() for p in group["params"]]
    assert sorted(grouped) == sorted(map(id, net.parameters()))
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    optimizer = torch.optim.Adam(group for group in net.groups() if group["params"])
    net.losses(net(x), x)["total"].backward()
    optimizer.step()
    assert [n for n, p in net.named_parameters() if torch.equal(p, before[n])] == []


def test_factors_have_a_rate_of_their_own():
    net = network(lr=0.5, lr_factors=0.25)
    rates = {id(p): group["lr"] for group in net.groups() for p in group["params"]}
    slow = {name for name, p in net.named_parameters() if rates[id(p)] == 0.25}
    assert slow == {"factors.text", "factors.vision", "factors.audio"}
    assert rates[id(net.weights)] == rates[id(net.bias)] == 0.5


@pytest.mark.parametrize("rank", [1, 64])
def test_factors_are_drawn_as_maps_of_their_own(rank):
    """MMSA's factors become smaller as the rank grows."""
    sizes = {"text_out": 300, "audio_hidden": 300, "vision_hidden": 300}
    drawn = [build(LMF, rank=rank, **sizes).factors[m] for m in ("text", "audio", "vision")]
    for factor in drawn:
        assert float(factor.detach().std()) == pytest.approx(
            (2 / 302) ** 0.5, rel=0.15 if rank == 1 else 0.02
        )
    small = build(LMF, rank=64, text_out=2).factors["text"]
    assert float(small.detach().std()) == pytest.approx((2 / 4) ** 0.5, rel=0.2)


def test_every_parameter_is_known():
    """Factors that are not parameters would be neither saved nor moved to a device."""
    net = network()
    names = {"factors.text", "factors.vision", "factors.audio", "weights", "bias"}
    assert names <= set(dict(net.named_parameters()))
    assert names <= set(net.state_dict())


def test_text_dropout_drops():
    """In MMSA the dropout of text is set to 0."""
    net, x = network(text_dropout=0.5, audio_dropout=0.0, vision_dropout=0.0).train(), inputs()
    torch.manual_seed(0)
    scores = torch.stack([net(x)["M"] for _ in range(8)])
    assert (scores - scores[0]).abs().max() > 1e-6


def test_parameter_count():
    # MMSA's MOSI setting (the defaults) and widths (768, 5, 20): about 0.5 M.
    net = LMF(LMF.Settings(), {"text": 768, "audio": 5, "vision": 20})
    total = sum(parameter.numel() for parameter in net.parameters())
    text = 4 * 128 * (768 + 128 + 2) + 64 * 129
    others = sum(2 * w + h * (w + 1) + 2 * h * (h + 1) for w, h in ((5, 16), (20, 128)))
    assert total == text + others + 3 * (65 + 17 + 129) + 3 + 1
    assert total == pytest.approx(0.5e6, rel=0.02)
