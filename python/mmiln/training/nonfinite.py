"""Finds where a batch's values stop being finite, for messages that help to mend it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .._core import Batch, Core
from ..errors import MmilnError

SHOWN = 8


def where_not_finite(core: Core, packed: Batch, batch: Mapping[str, Any]) -> str:
    """The utterances of a batch, the first layer whose values are not finite, and what goes into it.

    Runs the batch again without dropout, with the present weights and pseudo-labels; changes nothing.
    """
    try:
        return f"Utterances: {utterances(batch)}. {_first_bad(core, packed, batch)}"
    except MmilnError as error:  # the batch can't even be run again
        return f"Utterances: {utterances(batch)}. {error}"


def utterances(batch: Mapping[str, Any]) -> str:
    """The names of a batch's utterances, or their positions."""
    names = batch.get("id") if batch.get("id") is not None else batch.get("index")
    if names is None:
        return "without id or index"
    listed = (
        [str(name) for name in torch.as_tensor(names).tolist()]
        if isinstance(names, Tensor)
        else list(map(str, names))
    )
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


def _first_bad(core: Core, packed: Batch, batch: Mapping[str, Any]) -> str:
    values = core.forward(packed, True)
    weights = core.state_dict()
    for name in _in_order(values):
        if _finite(values[name]):
            continue
        return f"First not finite: {name}. What goes in: {'; '.join(_inputs(name, values, weights, batch))}"
    if batch.get("labels") is not None:
        losses = core.losses(packed)
        if bad := [name for name, value in losses.items() if not _finite(value)]:
            scores = {n: value for n, value in values.items() if n.startswith("y_")}
            spans = ", ".join(f"{n} in {ranges(value)}" for n, value in scores.items())
            return f"Every layer's values are finite, the loss {bad[0]} is not: {spans}"
        gradients = core.gradients(packed)
        if bad := [name for name, value in gradients.items() if not _finite(value)]:
            more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
            return f"Values and losses are finite, gradients are not of: {', '.join(bad[:SHOWN])}{more}"
    name = max((n for n in values if not n.startswith("F_")), key=lambda n: _largest(values[n]))
    largest = ranges(values[name])
    return f"Without dropout everything is finite; the largest values are those of {name}, in {largest}"


def _in_order(values: Mapping[str, Any]) -> Iterable[str]:
    """Names in the order of the graph: layers, then heads; within a layer those of one modality first."""

    def key(name: str) -> tuple[int, ...]:
        if not name.startswith("fusion."):
            return (1, 0 if name.startswith("control.") else 1 if name.startswith("F_") else 2)
        _, layer, stream, what = name.split(".")
        order = ("retain", "compound", "source", "attention", "output")
        return (0, int(layer), int(stream.startswith("text_")), order.index(what))

    return sorted(values, key=key)


def _inputs(
    name: str, values: Mapping[str, Any], weights: Mapping[str, Tensor], batch: Mapping[str, Any]
) -> list[str]:
    """What goes into a named value: weights, and the layer before or the frames of the batch."""
    found = []
    if name.startswith("fusion."):
        _, layer, stream, _ = name.split(".")
        prefix, modalities = f"fusion.{layer}.{stream}.", stream.split("_")
        before = f"fusion.{int(layer) - 1}.{stream}.output"
        if before in values:
            found.append(f"{before} in {ranges(values[before])}")
            modalities = []
    else:
        head = name.removeprefix("control.").partition("_")[2] or name
        prefix, modalities = f"heads.{head}.", []
        last = sorted((n for n in values if n.endswith(".output")), key=lambda n: int(n.split(".")[1]))
        found += [f"{n} in {ranges(values[n])}" for n in last[-4:]]
    for modality in modalities:
        for field in (modality, "text_bert") if modality == "text" else (modality,):
            if batch.get(field) is not None and field != "text_bert":
                found.append(f"{field} frames in {ranges(batch[field])}")
        encoder = [weight for n, weight in weights.items() if n.startswith(f"{modality}.")]
        if encoder:
            found.append(f"weights of {modality} in {ranges(encoder)}")
    own = [weight for n, weight in weights.items() if n.startswith(prefix)]
    if own:
        found.append(f"weights of {prefix.rstrip('.')} in {ranges(own)}")
    return found


def _tensors(value: Any) -> list[Tensor]:
    several = value if isinstance(value, (list, tuple)) else [value]
    return [torch.as_tensor(part).detach().double().reshape(-1) for part in several]


def _finite(value: Any) -> bool:
    return all(bool(part.isfinite().all()) for part in _tensors(value))


def _largest(value: Any) -> float:
    return max(float(part.abs().max()) for part in _tensors(value) if part.numel())


def ranges(value: Any) -> str:
    """The least and the largest finite value of some tensors, and how many values are not finite."""
    flat = torch.cat([part.cpu() for part in _tensors(value)])
    bad = int((~flat.isfinite()).sum())
    good = flat[flat.isfinite()]
    span = f"[{float(good.min()):.4g}, {float(good.max()):.4g}]" if good.numel() else "no finite number"
    return span + (f" and {bad} not finite" if bad else "")
