"""The measures as MMSA's evaluation (`MetricsTop`, regression) computes them, in plain numpy.

It works on float32 arrays as they leave the network. Cuts such as 0.1 are compared in float64; in MMSA itself
numpy rounds them to the type of the array, which matters for scores that equal a cut in float32 alone. Its
rounding to four digits is left out here.
"""

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

Singles = NDArray[np.float32]


def mosi(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """Its measures for CMU-MOSI, which are those for CMU-MOSEI too."""
    y, p = np.asarray(truth, np.float32), np.asarray(prediction, np.float32)
    rated = y != 0
    return {
        "has0_acc2": accuracy(y >= 0, p >= 0),
        "has0_f1": weighted_f1(y >= 0, p >= 0),
        "non0_acc2": accuracy(y[rated] > 0, p[rated] > 0),
        "non0_f1": weighted_f1(y[rated] > 0, p[rated] > 0),
        "acc7": accuracy(np.round(np.clip(y, -3, 3)), np.round(np.clip(p, -3, 3))),
        "acc5": accuracy(np.round(np.clip(y, -2, 2)), np.round(np.clip(p, -2, 2))),
        **errors(y, p),
    }


def sims(truth: ArrayLike, prediction: ArrayLike) -> dict[str, float]:
    """Its measures for CH-SIMS."""
    y, p = (np.clip(np.asarray(side, np.float32), -1, 1) for side in (truth, prediction))
    two, three, five = (
        (intervals(y, bounds), intervals(p, bounds))
        for bounds in ([-1.01, 0, 1.01], [-1.01, -0.1, 0.1, 1.01], [-1.01, -0.7, -0.1, 0.1, 0.7, 1.01])
    )
    return {
        "acc2": accuracy(*two),
        "acc3": accuracy(*three),
        "acc5": accuracy(*five),
        "f1": weighted_f1(*two),
        **errors(y, p),
    }


def intervals(scores: Singles, bounds: list[float]) -> Singles:
    """The number of the interval (lower, upper] that each score lies in."""
    found, exact = np.full_like(scores, -1), scores.astype(np.float64)
    for number, (lower, upper) in enumerate(itertools.pairwise(bounds)):
        found[(exact > lower) & (exact <= upper)] = number
    assert (found >= 0).all()
    return found


def accuracy(truth: NDArray[np.generic], prediction: NDArray[np.generic]) -> float:
    return float(np.mean(truth == prediction))


def weighted_f1(truth: NDArray[np.generic], prediction: NDArray[np.generic]) -> float:
    """F1 of each class, weighted by how often it is true; 0 where precision and recall are."""
    total = 0.0
    for name in np.union1d(truth, prediction):
        hits = np.sum((truth == name) & (prediction == name))
        precision, recall = (hits / max(np.sum(side == name), 1) for side in (prediction, truth))
        if hits:
            total += np.sum(truth == name) * 2 * precision * recall / (precision + recall)
    return float(total / len(truth))


def errors(y: Singles, p: Singles) -> dict[str, float]:
    return {"mae": float(np.mean(np.abs(p - y))), "corr": float(np.corrcoef(p, y)[0, 1])}
