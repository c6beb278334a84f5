"""Searches: on validation alone, kept on disk, resumed."""

import pandas as pd
import pytest

from mmiln import experiments
from mmiln.errors import ConfigError, ExperimentError, MissingFileError, MmilnError, StateError
from mmiln.experiments import Search
from mmiln.experiments.runs import Record
from support import small_file

optuna = pytest.importorskip("optuna", reason="optuna is not installed: pip install 'mmiln[search]'")

DESCRIPTION = {
    "name": "small",
    "dataset": {"path": "synthetic", "n_train": 30, "n_valid": 12, "n_test": 12},
    "space": {"alpha": {"low": 0.0, "high": 1.0}, "num_heads": {"choices": [1, 2]}},
    "model": "text_audio",
    "epochs": 1,
    "settings": {"d_model": 8, "num_layers": 1},
    "trials": 3,
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return folder, experiments.search(DESCRIPTION, folder, progress=False)


def points(trials):
    return trials[["alpha", "num_heads"]].to_numpy().tolist()


def test_the_best_trial_is_that_of_the_lowest_validation_mae(found):
    folder, best = found
    assert best.trials["state"].tolist() == ["COMPLETE"] * 3
    assert best.mae == best.trials["valid_mae"].min()
    row = best.trials.loc[best.trials["valid_mae"].idxmin()]
    assert best.settings == {"alpha": row["alpha"], "num_heads": row["num_heads"]}
    for number, mae in enumerate(best.trials["valid_mae"]):
        record = Record.read(folder / f"trial-{number:04d}" / "seed-1111")
        assert record.metrics["valid"]["mae"] == mae
        assert record.config["alpha"] == best.trials["alpha"][number]
        assert set(record.metrics) == {"valid"}
        assert "test" not in record.sizes
    assert pd.read_csv(folder / "trials.csv")["valid_mae"].tolist() == best.trials["valid_mae"].tolist()


def test_hyper_parameters_of_a_baseline(tmp_path):
    space = {"lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    changes = {"model": "text_only", "settings": {}, "space": space, "trials": 1}
    best = experiments.search(DESCRIPTION | changes, tmp_path, progress=False)
    record = Record.read(tmp_path / "trial-0000" / "seed-1111")
    assert record.config["lr"] == best.settings["lr"] != 1e-3


def test_a_search_that_was_cut_off_goes_on_with_the_same_points(found, tmp_path):
    _, whole = found
    experiments.search(DESCRIPTION | {"trials": 1}, tmp_path, progress=False)
    # The state that a killed process leaves: a trial that is running and will never end.
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "trials.log"))
    storage = optuna.storages.JournalStorage(backend)
    study = optuna.load_study(study_name="search", storage=storage)
    study.sampler = optuna.samplers.TPESampler(seed=1)
    trial = study.ask()
    trial.suggest_float("alpha", 0.0, 1.0)
    trial.suggest_categorical("num_heads", (1, 2))
    again = experiments.search(DESCRIPTION, tmp_path, progress=False)
    assert again.trials["state"].tolist() == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    complete = again.trials.query("state == 'COMPLETE'")
    assert points(complete)[:2] == points(whole.trials)[:2]
    assert complete["valid_mae"].tolist()[:2] == whole.trials["valid_mae"].tolist()[:2]
    # Nothing is missing: nothing is tried.
    assert len(experiments.search(DESCRIPTION, tmp_path, progress=False).trials) == 4


def test_another_search_is_not_mixed_in(found):
    folder, _ = found
    with pytest.raises(StateError, match="differs in epochs"):
        experiments.search(DESCRIPTION | {"epochs": 2}, folder, progress=False)


def test_the_test_part_is_not_opened(tmp_path):
    small_file.write_misa(tmp_path)
    (tmp_path / "test.pkl").write_bytes(b"garbage that no reader takes")
    description = DESCRIPTION | {
        "dataset": {"path": str(tmp_path)}, "trials": 1, "model": "audio",
    }  # fmt: skip
    found = experiments.search(description, tmp_path / "out", progress=False)
    assert found.trials["state"].tolist() == ["COMPLETE"]
    with pytest.raises(ExperimentError, match=r"test\.pkl is not a readable pickle"):
        experiments.run(
            {"name": "x", "datasets": {"d": {"path": str(tmp_path)}}, "models": ["audio"], "seeds": [1]},
            tmp_path / "run",
            progress=False,
        )


def test_a_search_where_every_trial_fails_says_why(tmp_path):
    wrong = DESCRIPTION | {"dataset": {"path": str(tmp_path / "none.pkl")}, "trials": 1}
    with pytest.raises(ExperimentError, match=r"every trial failed: .*MissingFileError: .*log\.txt"):
        experiments.search(wrong, tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"space": {"seed": {"low": 1, "high": 5}}}, "select luck"),
        ({"space": {"aplha": {"low": 0, "high": 1}}}, "did you mean 'alpha'"),
        ({"model": "tfn", "space": {"rate": {"low": 0, "high": 1}}}, "no field 'rate'"),
        ({"space": {}}, "space"),
        ({"space": {"alpha": {"low": 1}}}, "needs low and high"),
        ({"space": {"alpha": {"low": 2, "high": 1}}}, "low must be below high"),
        ({"space": {"alpha": {"low": 0, "high": 1, "log": True}}}, "low must be above 0"),
        ({"space": {"alpha": {"low": 0, "high": 1, "choices": [1]}}}, "not both"),
        ({"trials": 0}, "trials"),
        ({"models": ["full"]}, "did you mean model"),
        ({"settings": {"aplha": 0}}, "did you mean 'alpha'"),
        ({"settings": {"d_model": 0}, "trials": 1}, "d_model"),
    ],
)
def test_a_wrong_description_is_told(change, fragment, tmp_path):
    with pytest.raises(MmilnError, match=fragment):
        experiments.search(DESCRIPTION | change, tmp_path, progress=False)


def test_values_are_of_the_range_s_kind():
    space = Search.of(
        DESCRIPTION
        | {
            "space": {
                "d_model": {"low": 10, "high": 50, "step": 10},
                "lr_other": {"low": 1e-5, "high": 1e-1, "log": True},
                "variant": {"choices": ["full", "no_mrm"]},
            }
        }
    ).space
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [
        {name: values.suggest(trial, name) for name, values in space.items()}
        for trial in (study.ask() for _ in range(20))
    ]
    assert {point["d_model"] for point in drawn} <= {10, 20, 30, 40, 50}
    assert all(isinstance(point["d_model"], int) and isinstance(point["lr_other"], float) for point in drawn)
    assert min(point["lr_other"] for point in drawn) < 1e-3 < max(point["lr_other"] for point in drawn)
    assert {point["variant"] for point in drawn} == {"full", "no_mrm"}


def test_without_optuna_the_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingFileError, match=r"pip install 'mmiln\[search\]'"):
        experiments.search(DESCRIPTION, tmp_path, progress=False)


def test_a_description_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('trials = 2\n[dataset]\npath = "synthetic"\n[space.alpha]\nlow = 0.0\nhigh = 1.0\n')
    assert Search.read(path).name == "mine"
    with pytest.raises(ConfigError, match="unknown key trial"):
        Search.of({**Search.read(path).model_dump(exclude_none=True), "trial": 3})
