"""In which order utterances are trained on."""

import numpy as np
import pytest

import mmiln
from mmiln.data import synthetic
from mmiln.data.order import BUCKET
from mmiln.errors import ConfigError

ORDERS = ["faithful", "window", "buckets"]


@pytest.fixture(scope="module")
def split():
    return synthetic(203, 8, 8).train


def longest(split):
    return np.max([split.lengths(name) for name in split.sequences], axis=0)


def passes(split, order, count=2, **how):
    """Dataset indices by pass and batch."""
    loader = split.loader(4, shuffle=True, seed=5, order=order, window=3, **how)
    return [[batch["index"].tolist() for batch in loader] for _ in range(count)]


@pytest.mark.parametrize("order", ORDERS)
def test_every_utterance_once_in_each_pass_and_each_pass_anew(split, order):
    first, second = passes(split, order)
    for batches in (first, second):
        assert sorted(np.concatenate(batches).tolist()) == list(range(203))
        assert len(batches) == len(split.loader(4, shuffle=True, order=order)) == 51
        assert sorted(map(len, batches)) == [3] + 50 * [4]
    assert first != second


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
@pytest.mark.parametrize("order", ORDERS)
def test_the_order_is_the_same_for_any_number_of_workers(split, order):
    assert passes(split, order) == passes(split, order, num_workers=2)


def test_the_steps_of_a_window_order_see_what_faithful_ones_see(split):
    def steps(batches):
        return [set(np.concatenate(batches[at : at + 3]).tolist()) for at in range(0, 51, 3)]

    for faithful, window in zip(passes(split, "faithful"), passes(split, "window"), strict=True):
        assert steps(faithful) == steps(window)


def test_batches_of_a_window_go_from_short_to_long(split):
    lengths = longest(split)
    (batches,) = passes(split, "window", count=1)
    for at in range(0, 51, 3):
        together = lengths[np.concatenate(batches[at : at + 3])]
        assert (np.diff(together) >= 0).all()


def test_buckets_waste_least(split):
    lengths = longest(split)
    spread = {
        order: np.mean([np.ptp(lengths[batch]) for batch in passes(split, order, count=1)[0]])
        for order in ORDERS
    }
    assert spread["buckets"] < spread["window"] < spread["faithful"]
    assert BUCKET * 3 * 4 > 203  # all of it was one bucket


def test_batches_of_buckets_come_in_no_order_of_length(split):
    lengths = longest(split)
    (batches,) = passes(split, "buckets", count=1)
    means = [lengths[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, np.arange(51))[0, 1]) < 0.5


def test_a_model_is_trained_as_its_order_says(split):
    def weights(order):
        model = mmiln.Model("mosi", num_layers=1, order=order, batch_size=16, accumulate=2)
        model.fit(split, epochs=1, progress=False)
        return model.state_dict()["heads.multimodal.linear1.weight"]

    assert not weights("faithful").equal(weights("window"))
    assert not weights("window").equal(weights("buckets"))
    assert weights("buckets").equal(weights("buckets"))


def test_wrong_orders_are_refused(split):
    with pytest.raises(ConfigError, match='"faithful", "window" or "buckets", got \'sorted\''):
        split.loader(order="sorted", shuffle=True)
    with pytest.raises(ConfigError, match="is a way to shuffle: give shuffle=True"):
        split.loader(order="window")
    with pytest.raises(ConfigError, match="order"):
        mmiln.Model("mosi", order="sorted")
