"""What each process of tests/parallel runs: trains in several ways, writes what came of it as JSON.

Started alone, it trains the same in one process.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import mmiln
from mmiln.baselines import Baseline
from mmiln.callbacks import Callback, LearningRate
from mmiln.data import Split, synthetic
from mmiln.training.ranks import Ranks

# 24 optimiser steps in four epochs, each of which ends in a batch of one and a window that is not full.
TINY = {
    "num_layers": 1,
    "d_model": 8,
    "num_heads": 2,
    "batch_size": 3,
    "accumulate": 2,
    "accumulate_mode": "mean",
}
CASES = {
    "as_is": {},
    "sum": {"accumulate_mode": "sum", "accumulate": 4},
    "no_mrm": {"variant": "no_mrm"},
    "text": {"audio_dim": 0, "vision_dim": 0},
    "audio": {"text_dim": 0, "vision_dim": 0},
    "human": {"unimodal_labels": "human"},
    "schedule": {"schedule": LearningRate(lambda epoch: 1 / epoch)},
}


def ways() -> dict[str, dict[str, object]]:
    """Settings by the name of the case; losses over both processes are alone those of larger batches."""
    size = getattr(Ranks.here("cpu"), "size", 1)
    gathered = {"gather_losses": True, "accumulate": 4 if size > 1 else 2, "batch_size": 6 // size}
    parts = ("multimodal", "audio", "vision", "attn", "residual", "embed")
    undropped = {f"{part}_dropout": 0.0 for part in parts}
    return CASES | dict.fromkeys(("gathered", "weighted"), gathered | undropped)


def fit(
    train: Split, valid: Split, schedule: Callback | None = None, **settings: object
) -> dict[str, object]:
    """Weights, pseudo-labels and history of a run in float64."""
    model = mmiln.Model("mosi", dtype="float64", **(TINY | settings))
    callbacks = [] if schedule is None else [schedule]
    history = model.fit(train, valid, epochs=4, patience=9, callbacks=callbacks, progress=False)
    assert model.rates == mmiln.Model("mosi", **(TINY | settings)).rates
    try:
        labels = {name: values.tolist() for name, values in model.pseudo_labels.items()}
    except mmiln.errors.StateError:
        labels = {}
    return {
        "weights": torch.cat([_that_matter(*item) for item in model.state_dict().items()]).tolist(),
        "labels": labels,
        "history": {name: values for name, values in history.items() if name != "seconds"},
    }


def _that_matter(name: str, weight: Tensor) -> Tensor:
    """Weights without the bias of attention's keys, which softmax ignores and only rounding moves."""
    if name.endswith("in_proj_bias"):
        query, _, value = weight.chunk(3)
        weight = torch.cat([query, value])
    return weight.flatten()


def refusals(train: Split, rank: int) -> dict[str, str]:
    """The error messages for unusable settings and data, by name."""
    tiny = {**TINY, "accumulate": 2}
    far = Split(train.id[:12], train.labels[:12], text=[*train.text[:12]])
    far.text[4] = np.full_like(
        far.text[4], 3e38
    )  # of the second batch, that of rank 1: too large to be added up
    huge = list(far.loader(3))
    other = list(train.loader(3, shuffle=True, seed=rank))
    attempts = {
        "accumulate": lambda: mmiln.Model("mosi", **tiny | {"accumulate": 3}).fit(train, progress=False),
        "baseline": lambda: Baseline("text_only").fit(train, progress=False),
        "other batches": lambda: mmiln.Model("mosi", **tiny).fit(other, epochs=1, progress=False),
        "not finite": lambda: mmiln.Model("mosi", audio_dim=0, vision_dim=0, **tiny).fit(
            huge, progress=False
        ),
    }
    said = {}
    for name, attempt in attempts.items():
        try:
            attempt()
        except mmiln.errors.MmilnError as error:
            said[name] = f"{type(error).__name__}: {error}"
    with warnings.catch_warnings(record=True) as warned:
        model = mmiln.Model("mosi", audio_dim=0, vision_dim=0, **tiny)
        history = model.fit(huge, epochs=1, nonfinite="skip", progress=False)
    said["skipped"] = f"{history['skipped_batches']} {[str(warning.message) for warning in warned]}"
    return said


def main(out: Path) -> None:
    """Writes ``<case>.<rank>.json``."""
    torch.set_num_threads(1)
    data = synthetic(31, 11, 5)  # 11 micro-batches of 3, the last of one utterance
    rng = np.random.default_rng(0)
    data.train.unimodal_labels = {name: rng.uniform(-3, 3, 31).astype("f4") for name in ("audio", "vision")}
    rank = getattr(Ranks.here("cpu"), "rank", 0)
    for name, settings in ways().items():
        # With 29 utterances the last round has three in one process and two in the other.
        train = data.train.subset(range(29 if name in ("gathered", "weighted") else 31))
        if name in ("sum", "weighted"):
            train.weights = rng.uniform(0, 2, len(train)).astype("f4")
        result = fit(train, data.valid, **settings)
        assert np.isfinite(result["weights"]).all()
        (out / f"{name}.{rank}.json").write_text(json.dumps(result))
    if Ranks.here("cpu") is not None:
        (out / f"refusals.{rank}.json").write_text(json.dumps(refusals(data.train, rank)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
