"""What each process of tests/parallel runs: trains in several ways, writes what came of it as JSON.

Started alone, it trains the same in one process.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import mmiln
from mmiln.data import Split, synthetic
from mmiln.ranks import Ranks

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
}


def ways() -> dict[str, dict[str, object]]:
    """Settings by the name of the case; losses over both processes are alone those of larger batches."""
    size = getattr(Ranks.here("cpu"), "size", 1)
    gathered = {"gather_losses": True, "accumulate": 4 if size > 1 else 2, "batch_size": 6 // size}
    parts = ("multimodal", "audio", "vision", "attn", "residual", "embed")
    undropped = {f"{part}_dropout": 0.0 for part in parts}
    return CASES | {"gathered": gathered | undropped}


def fit(train: Split, valid: Split, **settings: object) -> dict[str, object]:
    """Weights, pseudo-labels and history of a run in float64."""
    model = mmiln.Model("mosi", dtype="float64", **(TINY | settings))
    history = model.fit(train, valid, epochs=4, patience=9, progress=False)
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
    """Without the bias of attention's keys: softmax takes no notice, and Adam makes steps of its rounding."""
    if name.endswith("in_proj_bias"):
        query, _, value = weight.chunk(3)
        weight = torch.cat([query, value])
    return weight.flatten()


def main(out: Path) -> None:
    """Writes ``<case>.<rank>.json``."""
    torch.set_num_threads(1)
    data = synthetic(31, 11, 5)  # 11 micro-batches of 3, the last of one utterance
    rank = getattr(Ranks.here("cpu"), "rank", 0)
    for name, settings in ways().items():
        # Of 29, the last round has three utterances in one process and two in the other.
        train = data.train.subset(range(29)) if name == "gathered" else data.train
        result = fit(train, data.valid, **settings)
        assert np.isfinite(result["weights"]).all()
        (out / f"{name}.{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
