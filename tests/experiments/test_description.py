"""What an experiment is: its description, its tasks, its mistakes."""

import pytest

from mmiln import data
from mmiln.errors import ConfigError, DataError, MissingFileError, MmilnError
from mmiln.experiments import MODELS, Experiment, Source
from mmiln.experiments.experiment import expanded

SMALL = {"path": "synthetic", "n_train": 40, "n_valid": 20, "n_test": 20}
BASE = {"name": "some", "datasets": {"small": SMALL}, "epochs": 2}


def test_tasks_are_datasets_x_seeds_x_folds_x_models_x_grid():
    experiment = Experiment.of(
        {
            "name": "all",
            "datasets": {"a": SMALL, "b": SMALL | {"folds": 3}},
            "models": ["full", "text"],
            "seeds": [1, 2],
            "grid": {"num_layers": [1, 2], "alpha": [0.1]},
        }
    )
    tasks = list(experiment.tasks())
    assert len(tasks) == 2 * 2 * 2 + 3 * 2 * 2 * 2
    assert len({task.folder for task in tasks}) == len(tasks)
    assert str(tasks[0].folder) == "a/full,num_layers=1,alpha=0.1/seed-1"
    assert str(tasks[-1].folder) == "b/text,num_layers=2,alpha=0.1/seed-2-fold-2"
    assert str(tasks[-1]) == "b: text, num_layers=2, alpha=0.1, seed 2 fold 2"
    model = experiment.model(tasks[1])
    assert model.config.model["num_layers"] == 2
    assert model.config.train["seed"] == 1


def test_a_model_overrules_the_grid_which_overrules_the_settings():
    experiment = Experiment.of(
        BASE
        | {
            "models": ["full", "no_mrm"],
            "settings": {"num_heads": 2, "d_model": 8, "variant": "no_mfm"},
            "grid": {"d_model": [16]},
        }
    )
    full, no_mrm = (experiment.model(task).config.model for task in list(experiment.tasks())[:2])
    assert (full["num_heads"], full["d_model"], full["variant"]) == (2, 16, "no_mfm")
    assert no_mrm["variant"] == "no_mrm"


def test_a_model_s_own_settings_come_before_those_of_all():
    experiment = Experiment.of(
        BASE
        | {
            "models": ["full", "text", "tfn"],
            "settings": {"d_model": 8, "num_heads": 2, "patience": 3},
            "model_settings": {"text": {"d_model": 16}, "tfn": {"batch_size": 7, "patience": 4}},
        }
    )
    full, text, tfn = (experiment.model(task).config for task in list(experiment.tasks())[:3])
    assert (full.model["d_model"], text.model["d_model"]) == (8, 16)
    assert (full.train["patience"], tfn.train["patience"], tfn.train["batch_size"]) == (3, 4, 7)


def test_default_seeds_are_the_field_s_and_every_model_can_be_described():
    experiment = Experiment.of(BASE | {"models": list(MODELS)})
    assert experiment.seeds == (1111, 1112, 1113, 1114, 1115)
    experiment.check()
    assert all(entry.about for entry in MODELS.values())


def test_controls_of_one_modality_drop_the_text_encoder(tmp_path):
    experiment = Experiment.of(
        BASE
        | {"models": ["audio"], "settings": {"text_encoder": str(tmp_path / "nowhere"), "freeze_text": 2}}
    )
    model = experiment.model(next(experiment.tasks()))
    assert model.text_encoder is None
    assert model.config.model["text_dim"] == model.config.model["vision_dim"] == 0


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        ({"epoch": 3}, ["unknown key epoch", "did you mean epochs?"]),
        ({"models": ["ful"]}, ["there is no model 'ful'", "did you mean 'full'?"]),
        ({"models": []}, ["models"]),
        ({"seeds": [1, 1]}, ["names the same twice"]),
        ({"seeds": [-1]}, ["seeds.0"]),
        ({"epochs": 0}, ["epochs", "greater than or equal to 1"]),
        ({"selection": "train"}, ["selection"]),
        ({"grid": {"alpha": [0.1, 0.1]}}, ["alpha names the same twice"]),
        ({"datasets": {"../up": SMALL}}, ["datasets.../up"]),
        ({"datasets": {"a": {"path": "x.pkl", "n_train": 5}}}, ["n_train", "only synthetic data"]),
        ({"datasets": {"a": SMALL | {"folds": 2}}}, ["folds"]),
        ({"datasets": {"a": {}}}, ["datasets.a.path"]),
    ],
)
def test_a_wrong_description_is_told_by_key(change, fragments):
    with pytest.raises(ConfigError) as caught:
        Experiment.of(BASE | change)
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"settings": {"numlayers": 2}}, "did you mean 'num_layers'"),
        ({"grid": {"aplha": [1]}}, "did you mean 'alpha'"),
        ({"settings": {"seed": 3}}, "seeds = "),
        ({"settings": {"num_heads": 7}}, "num_heads"),
        ({"grid": {"num_layers": [1, 0]}}, "num_layers"),
        ({"model_settings": {"tfn": {"lr": 0.1}}}, "'tfn' is none of models"),
        ({"models": ["tfn"], "model_settings": {"tfn": {"rate": 0.1}}}, "no field 'rate'"),
        ({"models": ["tfn"], "model_settings": {"tfn": {"seed": 1}}}, "seeds = "),
        ({"models": ["text"], "model_settings": {"text": {"audio_dim": 3}}}, "what makes the model 'text'"),
        ({"settings": {"text_encoder": "$NO_SUCH_VARIABLE"}}, "environment variable NO_SUCH_VARIABLE"),
    ],
)
def test_settings_are_checked_before_anything_runs(change, fragment, monkeypatch):
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    with pytest.raises(MmilnError, match=fragment):
        Experiment.of(BASE | change).check()


def test_a_file_of_toml(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('epochs = 3\n[datasets.d]\npath = "synthetic"\n[grid]\nnum_layers = [1, 2]\n')
    experiment = Experiment.read(path)
    assert (experiment.name, experiment.epochs, experiment.grid) == ("mine", 3, {"num_layers": (1, 2)})
    path.write_text("epochs = \n")
    with pytest.raises(ConfigError, match="can't be read as TOML"):
        Experiment.read(path)
    with pytest.raises(MissingFileError, match=r"there is no file .*none\.toml"):
        Experiment.read(tmp_path / "none.toml")


def test_variables_of_the_environment(monkeypatch):
    monkeypatch.setenv("SOME_DATA", "/data")
    assert expanded("$SOME_DATA/a.pkl") == expanded("${SOME_DATA}/a.pkl") == "/data/a.pkl"
    with pytest.raises(MissingFileError, match="set it"):
        expanded("$NO_SUCH/a.pkl")


def test_sources_divide_and_scale():
    plain = Source(path="synthetic", n_train=40, n_valid=20, n_test=20, seed=3).load()
    assert [len(part) for part in plain.splits.values()] == [40, 20, 20]
    without = Source(**SMALL).load(test=False)
    assert list(without.splits) == ["train", "valid"]
    scaled = Source(**SMALL, standardize=True).load()
    assert scaled.standardizer is not None


def test_folds_are_whole_videos_and_test_every_utterance_once():
    whole = data.synthetic(90, 30, 40)
    parts = [data.fold(whole, number, 4) for number in range(4)]
    tested = [name for part in parts for name in part.test.id]
    assert sorted(tested) == sorted(name for split in whole.splits.values() for name in split.id)
    for number, part in enumerate(parts):
        videos = [{name.split("$_$")[0] for name in split.id} for split in part.splits.values()]
        assert not (videos[0] & videos[1] or videos[0] & videos[2] or videos[1] & videos[2])
        assert part.valid.id == parts[(number + 1) % 4].test.id
        assert sum(map(len, part.splits.values())) == 160
    assert parts[2].fingerprint() == data.fold(whole, 2, 4).fingerprint()
    for number, folds in ((0, 2), (4, 4), (-1, 4)):
        with pytest.raises(DataError, match="folds"):
            data.fold(whole, number, folds)
    with pytest.raises(DataError, match="as many videos as folds"):
        data.fold(whole, 0, 100)


def test_a_fold_is_scaled_by_its_own_train_part():
    source = Source(path="synthetic", n_train=60, n_valid=30, n_test=30, folds=3, standardize=True)
    first, second = source.load(0), source.load(1)
    assert (first.standardizer.mean["audio"] != second.standardizer.mean["audio"]).all()
    assert list(source.load(0, test=False).splits) == ["train", "valid"]
