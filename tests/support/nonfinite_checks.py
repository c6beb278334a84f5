"""Batches whose losses or gradients are not finite, and what training does with one such number."""

import json
from typing import Any

import numpy as np
import torch

import mmiln
from mmiln.errors import NonFiniteError
from reference import configs

WIDTHS = {"text": 7, "audio": 5, "vision": 6}


def batch(number: int, size: int = 3, **changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(number)
    frames = {
        name: [rng.normal(size=(2 + i, width)).astype(np.float32) for i in range(size)]
        for name, width in WIDTHS.items()
    }
    return {
        **frames,
        "labels": rng.uniform(-3, 3, size),
        "index": np.arange(number * size, (number + 1) * size),
        "id": [f"video{number}$_${i}" for i in range(size)],
        **changes,
    }


def build(**changes: Any) -> mmiln.Model:
    return mmiln.Model("mosi", **{**configs.tiny(), "accumulate": 1, "seed": 1, **changes})


def huge(number: int, name: str = "audio") -> dict[str, Any]:
    """A batch with frames that float32 holds and its products do not."""
    good = batch(number)
    return good | {name: [1e30 * frame for frame in good[name]]}


def weights(model: mmiln.Model) -> dict[str, bytes]:
    return {name: weight.numpy().tobytes() for name, weight in model.state_dict().items()}


def check_one_number(value: float, name: str, place: int, device: str = "cpu", **changes: Any) -> None:
    model = build(device=device, **({"accumulate": 4} | changes))
    packed = model.pack(batch(0))
    core = model.core
    core.begin_training(3, json.dumps(model.config.train))
    core.begin_epoch(1)
    core.train_step(packed)
    assert core.undone_steps() == 0
    before = weights(model)
    state, counters = core.training_state()
    state[f"gradients.{name}"].view(-1)[place] = value
    core.load_training_state(state, counters)
    try:
        core.train_step(packed)
        core.train_step(packed)
        core.end_epoch()
        outcome = str(core.undone_steps())  # a GPU reports this only when asked
    except NonFiniteError as error:
        outcome = str(error)
    assert outcome == "2" or outcome.startswith("a gradient of this batch is not finite")
    assert json.loads(core.training_state()[1])["step"] == 1
    assert not any(grad.any() for n, grad in core.training_state()[0].items() if n.startswith("gradients."))
    assert weights(model) == before
    core.train_step(packed)
    core.end_epoch()
    assert core.undone_steps() == 0
    assert weights(model) != before
    assert all(torch.isfinite(weight).all() for weight in model.state_dict().values())
