"""Batches with the lengths of CMU-MOSI and CMU-MOSEI."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference import batches

# Frames of an utterance: mean and longest, of text, audio and vision.
MOSI = {"text": (15, 50), "audio": (39, 375), "vision": (43, 500)}
MOSEI = {"text": (24, 50), "audio": (180, 500), "vision": (180, 500)}
SMALL = {"text": (5, 12), "audio": (7, 20), "vision": (8, 25)}

Batch = dict[str, Any]


def ragged(
    config: Mapping[str, Any],
    lengths: Mapping[str, tuple[int, int]],
    sizes: Sequence[int],
    bert: Mapping[str, Any] | None = None,
) -> list[Batch]:
    """Batches of these sizes over one dataset; values and labels that float32 holds.

    Lengths are log-normal. Batches of one size have nearly as many frames, so that they share a shape.
    """
    rng = np.random.default_rng(0)
    out, start = [], 0
    for number, size in enumerate(sizes):
        drawn = {
            m: _with_sum(rng.lognormal(np.log(mean) - 0.2, 0.65, size), mean * size + number, most)
            for m, (mean, most) in lengths.items()
        }
        batch = batches.random_batch(config, drawn, number, bert)
        for name, value in batch.items():
            if name == "labels":
                batch[name] = value.float()
            elif name != "text_bert":
                batch[name] = [u.float() for u in value]
        out.append({**batch, "index": np.arange(start, start + size)})
        start += size
    return out


def _with_sum(lengths: NDArray[np.float64], total: int, most: int) -> list[int]:
    """Whole lengths from 1 to `most` near the given ones, that add up."""
    whole = lengths.round().clip(1, most).astype(int)
    while (missing := total - int(whole.sum())) != 0:
        free = np.flatnonzero((whole < most) if missing > 0 else (whole > 1))[: abs(missing)]
        whole[free] += np.sign(missing)
    return whole.tolist()
