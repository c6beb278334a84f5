"""A small file in MMSA's format with three parts: text features, audio, no vision."""

import pickle
from pathlib import Path

import numpy as np

SIZES = {"train": 24, "valid": 8, "test": 9}


def write(path: Path, sizes: dict = SIZES) -> Path:
    """Writes it to ``path`` and returns that."""
    path.write_bytes(pickle.dumps(content(sizes)))
    return path


def content(sizes: dict = SIZES) -> dict:
    """What the file holds."""
    rng = np.random.default_rng(0)

    def part(name: str, n: int) -> dict:
        lengths = rng.integers(1, 7, n)
        labels = rng.uniform(-3, 3, n)
        audio = rng.normal(5, 3, (n, 6, 4)) * (np.arange(6) < lengths[:, None])[..., None]
        return {
            "id": [f"{name}{i // 4}$_${i}" for i in range(n)],
            "raw_text": ["words"] * n,
            "text": rng.normal(size=(n, 5, 8)).astype(np.float32),
            "audio": audio,
            "audio_lengths": lengths.tolist(),
            "regression_labels": labels,
        }

    return {name: part(name, size) for name, size in sizes.items()}


def write_misa(folder: Path, sizes: dict = SIZES) -> Path:
    """Writes parts in MISA's format, audio and vision of words, to an existing folder."""
    rng = np.random.default_rng(0)
    for name, n in sizes.items():
        samples = []
        for i in range(n):
            words = int(rng.integers(2, 6))
            frames = (
                np.arange(words),
                rng.normal(size=(words, 3)),
                rng.normal(size=(words, 4)),
                ["word"] * words,
            )
            samples.append((frames, np.array([[rng.uniform(-3, 3)]]), f"{name}_{i // 4}[{i}]"))
        stem = "dev" if name == "valid" else name
        (folder / f"{stem}.pkl").write_bytes(pickle.dumps(samples))
    return folder
