"""A small experiment finds the structure that was planted in the synthetic data."""

import numpy as np
import pytest

from mmiln import data, experiments

SIZES = {"n_train": 1284, "n_valid": 250, "n_test": 1500, "seed": 3}


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    description = {
        "name": "planted",
        "datasets": {"made": {"path": "synthetic", **SIZES}},
        "models": ["full", "text", "text_audio", "text_vision", "shuffled"],
        "seeds": [1111, 1112],
        "epochs": 10,
        "settings": {"accumulate": 1},
    }
    return experiments.run(description, tmp_path_factory.mktemp("planted"), jobs=2, progress=False)


@pytest.mark.slow
def test_all_modalities_beat_text_alone(report):
    found = report.compare("text", "full")
    assert found.differences["mae"].low > 0
    assert found.differences["corr"].high < 0


@pytest.mark.slow
@pytest.mark.parametrize("without", ["text_audio", "text_vision"])
def test_leaving_a_modality_out_costs_what_it_carries(report, without):
    """The known cost lies in the interval over utterances, widened by twice the error over seeds."""
    ceiling = data.synthetic(**SIZES).ceiling
    planted = ceiling[without].mae - ceiling["full"].mae
    cost = report.compare(without, "full").differences["mae"]
    maes = report.to_pandas().pivot(index="seed", columns="model", values="mae")
    error = (maes[without] - maes["full"]).std() / np.sqrt(len(maes))
    assert cost.value > 0
    assert cost.low - 2 * error <= planted <= cost.high + 2 * error


@pytest.mark.slow
def test_permuted_labels_teach_nothing(report):
    """Chance: no better than the best constant, where the same model with true labels is far better."""
    made = data.synthetic(**SIZES)
    constant = np.abs(made.test.labels - np.median(made.train.labels)).mean()
    maes = report.to_pandas().groupby("model")["mae"].min()
    assert maes["shuffled"] > constant - 0.03
    assert maes["full"] < constant - 0.3
