"""Sequences whose arrays are made when they are asked for: the same arrays, however they are reached."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from mmiln.data.sequences import Chosen, Joined, Mapped, Padded, Ragged, Stored, StoredTokens

LENGTHS = np.array([3, 1, 4, 2])
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)
OFFSETS = np.array([0, 3, 4, 8, 10])
TRUE = np.split(ROWS, OFFSETS[1:-1])


@pytest.fixture
def stored(tmp_path: Path) -> Stored:
    np.save(tmp_path / "rows.npy", ROWS)
    return Stored(tmp_path / "rows.npy", OFFSETS)


def _check(sequence: Ragged, expected: list[np.ndarray]) -> None:
    assert len(sequence) == len(expected)
    assert sequence.lengths.tolist() == [len(array) for array in expected]
    for got in (list(sequence), [sequence[i] for i in range(-len(expected), 0)], list(sequence[:])):
        for array, other in zip(got, expected, strict=True):
            np.testing.assert_array_equal(array, other)
    for beyond in (len(expected), -len(expected) - 1):
        with pytest.raises(IndexError):
            sequence[beyond]


def test_arrays_of_a_file_are_views_that_can_not_be_written_to(stored: Stored) -> None:
    _check(stored, TRUE)
    assert np.shares_memory(stored[2], stored[2])
    assert not stored[0].flags.writeable


def test_a_pickle_of_them_is_the_name_of_the_file(stored: Stored, tmp_path: Path) -> None:
    data = pickle.dumps(stored)
    assert len(data) < 1000
    np.save(tmp_path / "rows.npy", ROWS + 1)
    _check(pickle.loads(data), [array + 1 for array in TRUE])


def test_tokens_lie_the_other_way(stored: Stored, tmp_path: Path) -> None:
    tokens = StoredTokens(tmp_path / "rows.npy", OFFSETS)
    np.testing.assert_array_equal(tokens[2], TRUE[2].T)
    assert tokens.lengths.tolist() == LENGTHS.tolist()


def test_chosen_joined_and_mapped(stored: Stored) -> None:
    chosen = stored.subset([2, 0, 2])
    _check(chosen, [TRUE[2], TRUE[0], TRUE[2]])
    _check(chosen.subset([1, 2]), [TRUE[0], TRUE[2]])
    _check(stored[::-1], TRUE[::-1])
    joined = Joined([stored, chosen, stored.subset([1])])
    _check(joined, [*TRUE, TRUE[2], TRUE[0], TRUE[2], TRUE[1]])
    _check(Mapped(joined, lambda position, array: array * position), [a * i for i, a in enumerate(joined)])
    assert isinstance(pickle.loads(pickle.dumps(Joined([chosen]))), Joined)
    assert isinstance(chosen, Chosen)


@pytest.mark.parametrize("dtype", ["<f8", ">f4", "<f4"])
def test_true_frames_of_padding(dtype: str) -> None:
    padded = np.full((4, 5, 3), np.nan, dtype)
    starts = np.array([2, 0, 1, 3])
    for row, start, true in zip(padded, starts, TRUE, strict=True):
        row[start : start + len(true)] = true
    frames = Padded(padded, starts, LENGTHS)
    _check(frames, TRUE)
    assert all(array.dtype == np.float32 for array in frames)
    for array, expected in zip(frames.read(), TRUE, strict=True):
        np.testing.assert_array_equal(array, expected)
    padded[1, 0, 0] = 1e300 if dtype == "<f8" else np.inf
    assert frames[1][0, 0] == np.inf
