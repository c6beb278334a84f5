"""Case studies: the choice of utterances, their scores, the contributions of modalities."""

import json

import numpy as np
import pandas as pd
import pytest

import mmiln
from mmiln import experiments
from mmiln.data import Split, collate
from mmiln.errors import ConfigError, DataError, MissingFileError
from mmiln.explain.attribution import contributions

TINY = {"d_model": 8, "num_heads": 2, "num_layers": 2}


@pytest.fixture(scope="module")
def data():
    return mmiln.data.synthetic(40, 12, 30)


@pytest.fixture(scope="module")
def models(data):
    full = mmiln.Model("mosi", seed=1, accumulate=1, **TINY)
    text = mmiln.Model("mosi", seed=2, accumulate=1, audio_dim=0, vision_dim=0, **TINY)
    for model in (full, text):
        model.fit(data.train, data.valid, epochs=3, progress=False)
    return full, text


def test_the_farthest_apart_are_picked_and_what_models_say_is_said(data, models):
    full, text = models
    study = experiments.case_study(full, text, data.test, data.train, n=4, names=("full", "text"))
    a, b = full.predict(data.test).score, text.predict(data.test).score
    order = np.argsort(-np.abs(a - b), kind="stable")[:4]
    assert [case.id for case in study.cases] == [data.test.id[i] for i in order]
    inside = full.forward(collate([data.test[int(i)] for i in order]), intermediates=True)
    for k, (i, case) in enumerate(zip(order, study.cases, strict=True)):
        assert case.words == data.test.raw_text[i]
        assert (case.truth, case.score, case.other) == pytest.approx(
            (data.test.labels[i], a[i], b[i]), abs=1e-6
        )
        assert case.unimodal["audio"] == pytest.approx(float(inside["y_audio"][k]))
        assert len(case.gates) == 2
        assert set(case.gates[1]) == {"audio", "vision", "text_audio", "text_vision"}
        source = inside["fusion.1.text_vision.source"][k]
        assert source.shape[0] == len(data.test.vision[i])
        assert case.gates[1]["text_vision"]["source"] == pytest.approx(float(source.mean()))
        retain = inside["fusion.0.audio.retain"][k]
        assert case.gates[0]["audio"]["retain"] == pytest.approx(float(retain.mean()))
        assert case.pseudo_labels == {}
        assert case.moved_by in case.contributions


def test_a_contribution_is_the_score_minus_its_mean_with_other_frames(data, models):
    full, _ = models
    some = data.test.subset([3, 8])
    moved = contributions(full, some, data.train)
    assert set(moved) == {"text", "audio", "vision"}
    stand_ins = np.linspace(0, 39, 32).astype(int)
    for i in range(2):
        scores = []
        for k in stand_ins:
            other = Split(
                ["x"], [0], text=[some.text[i]], audio=[data.train.audio[k]], vision=[some.vision[i]]
            )
            scores.append(full.predict(other).score[0])
        expected = full.predict(some).score[i] - np.mean(scores)
        assert moved["audio"][i] == pytest.approx(expected, abs=1e-5)


def test_a_modality_that_the_model_does_not_read_moves_nothing(data, models):
    _, text = models
    moved = contributions(text, data.test.subset([0, 1]), data.train)
    assert list(moved) == ["text"]


def test_flips_are_right_where_the_other_is_wrong(data, models):
    full, text = models
    # The same model with its scores shifted so that half of them are positive.
    state = text.state_dict()
    state["heads.multimodal.linear3.bias"] -= float(np.median(text.predict(data.test).score))
    text = mmiln.Model("mosi", text_dim=64, audio_dim=0, vision_dim=0, **TINY)
    text.load_state_dict(state)
    study = experiments.case_study(full, text, data.test, data.train, pick="flips", n=30)
    assert len(study.cases) > 3
    for case in study.cases:
        assert case.truth != 0
        assert (case.score > 0) == (case.truth > 0) != (case.other > 0)
    apart = [abs(case.score - case.other) for case in study.cases]
    assert apart == sorted(apart, reverse=True)
    with pytest.raises(ConfigError, match="never differ so"):
        experiments.case_study(full, full, data.test, data.train, pick="flips")
    with pytest.raises(ConfigError, match='"disagreement" or "flips"'):
        experiments.case_study(full, text, data.test, data.train, pick="best")


def test_named_utterances_of_train_have_pseudo_labels(data, models):
    full, text = models
    labels = {
        name: dict(zip(data.train.id, values, strict=True)) for name, values in full.pseudo_labels.items()
    }
    ids = [data.train.id[5], data.train.id[2]]
    study = experiments.case_study(full, text, data.train, data.train, ids=ids, pseudo_labels=labels)
    assert [case.id for case in study.cases] == ids
    assert study.cases[1].pseudo_labels == {
        m: pytest.approx(full.pseudo_labels[m][2]) for m in ("audio", "vision")
    }
    scores, gates = study.tables()
    assert scores.columns[:3] == ("words", "id", "truth")
    assert "audio pseudo-label" in scores.columns
    assert len(gates.rows) == 4
    assert study.to_markdown().count("|:") == 2
    with pytest.raises(ConfigError, match="no utterance 'nobody'"):
        experiments.case_study(full, text, data.train, data.train, ids=["nobody"])


def test_an_experiment_s_own_models(tmp_path):
    description = {
        "name": "kept",
        "models": ["full", "text"],
        "seeds": [1],
        "epochs": 1,
        "keep_models": True,
        "settings": TINY,
        "datasets": {"made": {"path": "synthetic", "n_train": 40, "n_valid": 12, "n_test": 30}},
    }
    experiments.run(description, tmp_path, jobs=2, progress=False)
    study = experiments.cases(tmp_path, n=2)
    scores = (
        pd.read_csv(tmp_path / "made/full/seed-1/predictions.csv")
        .query("part == 'test'")
        .set_index("id")["score"]
    )
    assert [case.score for case in study.cases] == pytest.approx(
        [scores[case.id] for case in study.cases], abs=1e-5
    )
    trained = experiments.cases(tmp_path, part="train", n=2)
    assert set(trained.cases[0].pseudo_labels) == {"audio", "vision"}
    assert json.loads(json.dumps(study.to_dict()))["model"] == "full"
    with pytest.raises(ConfigError, match="name a row of 'full', 'text'; got 'ful'"):
        experiments.cases(tmp_path, model="ful")
    with pytest.raises(DataError, match="parts train, valid, test"):
        experiments.cases(tmp_path, part="dev")
    with pytest.raises(MissingFileError, match="no experiment was run"):
        experiments.cases(tmp_path / "made")
    (tmp_path / "made/text/seed-1/config.json").unlink()
    with pytest.raises(MissingFileError, match="keep_models = true"):
        experiments.cases(tmp_path)
