"""Weights of utterances in the task loss of training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from mmiln.baselines import Baseline
from mmiln.data import Split, collate
from mmiln.errors import BatchError, DataError
from reference import batches, configs, model
from support.model_checks import LENGTHS, PRESENT, PRESENT_IDS, VARIANTS, agree, build, oracle_losses

UNEQUAL = torch.tensor([0.5, 0.0, 2.25], dtype=torch.float64)
TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2, "batch_size": 8, "seed": 1}


@pytest.fixture
def data() -> mmiln.data.Dataset:
    return mmiln.data.synthetic(24, 12, 12)


def weighted(split: Split, weights: Any) -> Split:
    split = split.subset(range(len(split)))
    split.weights = None if weights is None else np.asarray(weights, np.float32)
    return split


# The loss


@pytest.mark.parametrize("present", PRESENT, ids=PRESENT_IDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_and_gradients_are_those_of_the_oracle(variant: str, present: dict) -> None:
    config = configs.tiny(variant=variant, **present)
    built, p = build(config)
    batch = batches.random_batch(config, LENGTHS, 0)
    pseudo = {n: batch["labels"] + shift for n, shift in zip(model.sources(config), (0.7, -1.1))}  # noqa: B905
    human = {"M": batch["labels"], **{n[0].upper(): y for n, y in pseudo.items()}}
    built.set_params(unimodal_labels="human" if pseudo else "generated")
    given = batch | {"labels": human}
    index = {**given, "index": np.arange(3)}
    built.fit([index], epochs=1, progress=False)  # labels of people are read within a run
    built.load_state_dict({name: weight.detach() for name, weight in p.items()})
    for weights in (UNEQUAL, 3 * UNEQUAL, torch.ones(3, dtype=torch.float64)):
        found, gradients = oracle_losses(p, config, batch | {"weights": weights}, pseudo)
        agree(built.losses(given | {"weights": weights}), found, 1e-9)
        agree(built.gradients(given | {"weights": weights}), gradients, 1e-9)
    assert built.losses(given)["task"] != built.losses(given | {"weights": UNEQUAL})["task"]


# Training


def models() -> list[Any]:
    return [
        mmiln.Model("mosi", **TINY),
        mmiln.Model("mosi", accumulate=1, **TINY),
        *(Baseline(name, batch_size=8, seed=1) for name in ("self_mm", "text_only", "mean")),
    ]


def same(first: Any, second: Any) -> bool:
    other = second.state_dict()
    return all(torch.equal(weight, other[name]) for name, weight in first.state_dict().items())


def test_weights_of_1_change_no_bit_and_others_do(data: mmiln.data.Dataset) -> None:
    for plain, ones, other in zip(models(), models(), models(), strict=True):
        for each, weights in ((plain, None), (ones, np.ones(24)), (other, np.arange(24))):
            each.fit(weighted(data.train, weights), epochs=2, progress=False)
        assert same(plain, ones)
        assert ones.history_ | {"seconds": 0} == plain.history_ | {"seconds": 0}
        assert not same(plain, other)


@pytest.mark.parametrize("kind", ["mmiln", "text_only", "mean"])
def test_the_label_of_an_utterance_without_weight_does_not_matter(
    kind: str, data: mmiln.data.Dataset
) -> None:
    weights = np.arange(24) % 3
    runs = []
    for label in (-3.0, 3.0):
        train = weighted(data.train, weights)
        train.labels = np.where(weights == 0, np.float32(label), train.labels)
        text = {"audio_dim": 0, "vision_dim": 0}
        each = mmiln.Model("mosi", **TINY, **text) if kind == "mmiln" else Baseline(kind, batch_size=8)
        each.fit(train, epochs=2, progress=False)
        runs.append(each)
    assert same(*runs)


def test_the_mean_is_the_weighted_one(data: mmiln.data.Dataset) -> None:
    weights = np.arange(24.0)
    mean = Baseline("mean", batch_size=8)
    mean.fit(weighted(data.train, weights), epochs=1, progress=False)
    expected = np.average(data.train.labels, weights=weights)
    np.testing.assert_allclose(mean.predict(data.test).score, expected, rtol=1e-5)


def test_a_batch_without_any_weight_is_refused_in_training_alone(data: mmiln.data.Dataset) -> None:
    train = weighted(data.train, np.zeros(24))
    for each in (mmiln.Model("mosi", **TINY), Baseline("text_only")):
        with pytest.raises(BatchError, match=r"weights of all utterances of this batch are 0.*leave such"):
            each.fit(train, epochs=1, progress=False)
        assert each.evaluate(train).n == 24


def test_measures_do_not_use_them(data: mmiln.data.Dataset) -> None:
    built = mmiln.Model("mosi", **TINY)
    assert built.evaluate(weighted(data.test, np.arange(12))) == built.evaluate(data.test)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0, -0.5, 1.0], "weights: utterance 1 of the batch has the weight -0.5, expected a finite number"),
        ([1.0, np.nan, 1.0], "utterance 1 of the batch has the weight NaN"),
        ([1.0, 1.0], "same number of utterances, got .*weights 2"),
        (["a", "b", "c"], "weights must hold real numbers"),
    ],
)
def test_what_is_no_weight_is_refused(weights: Any, said: str) -> None:
    config = configs.tiny()
    batch = batches.random_batch(config, LENGTHS, 0)
    with pytest.raises(BatchError, match=said):
        build(config)[0].losses(batch | {"weights": np.array(weights)})


# Data


def test_a_split_carries_them_everywhere(data: mmiln.data.Dataset) -> None:
    weights = np.linspace(0, 2, 24, dtype=np.float32)
    split = weighted(data.train, weights)
    assert split[3]["weights"] == weights[3]
    np.testing.assert_array_equal(collate([split[5], split[2]])["weights"], weights[[5, 2]])
    np.testing.assert_array_equal(split.subset([7, 1]).weights, weights[[7, 1]])
    np.testing.assert_array_equal(Split.from_items(iter(split)).weights, weights)
    frame = split.to_pandas(arrays=True)
    np.testing.assert_array_equal(Split.from_pandas(frame).weights, weights)
    assert Split.from_pandas(frame.drop(columns="weights")).weights is None
    assert split.fingerprint() != data.train.fingerprint()
    assert split.fingerprint() != weighted(data.train, weights[::-1]).fingerprint()
    both = split + data.valid
    np.testing.assert_array_equal(both.weights, [*weights, *np.ones(12)])
    assert Split.concat(data.splits.values()).weights is None


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0, -1.0], "finite weights of 0 or more, got -1 for 'b' and 1 such weights in all"),
        ([np.inf, 1.0], "got inf for 'a'"),
        ([1.0], r"expected weights of shape \(N,\), one for each of 2 ids, got \(1,\)"),
    ],
)
def test_what_is_no_weight_of_a_split_is_refused(weights: list[float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Split(["a", "b"], [1, -1], raw_text=["good", "bad"], weights=weights)


def test_items_have_all_a_weight_or_none(data: mmiln.data.Dataset) -> None:
    items = [data.train[0] | {"weights": 1.0}, data.train[1]]
    with pytest.raises(DataError, match="expected weights in every utterance or in none, 1 of 2 lack it"):
        Split.from_items(items)
