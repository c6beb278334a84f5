"""Batches of MMSA's own loader: read as its files are, whatever lengths it tells."""

from __future__ import annotations

import pickle
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset, default_collate

import mmiln
from mmiln.data import Split, collate, load
from mmiln.errors import BatchError, DataError, DataWarning
from reference import configs
from support import small_bert
from support.mmsa import MMDataset, part
from support.training_checks import same_weights

SENTENCES = ["good film", "the film was very bad", "good good film"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_bert.write(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def tokens(bert: Path) -> list[np.ndarray]:
    encoder = mmiln.Model("mosi", text_encoder=bert, **configs.tiny(text_dim=8)).encoder
    assert encoder is not None
    return [each.numpy() for each in encoder.tokenizer.tokenize(SENTENCES)]


def content(tokens: list[np.ndarray], *, aligned: bool) -> dict[str, Any]:
    parts = {name: part(name, count, tokens, aligned=aligned) for name, count in (("train", 9), ("test", 5))}
    for fields in parts.values():
        fields["raw_text"] = np.array([SENTENCES[i % 3] for i in range(len(fields["id"]))])
    return parts


def model(bert: Path | None) -> mmiln.Model:
    widths = {"text_dim": 8} if bert else {"text_dim": 6}
    widths |= {"audio_dim": 3, "vision_dim": 4}
    return mmiln.Model("mosi", text_encoder=bert, batch_size=4, **configs.tiny(**widths))


def said(use_bert: bool, stale: bool = False) -> AbstractContextManager[Any]:
    """The one warning that is expected, if any."""
    parts = ["no lengths of text"] * (not use_bert) + ["audio and vision are means over time"] * stale
    return pytest.warns(DataWarning, match=".*".join(parts)) if parts else nullcontext()


@pytest.mark.parametrize("use_bert", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
def test_the_same_as_from_the_file(
    aligned: bool, use_bert: bool, bert: Path, tokens: list[np.ndarray], tmp_path: Path
) -> None:
    parts = content(tokens, aligned=aligned)
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(parts))
    read = load(tmp_path / "data.pkl")
    ours, theirs = (model(bert if use_bert else None) for _ in range(2))
    datasets = {n: MMDataset(p, aligned=aligned, use_bert=use_bert) for n, p in parts.items()}
    ours.fit(DataLoader(read.train, batch_size=4), epochs=2, progress=False)
    with said(use_bert):
        theirs.fit(DataLoader(datasets["train"], batch_size=4), epochs=2, progress=False)
    assert same_weights(ours, theirs)
    loader = DataLoader(datasets["test"], batch_size=2, shuffle=True)
    with said(use_bert):
        predictions = theirs.predict(loader)
    np.testing.assert_array_equal(predictions.score, ours.predict(read.test).score)
    assert predictions.id == read.test.id
    with said(use_bert):
        assert theirs.evaluate(loader).mae == ours.evaluate(read.test).mae
    with said(use_bert):
        split = Split.from_items(datasets["test"])
    for name in split.fields:
        for got, expected in zip(getattr(split, name), getattr(read.test, name), strict=True):
            np.testing.assert_array_equal(got, expected)
    assert split.labels is not None
    np.testing.assert_array_equal(split.labels, read.test.labels)


@pytest.mark.parametrize("use_bert", [False, True])
@pytest.mark.parametrize("aligned", [False, True])
def test_means_over_time_are_one_frame(
    aligned: bool, use_bert: bool, bert: Path, tokens: list[np.ndarray]
) -> None:
    """With need_normalized lengths are those from before the mean."""
    fields = content(tokens, aligned=aligned)["train"]
    dataset = MMDataset(fields, aligned=aligned, use_bert=use_bert, need_normalized=True)
    with said(use_bert, stale=not aligned):
        split = Split.from_items(dataset)
    assert split.lengths("audio").tolist() == split.lengths("vision").tolist() == [1] * 9
    assert split.lengths("text").tolist() == [tokens[i % 3].shape[1] for i in range(9)]
    np.testing.assert_allclose(split.audio[2][0], fields["audio"][2].mean(axis=0), rtol=1e-5)
    trained = model(bert if use_bert else None)
    with said(use_bert, stale=not aligned):
        trained.fit(DataLoader(dataset, batch_size=4, shuffle=True), epochs=1, progress=False)


def test_one_item_one_batch_and_other_ways_to_hand_them_over(tokens: list[np.ndarray]) -> None:
    dataset = MMDataset(content(tokens, aligned=True)["test"], aligned=True)
    trained = model(None)
    with said(use_bert=False):
        whole = trained.predict(DataLoader(dataset, batch_size=5)).score
    for some, given in [
        (whole[:1], dataset[0]),
        (whole, default_collate(list(dataset))),
        (whole, list(dataset)),
        (whole, DataLoader(dataset, batch_size=2, collate_fn=collate)),
        (whole[1:3], DataLoader(Subset(dataset, [1, 2]), batch_size=2)),
    ]:
        with said(use_bert=False):
            np.testing.assert_array_equal(trained.predict(given).score, some)
    with said(use_bert=False):
        np.testing.assert_array_equal(
            trained.predict({"test": DataLoader(dataset, batch_size=2)}).score, whole
        )
    with said(use_bert=False):
        assert len(trained.forward(default_collate(list(dataset)))["y_multimodal"]) == 5


def test_all_that_mmsa_s_function_returns(tokens: list[np.ndarray]) -> None:
    """It returns loaders by part."""
    train, valid = (MMDataset(part(name, 9, tokens, aligned=False), aligned=False) for name in ("a", "b"))
    loaders = {"train": DataLoader(train, batch_size=4), "valid": DataLoader(valid, batch_size=4)}
    together, apart = model(None), model(None)
    with said(use_bert=False):
        history = together.fit(loaders, epochs=2, progress=False)
    with said(use_bert=False):
        apart.fit(loaders["train"], loaders["valid"], epochs=2, progress=False)
    assert same_weights(together, apart)
    assert history["valid_mae"] == apart.history_["valid_mae"]
    with pytest.raises(DataError, match="this has no test part, but train and valid: give one of these"):
        together.predict(loaders)


@pytest.mark.parametrize(
    "change",
    [
        {"index": None},
        {"labels": torch.zeros(5)},
        {"labels": {"M": torch.zeros(5)}},
        {"raw_text": None, "id": None},
    ],
)
def test_other_padded_batches_need_lengths(tokens: list[np.ndarray], change: dict[str, Any]) -> None:
    """Only what has exactly the keys and shapes of MMSA's is guessed at."""
    batch = default_collate(list(MMDataset(content(tokens, aligned=True)["test"], aligned=True))) | change
    batch = {key: value for key, value in batch.items() if value is not None}
    with pytest.raises(BatchError, match="text is a padded array, so text_lengths is needed"):
        model(None).predict(batch)


def test_the_warning_is_shown_once(tokens: list[np.ndarray]) -> None:
    dataset = MMDataset(content(tokens, aligned=True)["train"], aligned=True)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        model(None).fit(DataLoader(dataset, batch_size=2), epochs=2, progress=False)
    assert [warning.category for warning in shown] == [DataWarning]


def test_impossible_tokens_are_an_error_of_the_batch(bert: Path, tokens: list[np.ndarray]) -> None:
    fields = content(tokens, aligned=False)["test"]
    fields["text_bert"][1, 1, :] = 0
    loader = DataLoader(MMDataset(fields, aligned=False, use_bert=True), batch_size=5)
    with pytest.raises(BatchError, match="one unbroken run of ones"):
        model(bert).predict(loader)
