"""What fit, predict and evaluate take beside splits and loaders, where the meaning is plain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, SubsetRandomSampler, random_split

import mmiln
from mmiln.data import Dataset, Split, synthetic
from mmiln.errors import BatchError, ConfigError, DataError, DataWarning
from reference import configs
from support import small_bert
from support.small_runs import build
from support.training_checks import same_weights

FEW: dict[str, Any] = {"epochs": 2, "progress": False}
SENTENCES = ["good film", "the film was very bad"]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return synthetic(24, 8, 9)


@pytest.fixture(scope="module")
def fitted(data: Dataset) -> mmiln.Model:
    model = build()
    model.fit(data.train, data.valid, **FEW)
    return model


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> mmiln.Model:
    """A model of sentences alone."""
    bert = small_bert.write(tmp_path_factory.mktemp("bert"))
    return mmiln.Model("mosi", text_encoder=bert, **configs.tiny(text_dim=8, audio_dim=0, vision_dim=0))


def table(split: Split) -> pd.DataFrame:
    return split.to_pandas(arrays=True)


def test_a_dataset_is_trained_on_its_train_part_and_validated_on_its_own(
    data: Dataset, fitted: mmiln.Model
) -> None:
    model = build()
    history = model.fit(data, **FEW)
    assert same_weights(model, fitted)
    assert history["valid_mae"] == fitted.history_["valid_mae"]
    assert build().fit(data, data.test, **FEW)["valid_mae"] != history["valid_mae"]
    assert build().fit(data.train, data, **FEW)["valid_mae"] == history["valid_mae"]


def test_a_dataset_is_measured_on_its_test_part_or_the_only_one(data: Dataset, fitted: mmiln.Model) -> None:
    assert fitted.predict(data).id == data.test.id
    assert fitted.evaluate(data).mae == fitted.evaluate(data.test).mae
    assert fitted.predict(Dataset(valid=data.valid, name="one")).id == data.valid.id
    two = Dataset(data.train, data.valid, name="two")
    with pytest.raises(DataError, match="two has no test part, but train and valid: give one of these"):
        fitted.predict(two)
    with pytest.raises(DataError, match="one has no train part"):
        build().fit(Dataset(valid=data.valid, name="one"), **FEW)
    with pytest.raises(DataError, match="none has no valid part, but train and test"):
        build().fit(data.train, Dataset(data.train, test=data.test, name="none"), **FEW)


def test_tables(data: Dataset, fitted: mmiln.Model) -> None:
    model = build()
    model.fit(table(data.train), table(data.valid), **FEW)
    assert same_weights(model, fitted)
    expected = fitted.predict(data.test).score
    np.testing.assert_array_equal(
        model.predict(table(data.test).rename(columns={"label": "labels"})), expected
    )
    np.testing.assert_array_equal(model.predict(table(data.test).drop(columns="label")), expected)
    assert model.evaluate(table(data.test)).mae == fitted.evaluate(data.test).mae
    by_part = build()
    by_part.fit({name: table(split) for name, split in data.splits.items()}, **FEW)
    assert same_weights(by_part, fitted)


def test_labels_of_a_table_are_in_the_range_of_the_model(data: Dataset) -> None:
    frame = table(data.train).assign(label=lambda frame: frame["label"].abs() + 1)
    with pytest.raises(DataError, match=r"expected finite labels in \[-3, 3\]"):
        build().fit(frame, **FEW)
    model = build(label_range=(1, 5))
    model.fit(frame, **FEW)
    assert model.evaluate(frame).mae < 3
    with pytest.raises(ConfigError, match=r"this model's labels lie in \[1, 5\]"):
        model.evaluate(data.test)


def test_utterances(data: Dataset, fitted: mmiln.Model) -> None:
    model = build()
    model.fit(list(data.train), tuple(data.valid), **FEW)
    assert same_weights(model, fitted)
    expected = fitted.predict(data.test).score
    np.testing.assert_array_equal(fitted.predict(list(data.test)).score, expected)
    bare = [{name: torch.tensor(item[name]) for name in ("text", "audio", "vision")} for item in data.test]
    np.testing.assert_array_equal(fitted.predict(bare).score, expected)
    np.testing.assert_array_equal(fitted.predict(bare[3]).score, expected[3:4])
    np.testing.assert_array_equal(fitted.predict(Subset(data.test, [3, 1])).score, expected[[3, 1]])
    both = ConcatDataset([data.test, Subset(data.test, [2])])
    np.testing.assert_array_equal(fitted.predict(both).score, expected[[*range(9), 2]])


def test_a_split_without_labels(data: Dataset, fitted: mmiln.Model) -> None:
    split = Split(data.test.id, text=data.test.text, audio=data.test.audio, vision=data.test.vision)
    assert fitted.predict(split).label is None
    with pytest.raises(BatchError, match="evaluation needs labels in every batch"):
        fitted.evaluate(split)


def test_sentences(reader: mmiln.Model) -> None:
    expected = reader.predict(Split(["0", "1"], raw_text=SENTENCES))
    for given in (SENTENCES, tuple(SENTENCES), np.array(SENTENCES), np.array(SENTENCES, object)):
        np.testing.assert_array_equal(reader.predict(given).score, expected.score)
    assert reader.predict(SENTENCES).id == ["0", "1"]
    assert reader.predict("good film").score == pytest.approx(expected.score[:1], abs=1e-6)
    series = reader.predict(pd.Series(SENTENCES, index=["x", "y"], name="review"))
    assert series.id == ["x", "y"]
    frame = pd.DataFrame({"text": SENTENCES, "labels": [1.0, -1.0]})
    np.testing.assert_array_equal(reader.predict(frame).score, expected.score)
    assert reader.evaluate(frame).n == 2
    reader.fit(frame, **FEW)
    with pytest.raises(BatchError, match="the batch has no labels"):
        reader.fit(SENTENCES, **FEW)


def test_sentences_for_other_models(fitted: mmiln.Model, tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="to use its raw_text, build the model with text_encoder="):
        fitted.predict("I loved it.")
    bert = small_bert.write(tmp_path)
    model = mmiln.Model("mosi", text_encoder=bert, **configs.tiny(text_dim=8))
    with pytest.raises(BatchError, match=r"no 'audio' and 'vision', .*missing=\"zeros\""):
        model.predict(SENTENCES)
    assert len(model.predict(SENTENCES, missing="zeros")) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_s_own_collate_function(data: Dataset, fitted: mmiln.Model, workers: int) -> None:
    """A DataLoader of a split needs no collate_fn: its batches are padded and have lengths."""

    def loader(**how: Any) -> DataLoader:
        generator = torch.Generator().manual_seed(3)
        return DataLoader(
            data.train, batch_size=7, shuffle=True, generator=generator, num_workers=workers, **how
        )

    models = build(), build()
    models[0].fit(loader(), data.valid, **FEW)
    models[1].fit(loader(collate_fn=mmiln.data.collate), data.valid, **FEW)
    assert same_weights(*models)
    some = DataLoader(Subset(data.test, [3, 8]), batch_size=2, num_workers=workers)
    (batch,) = some
    assert batch["audio"].shape == (2, max(map(len, (data.test.audio[3], data.test.audio[8]))), 5)
    assert batch["audio_lengths"].tolist() == [len(data.test.audio[3]), len(data.test.audio[8])]
    assert batch["labels"]["M"].tolist() == data.test.labels[[3, 8]].tolist()
    np.testing.assert_array_equal(fitted.predict(some).score, fitted.predict(data.test).score[[3, 8]])
    both = DataLoader(ConcatDataset([Subset(data.test, [3]), data.valid]), batch_size=2)
    assert next(iter(both))["id"] == [data.test.id[3], data.valid.id[0]]


def test_tokens_of_torch_s_own_collate_function(reader: mmiln.Model) -> None:
    tokens = [each.numpy() for each in reader.encoder.tokenizer.tokenize(SENTENCES)]
    split = Split(["a", "b"], [1.0, -1.0], raw_text=SENTENCES, text_bert=tokens)
    (batch,) = DataLoader(split, batch_size=2)
    assert batch["text_bert"].shape == (2, 3, max(each.shape[1] for each in tokens))
    np.testing.assert_array_equal(reader.predict(batch).score, reader.predict(split).score)


def shared(train: Any, valid: Any) -> None:
    build(num_layers=1).fit(train, valid, epochs=1, progress=False)


def test_the_same_utterances_in_training_and_validation(data: Dataset) -> None:
    train = data.train
    some = train.subset(range(4)) + data.valid
    for valid in (
        some,
        DataLoader(some, batch_size=4),
        Subset(train, [3, 2, 1, 0]),
        DataLoader(Subset(train, range(4))),
    ):
        with pytest.warns(DataWarning, match="4 of .* ids in validation are in training too, 'train000"):
            shared(DataLoader(train, batch_size=8, shuffle=True), valid)
    with pytest.warns(DataWarning, match=r"24 of 24 ids .*, 'train000\$_\$0', .*, \.\.\.: validation tells"):
        shared(train, train)


def test_other_utterances_in_training_and_validation(data: Dataset) -> None:
    """Parts of one split, and rows of two tables that are numbered alike, are not the same utterances."""
    first, second = random_split(data.train, [16, 8], generator=torch.Generator().manual_seed(0))
    shared(DataLoader(first, batch_size=8), DataLoader(second, batch_size=8))
    samplers = SubsetRandomSampler(range(16)), SubsetRandomSampler(range(16, 24))
    shared(*(DataLoader(data.train, batch_size=8, sampler=sampler) for sampler in samplers))
    shared(*(table(split).drop(columns="id") for split in (data.train, data.valid)))
    numbered = table(data.train).drop(columns="id")
    with pytest.warns(DataWarning, match="8 of 8 ids .*, '0', '1', '2', "):
        shared(numbered, numbered[:8])
    alike = table(data.valid).drop(columns="id")
    alike.loc[:1, "label"] = numbered.loc[
        :1, "label"
    ].to_numpy()  # the same labels in the same rows by chance
    shared(numbered, alike)
