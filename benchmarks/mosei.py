"""Writes a pickle of CMU-MOSEI's shapes in MMSA's format row by row, so that it need not fit in memory."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SIZES = {"train": 16326, "valid": 1871, "test": 4659}
WIDTHS = {"audio": 74, "vision": 35}
TOKENS = 50


def write(path: Path, scale: float = 1.0, *, frames: int = 500) -> dict[str, dict[str, Any]]:
    """Writes a share of it, float64 and padded at the end; returns everything but the frames.

    A sentence that is long for the text is so for audio and vision, which have 180 frames on average.
    """
    rng = np.random.default_rng(0)
    content = {}
    with path.open("wb") as file:
        file.write(b"\x80\x04}")
        for name, size in SIZES.items():
            content[name] = part = _part(name, max(3, round(size * scale)), frames, rng)
            file.write(_plain(name) + b"}")
            for key, value in part.items():
                file.write(_plain(key) + _plain(value) + b"s")
            for modality, width in WIDTHS.items():
                lengths = part[f"{modality}_lengths"]
                file.write(_plain(modality))
                _write_array(file, (len(lengths), frames, width), _rows(lengths, frames, width, rng))
                file.write(b"s")
            file.write(b"s")
        file.write(b".")
    return content


def _part(name: str, n: int, frames: int, rng: np.random.Generator) -> dict[str, Any]:
    words = rng.lognormal(np.log(20.2), 0.55, n).clip(3, TOKENS - 2).round().astype(int)
    tokens = np.zeros((n, 3, TOKENS))
    tokens[:, 1] = np.arange(TOKENS) < (words + 2)[:, None]  # [CLS] and [SEP]
    tokens[:, 0] = tokens[:, 1] * rng.integers(1000, 30000, (n, TOKENS))
    pace = rng.lognormal(np.log(8.0), 0.2, (2, n)) * frames / 500
    lengths = dict(zip(WIDTHS, (words * pace).clip(1, frames).round().astype(int), strict=True))
    return {
        "id": [f"{name}{i // 5}$_${i}" for i in range(n)],
        "raw_text": [" ".join(["word"] * count) for count in words],
        "regression_labels": rng.uniform(-3, 3, n),
        "text_bert": tokens,
    } | {f"{modality}_lengths": each for modality, each in lengths.items()}


def _rows(lengths: np.ndarray, frames: int, width: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    for length in lengths:
        row = np.zeros((frames, width))
        row[:length] = rng.standard_normal((length, width), np.float32)
        yield row


def _plain(value: Any) -> bytes:
    """The pickle instructions of a value, without those that begin and end a pickle."""
    return pickle.dumps(value, 3)[2:-1]


def _write_array(file: BinaryIO, shape: tuple[int, ...], rows: Iterator[np.ndarray]) -> None:
    """The pickle of a float64 array as numpy writes it, one row at a time."""
    module = np.zeros(0).__reduce__()[0].__module__
    file.write(
        f"c{module}\n_reconstruct\ncnumpy\nndarray\n".encode() + _plain((0,)) + _plain(b"b") + b"\x87R"
    )
    file.write(b"(" + _plain(1) + _plain(shape) + _plain(np.dtype("f8")) + _plain(False))
    file.write(b"\x8e" + (8 * int(np.prod(shape))).to_bytes(8, "little"))
    for row in rows:
        file.write(row.data)
    file.write(b"tb")
