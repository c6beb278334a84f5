"""Batches of utterances: ragged as the model takes them, or padded as torch's own loaders make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data._utils.collate import default_collate_fn_map

from mmiln.data.formats.mmsa_loader import true_items
from mmiln.data.items import Item, column, cut, labels_of, weights_of
from mmiln.data.names import FIELDS, MODALITIES

Batch = dict[str, Any]


class Utterance(Item):
    """An utterance of a :class:`Split`, a dictionary: torch's own collate function makes padded batches of
    several.
    """


def collate(items: Sequence[Mapping[str, Any]]) -> Batch:
    """Turn items of a :class:`Split` into the batch that the model takes, ragged.

    Items of other torch datasets are read as :meth:`Split.from_items` reads them.

    Returns:
        ``text``, ``text_bert``, ``raw_text``, ``audio``, ``vision``: lists of B entries, where
        present; ``labels``, where present: ``{"M": (B,) float32}``, with ``T``, ``A``, ``V`` where items
        have labels of one modality; ``weights``, where present: (B,) float32; ``index``: (B,) int64; ``id``:
        B names.

    Raises DataError where the items have not the same fields, or one is unknown.
    """
    rows = cut(true_items(items))
    batch: Batch = {n: column(rows, n) for n in (*FIELDS, "index", "id") if any(n in row for row in rows)}
    if labels := labels_of(rows):
        batch["labels"] = labels
    if (weights := weights_of(rows)) is not None:
        batch["weights"] = weights
    if "index" in batch:
        batch["index"] = np.array(batch["index"], np.int64)
    return batch


def _collate_padded(items: Sequence[Utterance], *, collate_fn_map: object = None) -> Batch:
    """:func:`collate` as tensors: frames and tokens padded with zeros at the end, lengths of the frames."""
    batch = collate(items)
    for name in [name for name in MODALITIES if name in batch]:
        frames = [torch.tensor(each) for each in batch[name]]
        batch[name] = pad_sequence(frames, batch_first=True)
        batch[f"{name}_lengths"] = torch.tensor([len(each) for each in frames])
    if "text_bert" in batch:  # its mask tells the lengths
        tokens = [torch.tensor(each).T for each in batch["text_bert"]]
        batch["text_bert"] = pad_sequence(tokens, batch_first=True).transpose(1, 2)
    if "labels" in batch:
        batch["labels"] = {key: torch.tensor(values) for key, values in batch["labels"].items()}
    if "weights" in batch:
        batch["weights"] = torch.tensor(batch["weights"])
    return batch | {"index": torch.tensor(batch["index"])}


default_collate_fn_map[Utterance] = _collate_padded  # torch's way to extend its default
