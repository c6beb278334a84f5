"""Small computational sequences, as the CMU-MultimodalSDK writes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Entries = Mapping[str, tuple[Any, Any]]  # by video: features (n, w), intervals (n, 2)
VIDEOS = ("03bSnISJMiM", "0h-zjBukYpk", "1DmNV9C1hbY", "WKA5OygbEKI", "c7UH_rxdZv4")  # train, valid, test


def write(path: Path, name: str, entries: Entries) -> None:
    """Writes a sequence."""
    with h5py.File(path, "w") as file:
        root = file.create_group(name)
        data = root.create_group("data")
        for video, (features, intervals) in entries.items():
            group = data.create_group(video)
            group.create_dataset("features", data=features, compression="gzip", compression_opts=9)
            group.create_dataset("intervals", data=intervals, compression="gzip", compression_opts=9)
        metadata = root.create_group("metadata")
        metadata.create_dataset("root name", (1,), dtype=h5py.string_dtype())[0] = json.dumps(name)


def steady(frames: Any, every: float) -> tuple[Any, Any]:
    """Frames at a steady rate."""
    starts = np.arange(len(frames)) * every
    return frames, np.stack([starts, starts + every], axis=1)


def mosi(columns: int = 1) -> dict[str, tuple[str, dict[str, tuple[Any, Any]]]]:
    """Files by name, with a sequence's name and entries: videos of ten seconds with two segments each."""
    rng = np.random.default_rng(0)
    files: dict[str, tuple[str, dict[str, tuple[Any, Any]]]] = {
        "CMU_MOSI_TimestampedWords.csd": ("words", {}),
        "CMU_MOSI_TimestampedWordVectors.csd": ("glove_vectors", {}),
        "CMU_MOSI_COVAREP.csd": ("COVAREP", {}),
        "CMU_MOSI_Visual_Facet_42.csd": ("FACET_4.2", {}),
        "CMU_MOSI_Opinion_Labels.csd": ("Opinion Segment Labels", {}),
    }
    words, vectors, audio, vision, labels = (entries for _, entries in files.values())
    for video in VIDEOS:
        said = np.array([[b"sp"], [b"so"], [b"very"], [b"sp"], [b"good"], [b"film"]])
        times = np.array([[0, 1.2], [1.2, 1.5], [1.5, 2.37], [2.37, 6], [6, 6.5], [6.5, 9]])
        words[video] = said, times
        vectors[video] = rng.normal(size=(6, 3)), times
        audio[video] = steady(rng.normal(size=(1000, 4)), 0.01)
        vision[video] = steady(rng.normal(size=(300, 2)), 1 / 30)
        labels[video] = rng.uniform(0, 3, (2, columns)), np.array([[1.0, 3.0], [5.5, 9.5]])
    return files


def write_all(folder: Path, files: Mapping[str, tuple[str, Entries]]) -> Path:
    """Writes several sequences to a folder, and returns that."""
    folder.mkdir(exist_ok=True)
    for name, (root, entries) in files.items():
        write(folder / name, root, entries)
    return folder
