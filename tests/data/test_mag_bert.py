"""MAG-BERT's pickle: {train, dev, test: lists of ((words, visual, acoustic), label, segment)}."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmiln.data import load
from mmiln.errors import DataError

VISION, AUDIO = 47, 74


def _samples(part: str, count: int, columns: int = 1) -> list[Any]:
    rng = np.random.default_rng(len(part))
    samples = []
    for i in range(count):
        words = ["so", "very", "good"][: 1 + i % 3]
        frames = (rng.normal(size=(len(words), VISION)), rng.normal(size=(len(words), AUDIO)))
        samples.append(((words, *frames), rng.uniform(-3, 3, (1, columns)), f"{part}video[{i}]"))
    return samples


def _write(folder: Path, columns: int = 1) -> tuple[Path, dict[str, list[Any]]]:
    content = {part: _samples(part, n, columns) for part, n in (("train", 6), ("dev", 2), ("test", 3))}
    (folder / "mosi.pkl").write_bytes(pickle.dumps(content))
    return folder / "mosi.pkl", content


def test_words_vision_and_audio_are_told_apart(tmp_path: Path) -> None:
    path, content = _write(tmp_path)
    data = load(path)
    assert data.dims == {"text": 0, "audio": AUDIO, "vision": VISION}
    assert [*data.splits] == ["train", "valid", "test"]
    for split, samples in zip(data.splits.values(), content.values(), strict=True):
        for utterance, ((words, visual, acoustic), label, segment) in zip(split, samples, strict=True):
            assert utterance["id"] == segment
            assert utterance["raw_text"] == " ".join(words)
            assert utterance["labels"] == pytest.approx(label.item())
            np.testing.assert_array_equal(utterance["vision"], visual.astype(np.float32))
            np.testing.assert_array_equal(utterance["audio"], acoustic.astype(np.float32))


def test_of_several_columns_none_is_taken_unasked(tmp_path: Path) -> None:
    path, content = _write(tmp_path, columns=7)
    with pytest.raises(DataError, match=r"train: labels have 7 columns.* target=, a number from 0 to 6"):
        load(path)
    expected = [label[0, 4] for _, label, _ in content["test"]]
    np.testing.assert_allclose(load(path, target=4).test.labels, expected, rtol=1e-6)


@pytest.mark.parametrize("words", [[1, 2], np.arange(2), [None]])
def test_word_ids_are_no_words(words: object, tmp_path: Path) -> None:
    samples = _samples("train", 3)
    samples[1] = ((words, *samples[1][0][1:]), *samples[1][1:])
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"train": samples}))
    with pytest.raises(DataError, match=r"or MAG-BERT's .* sample 1 is of another form"):
        load(tmp_path / "x.pkl")
