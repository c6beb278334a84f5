"""The tensors of a training run by name, and the comparison of a checkpoint's tensors with them."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor

from .network import Network

WEIGHTS, BUFFERS, BEST, SUMMED = "weights.", "buffers.", "best.", "summed."
COUNTERS = ("epoch", "step", "summed")
MOMENTS = {"exp_avg": "first.", "exp_avg_sq": "second."}


def places(network: Network, optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Every tensor that a run depends on by name, except pending gradients and the best weights."""
    found: dict[str, Tensor] = {f"{WEIGHTS}{name}": p.data for name, p in network.named_parameters()}
    found |= {f"{BUFFERS}{name}": buffer for name, buffer in network.named_buffers()}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        state = _moments(optimizer, parameter)
        found[f"steps.{name}"] = state["step"]
        found |= {f"{prefix}{name}": state[moment] for moment, prefix in MOMENTS.items()}
    return found


def _moments(optimizer: torch.optim.Adam, parameter: torch.nn.Parameter) -> dict[str, Any]:
    """The optimiser's state of a parameter, which exists from the first step on."""
    state = optimizer.state[parameter]
    if not state:
        state["step"] = torch.tensor(0.0, device=parameter.device)
        state |= {name: torch.zeros_like(parameter) for name in MOMENTS}
    return state


def differences(own: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """What is missing, unexpected, or of another shape or type."""
    faults = [f"missing: {name}" for name in own if name not in given]
    faults += [f"unexpected: {name}" for name in given if name not in own]
    return faults + [
        f"misshapen: {name} expected {tuple(tensor.shape)} of {tensor.dtype}, "
        f"got {tuple(given[name].shape)} of {given[name].dtype}"
        for name, tensor in own.items()
        if name in given and (given[name].shape != tensor.shape or given[name].dtype != tensor.dtype)
    ]


def counts(text: str) -> dict[str, int] | None:
    """The counters of epochs, micro-batches and pending gradients; ``None`` where the text holds others."""
    try:
        number = json.loads(text)
    except ValueError:
        return None
    whole = isinstance(number, dict) and {n: type(v) for n, v in number.items()} == dict.fromkeys(
        COUNTERS, int
    )
    return number if whole and all(0 <= value < 2**40 for value in number.values()) else None
