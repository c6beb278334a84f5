"""MMIM against its oracle, and where its public code or the field's toolkit (MMSA) is known to be wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from baselines.checks import ALL_OR_TWO, WIDTHS, build, check_gradients, check_oracle, inputs
from mmiln.baselines.engine import Engine
from mmiln.baselines.inputs import Inputs, Sequence
from mmiln.baselines.mmim import MMIM
from mmiln.baselines.mutual_information import Gaussian, entropy, info_nce
from reference.baselines import mmim as oracle

# By path: the module reference.baselines would hide a package of that name.

SMALL: dict[str, Any] = {
    "text_hidden": 5, "audio_hidden": 4, "vision_hidden": 3, "fusion": 6, "memory": 5, "dropout": 0.0
}  # fmt: skip
EPS = 1e-3


WITH_TEXT = [widths for widths in ALL_OR_TWO if widths["text"]]


@pytest.mark.parametrize("widths", WITH_TEXT)
@pytest.mark.parametrize("size", [4, 1])
def test_against_the_oracle(size, widths):
    check_oracle(build(MMIM, widths, **SMALL), oracle.forward, inputs(widths, size=size))


@pytest.mark.parametrize("widths", WITH_TEXT)
def test_losses_reach_every_parameter(widths):
    wider = SMALL | {"audio_hidden": 8}  # with 4, each unit behind q's ReLU happens to be 0
    check_gradients(build(MMIM, widths, **wider), inputs(widths, size=7))


@pytest.mark.parametrize("widths", WITH_TEXT)
@pytest.mark.parametrize("size", [7, 1])
def test_losses_against_the_oracle(size, widths):
    network, x = build(MMIM, widths, **SMALL), inputs(widths, size=size)
    outputs = network(x)
    expected = oracle.losses(dict(network.named_parameters()), network.settings, outputs, x.labels)
    losses = network.losses(outputs, x)
    assert tuple(losses) == MMIM.LOSSES
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=0, atol=1e-10)


# What the toolkit does otherwise


def test_the_estimators_are_trained_by_the_likelihood_alone():
    """Every parameter is trained; in the public code a projection within the entropy never is."""
    network, x = build(MMIM, **SMALL, clip=0), inputs(size=7)
    outputs = network(x)
    losses = network.losses(outputs, x)
    gradients = Engine(network, "cpu", torch.float64)._gradients(losses)
    losses = network.losses(network(x), x)
    for name, parameter in network.named_parameters():
        of_q = name.startswith("q.")
        loss = losses["estimators" if of_q else "total"]
        (alone,) = torch.autograd.grad(loss, parameter, retain_graph=True)
        assert bool((alone != 0).any()), name
        torch.testing.assert_close(gradients[name], alone)


def test_every_parameter_is_in_one_group():
    network = build(MMIM, **SMALL, lr_estimators=0.25)
    grouped = [parameter for group in network.groups() for parameter in group["params"]]
    assert sorted(map(id, grouped)) == sorted(map(id, network.parameters()))
    for group in network.groups():
        of_q = {id(parameter) for parameter in network.q.parameters()}
        assert all((id(p) in of_q) == (group["lr"] == 0.25) for p in group["params"])


def test_a_wide_density_is_less_likely():
    """The public code omits log sigma^2, so that a wider density is always better."""
    q = Gaussian(2, 3, EPS).double()
    values = []
    for log in (0.0, 4.0, 8.0):
        nn.init.zeros_(q.log_variance[-1].weight)
        nn.init.constant_(q.log_variance[-1].bias, log)
        values.append(q(torch.ones(5, 2).double(), torch.zeros(5, 3).double()).item())
    assert values[0] > values[1] > values[2]


@pytest.mark.parametrize(
    "labels", [[], [1.0], [-1.0, 2.0], [0.0, 0.0], [1.0, 1.0, 1.0]], ids=lambda x: str(len(x))
)
def test_the_entropy_of_few_utterances_is_finite(labels):
    """In the public code it is NaN for a class without members and minus infinity for one with too few."""
    h = torch.randn(len(labels), 6, dtype=torch.float64, requires_grad=True)
    value = entropy(h, torch.tensor(labels, dtype=torch.float64), EPS)
    value.backward()
    assert bool(value.isfinite())
    assert bool(h.grad.isfinite().all())
    assert value.item() >= 6 / 2 * math.log(EPS) - 1e-9


def test_the_entropy_is_that_of_two_gaussians():
    torch.manual_seed(0)
    factor = torch.randn(3, 3, dtype=torch.float64)
    h = torch.randn(20000, 3, dtype=torch.float64) @ factor.T
    labels = torch.ones(20000).where(torch.arange(20000) % 2 == 0, -1.0)
    h = h + 5 * labels[:, None]  # distant means do not affect it
    expected = torch.distributions.MultivariateNormal(torch.zeros(3).double(), factor @ factor.T).entropy()
    constant = 3 / 2 * (1 + math.log(2 * math.pi))
    assert float(entropy(h, labels, 0.0)) == pytest.approx(float(expected) - constant, abs=0.03)


def test_vectors_that_collapse_gain_nothing():
    """The bound is zero for a constant, however narrow q becomes."""
    q = Gaussian(2, 6, EPS).double()
    for layer in (q.mean[-1], q.log_variance[-1]):
        nn.init.zeros_(layer.weight)
        nn.init.constant_(layer.bias, 0.0 if layer is q.mean[-1] else -50.0)
    h, labels = torch.zeros(8, 6).double(), torch.tensor([1.0, -1] * 4)
    bound = q(torch.ones(8, 2).double(), h) + entropy(h, labels, EPS)
    assert bound.item() == pytest.approx(0, abs=1e-9)


def test_what_z_predicts_chooses_among_the_vectors_of_the_batch():
    """In the public code a vector chooses among predictions."""
    h = torch.tensor([[1.0, 0], [0, 1]])
    guess = torch.tensor([[1.0, 0], [1, 0]])
    own, other = math.log(math.e / (math.e + 1)), math.log(1 / (math.e + 1))
    assert float(info_nce(h, guess)) == pytest.approx(-(own + other) / 2, abs=1e-6)
    assert float(info_nce(h, 7 * guess)) == pytest.approx(-(own + other) / 2, abs=1e-6)  # a cosine
    assert float(info_nce(guess, h)) == pytest.approx(math.log(2), abs=1e-6)  # the converse differs


def test_memory():
    """The entropy includes the remembered utterances; a new run begins with none."""
    network, x = build(MMIM, **SMALL), inputs(size=4)
    network.begin_training(4)
    first = network(x)
    alone = network.losses(first, x)
    network.after_step(first, x)
    for name in ("labels", "audio", "vision"):
        assert not getattr(network, f"memory_{name}").requires_grad
    torch.testing.assert_close(network.memory_labels, torch.cat([torch.zeros(1).double(), x.labels]))
    torch.testing.assert_close(network.memory_audio[1:], first["h_audio"].detach())
    y = replace(inputs(size=4, seed=1), labels=torch.tensor([1.0, 2, -3, -1]).double())
    second = network(y)
    expected = -sum(
        oracle.entropy(torch.cat([first[f"h_{m}"], second[f"h_{m}"]]), torch.cat([x.labels, y.labels]), EPS)
        for m in ("audio", "vision")
    )
    losses = network.losses(second, y)
    torch.testing.assert_close(losses["ba"] - losses["estimators"], expected, rtol=0, atol=1e-10)
    network.after_step(second, y)
    torch.testing.assert_close(network.memory_labels, torch.cat([x.labels[-1:], y.labels]))
    assert not any(name.startswith("memory") for name in network.state_dict())
    network.begin_training(4)
    torch.testing.assert_close(network.losses(network(x), x), alone)


def test_directions():
    """The toolkit's LSTMs have two; the paper's one."""
    assert not any("reverse" in name for name in MMIM(MMIM.Settings(), WIDTHS).state_dict())


def test_training_on_few_utterances_stays_finite():
    """Batches of one utterance and of one class, in float32."""
    x = inputs(size=4)
    engine = Engine(MMIM(MMIM.Settings(lr=0.05, lr_estimators=0.05), WIDTHS), "cpu", torch.float32)
    engine.begin_training(4, "train")
    for step in range(60):
        rows = torch.tensor([step % 4] if step % 2 else [0, 0, 0])
        assert bool(engine.train_step(single(x.select(rows))).isfinite().all())


def single(x: Inputs) -> Inputs:
    """In float32."""
    frames = {m: Sequence(s.frames.float(), s.lengths) for m in WIDTHS if (s := getattr(x, m)) is not None}
    return replace(x, **frames, labels=x.labels.float())


class Bert(nn.Module):
    """An embedding table in place of a BERT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(11, width)

    def forward(self, input_ids, attention_mask, token_type_ids):
        return SimpleNamespace(last_hidden_state=self.table(input_ids))


def test_the_sentence_vector_of_a_bert_is_cls():
    torch.manual_seed(0)
    network = MMIM(MMIM.Settings(**SMALL), WIDTHS, Bert(7)).double().eval()
    x = inputs(size=2)
    tokens = Sequence.of(torch.tensor([[2, 0], [5, 0], [3, 0], [4, 0], [3, 0]]), torch.tensor([3, 2]))
    outputs = network(replace(x, text=None, tokens=tokens))
    torch.testing.assert_close(outputs["h_text"], network.bert.table(torch.tensor([2, 4])))
    bert, others, _ = network.groups()
    assert (len(bert["params"]), bert["lr"], others["lr"]) == (1, 5e-5, 1e-3)


def test_size():
    """At the widths of MMSA's unaligned MOSI: 768, 5, 20. No size is published; counted by hand."""
    network = MMIM(MMIM.Settings(), {"text": 768, "audio": 5, "vision": 20}, Bert(768))
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert sizes["audio"] == 4 * 16 * (5 + 16 + 2)
    assert sizes["vision"] == 4 * 16 * (20 + 16 + 2)
    assert sizes["q"] == 2 * 2 * (16 * 769 + 16 * 17)
    assert sizes["cpc"] == (768 + 16 + 16) * 129
    assert sizes["fuse1"] + sizes["fuse2"] + sizes["score"] == 128 * 801 + 128 * 129 + 129
