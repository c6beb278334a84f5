"""Labels that people gave to audio and vision alone: trained on, or compared with pseudo-labels."""

from typing import Any

import numpy as np
import pytest
import torch

import mmiln
from mmiln import plotting
from mmiln.errors import BatchError, StateError
from mmiln.experiments.runs import shuffle_labels
from reference import configs
from support.training_checks import Batch, small, some_batches, with_human_labels


@pytest.fixture
def data() -> list[Batch]:
    return with_human_labels(some_batches(configs.tiny()))


def human(**changes: Any) -> mmiln.Model:
    return small(unimodal_labels="human", **changes)


def test_no_pseudo_labels_are_kept_and_no_index_is_needed(data: list[Batch]) -> None:
    for batch in data:
        del batch["index"]
    model = human()
    history = model.fit(Unsized(data), data, epochs=2, progress=False)
    assert not [name for name in history if name.startswith("pseudo_")]
    with pytest.raises(StateError, match="there are no pseudo-labels"):
        model.pseudo_labels  # noqa: B018


class Unsized:
    """A loader whose size nobody knows."""

    def __init__(self, data: list[Batch]) -> None:
        self.data = data

    def __iter__(self) -> Any:
        return iter(self.data)


def test_labels_of_one_modality_change_what_its_head_learns(data: list[Batch]) -> None:
    other = [{**batch, "labels": {**batch["labels"], "A": -batch["labels"]["A"]}} for batch in data]
    found = []
    for given in (data, other):
        model = human()
        model.fit(given, epochs=1, progress=False)
        found.append(model.state_dict())
    name = "heads.audio.linear3.bias"
    assert not torch.equal(found[0][name], found[1][name])


@pytest.mark.parametrize(("key", "name"), [("A", "audio"), ("V", "vision")])
def test_what_is_missing_is_told(data: list[Batch], key: str, name: str) -> None:
    del data[1]["labels"][key]
    with pytest.raises(BatchError, match=f'unimodal_labels="human" needs labels of {name} in every batch'):
        human().fit(data, epochs=1, progress=False)


def test_a_modality_that_is_left_out_needs_no_labels(data: list[Batch]) -> None:
    for batch in data:
        del batch["labels"]["A"]
    human(audio_dim=0).fit(data, epochs=1, progress=False)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (torch.tensor([0.0, 4.0]), r"labels must lie in \[-3, 3\]"),
        (torch.tensor([0.0, torch.nan]), "labels of audio: utterance 1 of the batch has the label NaN"),
        (torch.tensor([0.0]), "labels_audio 1"),
    ],
)
def test_labels_that_can_not_be_used(data: list[Batch], label: torch.Tensor, said: str) -> None:
    data[1]["labels"]["A"] = label
    with pytest.raises(BatchError, match=said):
        human().fit(data, epochs=1, progress=False)
    small().fit(data[:1], epochs=1, progress=False)


def test_scoring_needs_no_labels_of_one_modality(data: list[Batch]) -> None:
    model = human()
    plain = [{**batch, "labels": batch["labels"]["M"]} for batch in data]
    model.fit(data, plain, epochs=1, progress=False)
    assert model.evaluate(plain) == model.evaluate(data)
    unlabelled = [{k: v for k, v in batch.items() if k != "labels"} for batch in data]
    np.testing.assert_array_equal(model.predict(unlabelled).score, model.predict(data).score)


def test_a_saved_model_knows_the_option(data: list[Batch], tmp_path: Any) -> None:
    model = human()
    model.fit(data, epochs=1, progress=False)
    model.save_pretrained(tmp_path)
    again = mmiln.Model.from_pretrained(tmp_path)
    assert again.config.train["unimodal_labels"] == "human"


# Pseudo-labels against them


def test_pseudo_labels_are_compared_with_them_after_each_epoch(data: list[Batch]) -> None:
    kept = mmiln.callbacks.PseudoLabels()
    history = small().fit(data, epochs=4, callbacks=[kept], progress=False)
    for name, key in (("audio", "A"), ("vision", "V")):
        people = np.concatenate([batch["labels"][key] for batch in data])
        for epoch, ours in enumerate(kept.labels_[name]):
            assert history[f"pseudo_mae_{name}"][epoch] == pytest.approx(np.abs(ours - people).mean())
            r = np.corrcoef(ours, people)[0, 1]
            assert history[f"pseudo_corr_{name}"][epoch] == pytest.approx(r)
        assert len(set(history[f"pseudo_mae_{name}"])) > 1


def test_data_without_them_have_no_such_measure() -> None:
    history = small().fit(some_batches(configs.tiny()), epochs=1, progress=False)
    assert "pseudo_shift_audio" in history
    assert not [name for name in history if name.startswith(("pseudo_mae", "pseudo_corr"))]
    with pytest.raises(StateError, match="no labels of single modalities"):
        plotting.pseudo_labels_against_human(history)


def test_a_split_with_such_labels_is_compared_in_its_own_unit() -> None:
    data = mmiln.data.synthetic(24, 8, 8)
    train = data.train
    rated = mmiln.data.Split(
        train.id,
        1 + (train.truth + 3) * 2 / 3,
        text=train.text,
        audio=train.audio,
        vision=train.vision,
        label_range=mmiln.labels.LabelRange(1, 5),
        unimodal_labels={"audio": np.full(24, 5.0), "vision": 1 + (train.truth + 3) * 2 / 3},
    )
    model = mmiln.Model("mosi", num_layers=1, d_model=8, num_heads=2)
    history = model.fit(rated, epochs=1, progress=False)
    assert history["pseudo_mae_audio"] == pytest.approx([np.mean(5 - rated.truth)], abs=1e-5)
    assert history["pseudo_mae_vision"] == pytest.approx([0], abs=1e-5)
    assert history["pseudo_corr_vision"] == pytest.approx([1])
    assert np.isnan(history["pseudo_corr_audio"]).all()  # everyone said the same


def test_a_control_on_permuted_labels_has_no_other_label_in_its_place() -> None:
    data = mmiln.data.synthetic(24, 8, 8)
    truth = data.train.truth.copy()
    data.train.unimodal_labels = {"audio": -truth, "vision": truth / 2}
    shuffle_labels(data, seed=1)
    assert (data.train.truth != truth).any()
    assert sorted(data.train.truth) == sorted(truth)
    np.testing.assert_array_equal(data.train.unimodal_labels["audio"], -data.train.truth)
    np.testing.assert_array_equal(data.train.unimodal_labels["vision"], data.train.truth / 2)
