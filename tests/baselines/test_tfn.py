"""TFN."""

from dataclasses import replace

import pytest
import torch

from baselines.checks import ALL_OR_TWO, build, check_gradients, check_oracle, inputs
from mmiln.baselines.blocks import BatchNorm
from mmiln.baselines.inputs import Sequence
from mmiln.baselines.tfn import TFN
from reference.baselines import tfn as oracle

SIZES = {"text_hidden": 4, "text_out": 3, "audio_hidden": 5, "vision_hidden": 2, "post": 7}


def network(widths=None, **fields):
    """A network with statistics as after training, and no inactive unit in the last layer."""
    network = build(TFN, widths, **SIZES | fields)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return network


@pytest.mark.parametrize("widths", ALL_OR_TWO)
@pytest.mark.parametrize("size", [4, 1])
def test_oracle(size, widths):
    check_oracle(network(widths), oracle.forward, inputs(widths, size=size))


@pytest.mark.parametrize("widths", ALL_OR_TWO)
def test_gradients(widths):
    check_gradients(network(widths), inputs(widths, size=7))


def test_means_are_of_true_frames():
    """MMSA divides by the padded length."""
    net, x = network(), inputs()
    still = replace(x, audio=Sequence(x.audio.mean[:, None], torch.ones(4, dtype=torch.long)))
    torch.testing.assert_close(net(still)["M"], net(x)["M"], rtol=0, atol=1e-12)
    shorter = x.audio.frames.sum(1) / x.audio.frames.shape[1]
    wrong = replace(x, audio=Sequence(shorter[:, None], torch.ones(4, dtype=torch.long)))
    assert (net(wrong)["M"] - net(x)["M"]).abs()[x.audio.lengths < 9].min() > 1e-9


def test_a_batch_of_one_is_trained_by_running_statistics():
    """MMSA squeezes it away; batch normalisation alone refuses it."""
    net, x = (
        network(text_dropout=0.0, audio_dropout=0.0, vision_dropout=0.0, post_dropout=0.0),
        inputs(size=1),
    )
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    scored = net(x)["M"]
    torch.testing.assert_close(net.train()(x)["M"], scored)
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())
    net(inputs(size=4))
    assert not torch.equal(net.audio.norm.running_mean, before["audio.norm.running_mean"])


@pytest.mark.parametrize("part", ["text_dropout", "audio_dropout", "vision_dropout", "post_dropout"])
def test_every_dropout_drops(part):
    """In MMSA the dropout of text is set to 0."""
    none = dict.fromkeys(("text_dropout", "audio_dropout", "vision_dropout", "post_dropout"), 0.0)
    net, x = network(**none | {part: 0.5}).train(), inputs()
    torch.manual_seed(0)
    scores = torch.stack([net(x)["M"] for _ in range(8)])
    assert (scores - scores[0]).abs().max() > 1e-6
    still = network(**none).train()
    torch.testing.assert_close(still(x)["M"], still(x)["M"])


def test_scores_are_between_the_ends():
    net, x = network(), inputs()
    for sign, end in ((1e3, 3.0), (-1e3, -3.0)):
        torch.nn.init.constant_(net.out.bias, sign)
        torch.testing.assert_close(net(x)["M"], torch.full((4,), end, dtype=torch.float64))


def test_unimodal_products_are_there():
    """Without features of audio and vision the text's own products remain, because of the appended ones."""
    net, x = network(), inputs()
    for part in (net.audio, net.vision):
        torch.nn.init.zeros_(part.layers[2].weight)
        torch.nn.init.constant_(part.layers[2].bias, -1.0)  # ReLU gives 0
    other = inputs(seed=1)
    assert torch.equal(net(replace(x, audio=other.audio, vision=other.vision))["M"], net(x)["M"])
    assert (net(replace(x, text=other.text))["M"] - net(x)["M"]).abs().max() > 1e-6


def count(**fields):
    with torch.device("meta"):
        net = TFN(TFN.Settings(**fields), {"text": 768, "audio": 5, "vision": 20})
    return sum(parameter.numel() for parameter in net.parameters())


def test_parameter_counts():
    # MMSA's MOSI setting (hidden 128, 32, 128; text_out 32; post 64) and widths (768, 5, 20): 9.50 M.
    mmsa = count(text_hidden=128, text_out=32, audio_hidden=32, vision_hidden=128, post=64)
    assert mmsa == pytest.approx(9.5e6, rel=0.003)
    # The paper's sizes (129 x 33 x 33 products, 128 after them) at the same widths.
    fused = 129 * 33 * 33 * 128 + 128 + 128 * 129 + 129
    text = 4 * 128 * (768 + 128 + 2) + 128 * 129
    others = sum(2 * w + 32 * (w + 1) + 2 * 32 * 33 for w in (5, 20))
    assert count() == fused + text + others
