"""What MMSA's own MMDataset and MMDataLoader yield: padded arrays with few lengths or none."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from mmiln.data.findings import Findings
from mmiln.data.formats.mmsa_part import Part
from mmiln.data.items import Item, is_tokens
from mmiln.data.names import MMSA_EXTRAS, MODALITIES
from mmiln.data.target import Target
from mmiln.errors import DataWarning

_KEYS: Final = {"raw_text", "text", "audio", "vision", "index", "id", "labels"}
_LENGTHS: Final = {"audio_lengths", "vision_lengths"}  # where the data are not aligned


def is_item(given: Mapping[str, Any]) -> bool:
    """Whether a dictionary is an item of MMSA's dataset, by its keys and shapes."""
    return _is_of_mmsa(given, axes=2)


def is_batch(given: Mapping[str, Any]) -> bool:
    """Whether a dictionary is a batch of MMSA's loader, by its keys and shapes."""
    return _is_of_mmsa(given, axes=3)


def _is_of_mmsa(given: Mapping[str, Any], axes: int) -> bool:
    labels = given.get("labels")
    score = labels.get("M") if isinstance(labels, Mapping) else None
    arrays = [given.get(name) for name in MODALITIES]
    return (
        given.keys() - MMSA_EXTRAS in (_KEYS, _KEYS | _LENGTHS)
        and isinstance(score, Tensor)
        and score.shape[axes - 2 :] == (1,)
        and all(isinstance(a, Tensor) and a.ndim == axes and a.dtype == torch.float32 for a in arrays)
    )


def true_frames(batch: Mapping[str, Any]) -> Item:
    """A batch of MMSA's without padding: lists of arrays, and ``text_bert`` where ``text`` holds tokens.

    Missing lengths are those that :func:`mmiln.data.load` finds in MMSA's files: of the tokens' mask, else
    from the first to the last row that is not zero, in any modality if they are aligned by words. A mean over
    time, as MMSA's ``need_normalized`` makes, is one frame.

    Raises:
        DataError: Tokens or lengths are impossible.
    """
    arrays = {name: batch[name].detach().cpu().numpy() for name in MODALITIES}
    fields: Item = dict(arrays)
    tokens = all(map(is_tokens, arrays["text"]))
    if tokens:
        fields["text_bert"] = fields.pop("text")
    means = []
    for name in ("audio", "vision"):
        lengths, frames = batch.get(f"{name}_lengths"), arrays[name]
        if frames.shape[1] == 1:
            if lengths is not None and max(lengths) > 1:
                means.append(name)
            lengths = np.ones(len(frames))
        if lengths is not None:
            fields[f"{name}_lengths"] = np.asarray(lengths)
    without = [
        name for name, frames in arrays.items()
        if name in fields and f"{name}_lengths" not in fields
        and not (tokens and frames.shape[1] == arrays["text"].shape[2])  # their mask tells
    ]  # fmt: skip
    part = Part("data of MMSA's loader", fields, Findings(), Target(), None)
    part.read()
    found: Item = {name: list(values) for name, values in part.values.items()}
    empty = sum(count for key, count in part.report.counts.items() if key.endswith(".no_frames"))
    notes = [note.removesuffix(".") for note in part.report.warnings]
    if empty:
        notes.append(f"{empty} sequences have no frame, and got one of zeros")
    if cut := [n for n in without if any(len(frames) < arrays[n].shape[1] for frames in found[n])]:
        notes.append(
            f"there are no lengths of {', '.join(cut)}: frames from the first to the last that is not zero "
            "were taken, as by mmiln.data.load"
        )
    if means:
        notes.append(
            f"{' and '.join(means)} are means over time (need_normalized), and lengths those of before: one "
            "frame was taken"
        )
    if notes:  # of one place for all batches, so that Python shows it once
        warnings.warn(f"MMSA's loader: {'; '.join(notes)}", DataWarning, stacklevel=1)
    return _others(batch) | found


def true_items(items: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Items of MMSA's dataset without padding, as :func:`true_frames` finds it; other items as they are."""
    if not items or not all(isinstance(item, Mapping) and is_item(item) for item in items):
        return items
    if any(len({item[name].shape for item in items}) > 1 for name in MODALITIES):
        return items  # not padded
    padded: Item = {name: torch.stack([item[name] for item in items]) for name in MODALITIES}
    lengths = {key: [item[key] for item in items] for key in _LENGTHS & items[0].keys()}
    found = true_frames(padded | lengths)
    each = [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    return [_others(item) | frames for item, frames in zip(items, each, strict=True)]


def _others(given: Mapping[str, Any]) -> Item:
    return {key: value for key, value in given.items() if key not in MODALITIES and key not in _LENGTHS}
