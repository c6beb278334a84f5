"""Several seeds of one model: their measures, the spread, the mean of their scores."""

import numpy as np
import pytest

import mmiln
from mmiln.baselines import Baseline
from mmiln.errors import BatchError, ConfigError, DataError
from mmiln.results.seeds import SeedMetrics
from support.small_runs import TINY

FIT = {"epochs": 1, "progress": False}


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(24, 12, 12)


@pytest.fixture(scope="module")
def seeds(data):
    return mmiln.fit_seeds(mmiln.Model("mosi", **TINY), [3, 4, 5], data.train, data.valid, data.test, **FIT)


def test_each_seed_is_the_model_that_is_trained_alone(seeds, data):
    alone = mmiln.Model("mosi", seed=4, **TINY)
    alone.fit(data.train, data.valid, **FIT)
    assert seeds.seeds == list(seeds.models) == [3, 4, 5]
    assert (seeds.models[4].predict(data.test).score == alone.predict(data.test).score).all()
    assert seeds.parts["valid"][4] == alone.evaluate(data.valid)
    assert seeds.parts["test"][4] == alone.evaluate(data.test)


def test_mean_and_deviation(seeds):
    frame, known = seeds.to_pandas(), seeds.to_dict()
    for part in ("valid", "test"):
        maes = [seeds.parts[part][seed].mae for seed in (3, 4, 5)]
        assert len(set(maes)) == 3
        row = frame.loc[part, "mae"]
        assert row[[3, 4, 5]].tolist() == maes
        assert row["mean"] == known[part]["mae"]["mean"] == pytest.approx(np.mean(maes))
        assert row["std"] == known[part]["mae"]["std"] == pytest.approx(np.std(maes, ddof=1))
        assert row["ensemble"] == seeds.ensemble[part].mae
        assert known["each"]["4"][part] == seeds.parts[part][4].to_dict()


def test_it_prints_and_shows_as_a_table(seeds):
    maes, accuracies = seeds.values("test", "mae"), seeds.values("test", "has0_acc2")
    for shown in (str(seeds), repr(seeds), seeds._repr_html_(), seeds.table().markdown()):
        assert "3 seeds, mean ± standard deviation" in shown
        assert f"{np.mean(maes):.3f} ± {np.std(maes, ddof=1):.3f}" in shown
        assert "Acc-2 has0 (%)" in shown
        assert f"{100 * np.mean(accuracies):.2f} ± {100 * np.std(accuracies, ddof=1):.2f}" in shown


def test_the_ensemble_is_the_mean_of_the_scores(seeds, data):
    scores = [model.predict(data.test).score.astype(float) for model in seeds.models.values()]
    together = seeds.predict(data.test)
    np.testing.assert_array_equal(together.score, np.mean(scores, axis=0).astype(np.float32))
    assert together.id == data.test.id
    assert seeds.ensemble["test"] == together.measured()


def test_one_seed_has_no_deviation(data):
    one = mmiln.fit_seeds(mmiln.Model("mosi", **TINY), [3], data.train, test=data.test, **FIT)
    assert list(one.parts) == ["test"]
    assert "One seed" in str(one)
    assert "±" not in str(one)


def test_baselines_and_checkpoints(data, tmp_path):
    folders = {"checkpoint_dir": tmp_path}
    seeds = mmiln.fit_seeds(Baseline("lmf"), range(2), data.train, data.valid, **FIT, **folders)
    assert isinstance(seeds.models[1], Baseline)
    assert seeds.models[1].config.train["seed"] == 1
    assert {path.name for path in tmp_path.iterdir()} == {"seed-0", "seed-1"}


def test_calls_that_can_not_be_meant(seeds, data):
    model = mmiln.Model("mosi", **TINY)
    for wrong in ([], [1, 1], 7):
        with pytest.raises(ConfigError, match=r"seeds must be different numbers such as \[1111"):
            mmiln.fit_seeds(model, wrong, data.train, data.valid)
    with pytest.raises(ConfigError, match="nothing to measure"):
        mmiln.fit_seeds(model, [1, 2], data.train)
    assert not model.built
    here, there = seeds.models[3].predict(data.valid), seeds.models[4].predict(data.test)
    with pytest.raises(DataError, match="same utterances, but id differs"):
        mmiln.Predictions.mean_of([here, there])
    with pytest.raises(DataError, match="at least one"):
        mmiln.Predictions.mean_of([])
    unlabelled = {"test": {1: mmiln.Predictions(here.score)}}
    with pytest.raises(BatchError, match="needs labels"):
        SeedMetrics.of(unlabelled, ensemble=False)
