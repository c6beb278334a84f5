"""The Hugging Face hub, of which a folder stands in: models up and down by name, and model cards."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from typer.testing import CliRunner

import mmiln
from mmiln import cli
from mmiln.baselines import Baseline
from mmiln.errors import ConfigError, MissingFileError, StateError
from reference import configs
from support import small_bert

TINY = {"num_layers": 1, "d_model": 8, "num_heads": 2}


class Hub:
    """Repositories as folders, in the place of huggingface_hub's functions."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[dict[str, Any]] = []

    def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> Any:
        assert exist_ok
        (self.root / name).mkdir(parents=True, exist_ok=True)
        self.calls.append({"private": private})
        return Address(f"https://hub/{name}", name)

    def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
        self.calls[-1] |= {"message": commit_message}
        shutil.copytree(folder_path, self.root / repo_id, dirs_exist_ok=True)

    def snapshot_download(self, name: str, *, allow_patterns: list[str], revision: str | None) -> str:
        if not (self.root / name).is_dir():
            raise LocalEntryNotFoundError("An error happened while trying to locate the files on the Hub.")
        self.calls.append({"revision": revision, "files": allow_patterns})
        return str(self.root / name)


class Address(str):
    """The address of a repository, as huggingface_hub returns it."""

    def __new__(cls, address: str, repo_id: str) -> "Address":
        made = super().__new__(cls, address)
        made.repo_id = repo_id
        return made


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: made)
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.snapshot_download)
    monkeypatch.chdir(tmp_path)
    return made


@pytest.fixture(scope="module")
def data() -> mmiln.data.Dataset:
    return mmiln.data.synthetic(16, 8, 8)


def trained(data: mmiln.data.Dataset, **fields: Any) -> mmiln.Model:
    model = mmiln.Model("mosi", **(TINY | fields))
    model.fit(data.train, data.valid, epochs=2, progress=False)
    return model


def test_a_model_goes_up_and_comes_down(hub: Hub, data: mmiln.data.Dataset) -> None:
    model = trained(data)
    assert model.push_to_hub("me/sentiment", private=True, message="first") == "https://hub/me/sentiment"
    assert hub.calls == [{"private": True, "message": "first"}]
    scores = model.predict(data.test).score
    for again in (
        mmiln.Model.from_pretrained("me/sentiment", revision="v1"),
        mmiln.load_pretrained("me/sentiment", revision="v1"),
    ):
        np.testing.assert_array_equal(again.predict(data.test).score, scores)
        assert hub.calls[-1]["revision"] == "v1"
    assert {"config.json", "model.safetensors", "vocab.txt"} <= set(hub.calls[-1]["files"])


def test_a_baseline_too(hub: Hub, data: mmiln.data.Dataset) -> None:
    model = Baseline("text_only")
    model.fit(data.train, data.valid, epochs=1, progress=False)
    model.push_to_hub("me/text")
    for again in (Baseline.from_pretrained("me/text"), mmiln.load_pretrained("me/text")):
        np.testing.assert_array_equal(again.predict(data.test).score, model.predict(data.test).score)
        assert again.trained == model.trained
    card = (hub.root / "me/text/README.md").read_text(encoding="utf-8")
    assert "train part 16 utterances, valid part 8 utterances" in card


def test_the_command_takes_names(hub: Hub, data: mmiln.data.Dataset, tmp_path: Path) -> None:
    trained(data, text_dim=64, audio_dim=5, vision_dim=20).push_to_hub("me/sentiment")
    for call in ("evaluate --model me/sentiment", "predict --model me/sentiment --html page.html"):
        result = CliRunner().invoke(cli.app, [*call.split(), "--data", "synthetic"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "page.html").is_file()


def test_a_folder_comes_before_a_name(hub: Hub, data: mmiln.data.Dataset) -> None:
    trained(data).push_to_hub("me/sentiment")
    trained(data, num_heads=1).save_pretrained("me/sentiment")
    assert mmiln.load_pretrained("me/sentiment").config.model["num_heads"] == 1
    with pytest.raises(ConfigError, match="revision='v1' is for names on the hub"):
        mmiln.load_pretrained("me/sentiment", revision="v1")


@pytest.mark.parametrize("name", ["nowhere", "./me/nowhere", "me/some/where", "/me/nowhere"])
def test_what_is_no_name_is_a_folder(name: str, hub: Hub) -> None:
    with pytest.raises(MissingFileError, match=r"(no)?where is not there"):
        mmiln.load_pretrained(name)
    assert not hub.calls


def test_no_network(hub: Hub) -> None:
    with pytest.raises(MissingFileError, match=r"'me/nothing' is not a directory.*can't be reached") as error:
        mmiln.load_pretrained("me/nothing")
    assert "\n" not in str(error.value)


def refusing(kind: type[HfHubHTTPError]) -> Any:
    def refuse(*_: Any, **__: Any) -> None:
        response = SimpleNamespace(headers={}, request=None, status_code=404)
        raise kind("404 Client Error.\nRepository Not Found", response=response)

    return refuse


def test_what_the_hub_refuses(hub: Hub, data: mmiln.data.Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", refusing(RepositoryNotFoundError))
    with pytest.raises(MissingFileError, match="no such repository, or it is private"):
        mmiln.Model.from_pretrained("me/nothing")
    model = trained(data)
    monkeypatch.setattr(hub, "create_repo", refusing(HfHubHTTPError), raising=True)
    with pytest.raises(StateError, match=r"did not take 'me/x' \(HfHubHTTPError: 404 Client Error\.\)"):
        model.push_to_hub("me/x")
    with pytest.raises(ConfigError, match="such as 'user/model', got 'a b/c'"):
        model.push_to_hub("a b/c")
    with pytest.raises(StateError, match="no weights yet"):
        mmiln.Model("mosi").push_to_hub("me/x")


# Model cards


def test_a_card_says_what_the_model_was_trained_on(data: mmiln.data.Dataset, tmp_path: Path) -> None:
    encoder = small_bert.write(tmp_path)
    model = mmiln.Model(
        "mosi", text_encoder=encoder, seed=7, **configs.tiny(text_dim=8, audio_dim=0, vision_dim=0)
    )
    batch = {"raw_text": ["good film", "bad"], "labels": [1.0, -1.0], "index": [0, 1]}
    model.fit([batch], [batch], epochs=3, progress=False)
    model.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    head = yaml.safe_load(card.split("---")[1])
    assert head["library_name"] == "mmiln"
    assert "mae" in head["metrics"]
    assert str(tmp_path) not in card
    best = model.history_.best_epoch
    assert f"epoch {best} of 3" in card
    assert f"| MAE | {model.history_['valid_mae'][best - 1]:.4f} |" in card
    assert "preset `mosi`, seed 7; changed: " in card
    assert "`d_model=4`" in card
    assert "`seed=7`" not in card
    assert f"mmiln {mmiln.__version__}" in card
    assert f"| Acc-7 | {model.history_['valid_acc7'][best - 1]:.2%} |" in card
    assert "Text encoder: bert, 2 layers, 8 wide, fine-tuned with it." in card
    for freeze, said in (("embeddings", "fine-tuned with it in part."), (True, "not trained.")):
        other = mmiln.Model("mosi", text_encoder=encoder, freeze_text=freeze, num_layers=1)
        other.fit([batch], epochs=1, progress=False)
        other.save_pretrained(tmp_path / "other")
        assert f"8 wide, {said}" in (tmp_path / "other" / "README.md").read_text(encoding="utf-8")


def test_a_card_of_a_run_names_its_data(data: mmiln.data.Dataset, tmp_path: Path) -> None:
    run = mmiln.experiments.runs.train(data, mmiln.Model("mosi", **TINY), tmp_path, epochs=1, progress=False)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "Trained on synthetic: train part 16 utterances, valid part 8 utterances." in card
    assert data.fingerprint() in card
    loaded = mmiln.Model.from_pretrained(tmp_path)
    assert loaded.trained == run.model.trained
    loaded.save_pretrained(tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text(encoding="utf-8") == card


def test_a_card_without_a_run(tmp_path: Path) -> None:
    mmiln.Model("mosi", **configs.tiny()).save_pretrained(tmp_path)
    assert "It was not trained, or where is not known." in (tmp_path / "README.md").read_text()
    assert "trained" not in json.loads((tmp_path / "config.json").read_text())
    assert mmiln.Model.from_pretrained(tmp_path).trained is None


@pytest.mark.parametrize("value", [3, {"epoch": "last"}, {"sizes": {"train": -1}}])
def test_a_record_that_is_none(value: Any, tmp_path: Path) -> None:
    mmiln.Model("mosi", **configs.tiny()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"trained": value}))
    with pytest.raises(ConfigError, match=r"config\.json: .*(trained|epoch)"):
        mmiln.Model.from_pretrained(tmp_path)
