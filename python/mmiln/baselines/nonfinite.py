"""Finds the layer where a network's values stop being finite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..training.nonfinite import ranges, utterances
from .engine import Engine
from .inputs import Inputs


def where_not_finite(engine: Engine, x: Inputs, batch: Mapping[str, Any]) -> str:
    """A sentence on the batch's utterances, the first layer with a non-finite output, and its inputs."""
    found: list[str] = []

    def look(name: str) -> Any:
        def hook(module: nn.Module, given: Any, made: Any) -> None:
            tensors = [
                part for part in (made if isinstance(made, tuple) else (made,)) if isinstance(part, Tensor)
            ]
            if found or all(bool(part.isfinite().all()) for part in tensors):
                return
            read = [part for part in given if isinstance(part, Tensor) and part.is_floating_point()]
            weights = [parameter.detach() for parameter in module.parameters(recurse=False)]
            fed = [f"input in {ranges(read)}"] if read else []
            fed += [f"weights in {ranges(weights)}"] if weights else []
            found.append(f"First not finite: {name}. What goes in: {'; '.join(fed) or 'nothing of its own'}")

        return hook

    layers = [(name, m) for name, m in engine.network.named_modules() if not list(m.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in layers]
    try:
        with torch.no_grad():
            score = engine.scores(x)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        found.append(f"Without dropout every layer's values are finite; scores lie in {ranges([score])}")
    return f"Utterances: {utterances(batch)}. {found[0]}"
