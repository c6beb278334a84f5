"""The mean of the training labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import mmiln
from baselines.checks import WIDTHS, build, check_gradients, check_oracle, inputs
from mmiln.baselines import Baseline
from mmiln.baselines.inputs import Sequence
from mmiln.baselines.mean import Mean
from reference.baselines import mean as oracle

TEXT = {"text": 7, "audio": 0, "vision": 0}


@pytest.mark.parametrize("size", [4, 1])
@pytest.mark.parametrize("widths", [WIDTHS, TEXT])
def test_oracle(size, widths):
    net = build(Mean, widths)
    nn.init.constant_(net.mean, -0.7)
    check_oracle(net, oracle.forward, inputs(widths, size=size))


def test_gradients():
    check_gradients(build(Mean), inputs())


def test_it_is_one_number():
    assert Mean.NEEDS == ()
    net = Mean(Mean.Settings(), WIDTHS, nn.Linear(2, 2))
    net.begin_training(4)
    assert {name: p.shape for name, p in net.state_dict().items()} == {"mean": torch.Size([])}


def test_nothing_is_read():
    net, x = build(Mean), inputs()
    nothing = {m: Sequence(torch.full_like(s.frames, torch.nan), s.lengths) for m, s in (("audio", x.audio),)}
    assert torch.equal(net(replace(x, **nothing, vision=None))["M"], net(x)["M"])


def test_the_square_is_least_at_the_mean():
    net, x = build(Mean), inputs()
    net.mean.data = x.labels.mean()
    at = net.losses(net(x), x)["total"]
    assert torch.autograd.grad(at, net.mean)[0].abs() < 1e-12
    assert at < net.losses({"M": x.labels.median().expand(4)}, x)["total"]


@pytest.mark.filterwarnings("ignore:corr is NaN")
@pytest.mark.parametrize("lr", [0.0, 5.0])
def test_it_is_the_mean_of_the_training_labels_whatever_validation_says(lr):
    data = mmiln.data.synthetic(50, 30, 20)
    high = replace(data.valid, labels=np.full(30, 3.0))  # early stopping would choose by these
    model = Baseline("mean", lr=lr, batch_size=7)
    model.fit(data.train, high, epochs=3, progress=False)
    assert model.predict(data.test).score == pytest.approx(float(data.train.labels.mean()), abs=1e-6)
    model.fit(data.test, epochs=1, progress=False)  # a new run forgets the first
    assert model.predict(data.test).score == pytest.approx(float(data.test.labels.mean()), abs=1e-6)


def test_labels_alone_are_enough():
    labels = np.array([1.0, -2.0, 0.5], np.float32)
    model = Baseline("mean")
    model.fit([{"labels": labels, "index": np.arange(3)}], epochs=1, progress=False)
    assert model.predict([{"labels": labels}]).score == pytest.approx(float(labels.mean()))
