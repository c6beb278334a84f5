"""MMSA's dataset as its loader has it, without MMSA: the same keys, types, paddings and lengths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

TOKENS = 10  # the width of text
WIDTHS = {"audio": (12, 3), "vision": (15, 4)}  # rows and columns of unaligned data


class MMDataset(Dataset[dict[str, Any]]):
    """Reads a part of a file as MMSA's class of this name does, whose settings are the arguments."""

    def __init__(
        self,
        fields: Mapping[str, Any],
        *,
        aligned: bool,
        use_bert: bool = False,
        need_normalized: bool = False,
    ) -> None:
        self.fields = fields
        self.aligned = aligned
        self.text = fields["text_bert" if use_bert else "text"].astype(np.float32)
        self.frames = {name: fields[name].astype(np.float32) for name in WIDTHS}
        if need_normalized:  # over padding too; lengths stay
            self.frames = {name: f.mean(axis=1, keepdims=True) for name, f in self.frames.items()}

    def __len__(self) -> int:
        return len(self.fields["id"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        label = np.float32(self.fields["regression_labels"][index])
        item = {
            "raw_text": self.fields["raw_text"][index],
            "text": torch.Tensor(self.text[index]),
            **{name: torch.Tensor(frames[index]) for name, frames in self.frames.items()},
            "index": index,
            "id": self.fields["id"][index],
            "labels": {"M": torch.Tensor(label.reshape(-1))},
        }
        if not self.aligned:
            item |= {f"{name}_lengths": self.fields[f"{name}_lengths"][index] for name in WIDTHS}
        return item


def part(name: str, count: int, tokens: list[np.ndarray], *, aligned: bool) -> dict[str, Any]:
    """A part of a file of MMSA's format; ``tokens`` has (3, T) for each of some sentences, in turn."""
    rng = np.random.default_rng(count)
    true = [tokens[i % len(tokens)] for i in range(count)]
    fields: dict[str, Any] = {
        "id": [f"{name}{i // 3}$_${i % 3}" for i in range(count)],
        "raw_text": np.array([f"sentence {i}" for i in range(count)]),
        "text_bert": np.zeros((count, 3, TOKENS)),
        "text": np.zeros((count, TOKENS, 6)),
        "regression_labels": rng.uniform(-3, 3, count),
    }
    lengths = {"text": [each.shape[1] for each in true]}
    for row, each in zip(fields["text_bert"], true, strict=True):
        row[:, : each.shape[1]] = each
    for modality, (most, width) in WIDTHS.items():
        lengths[modality] = lengths["text"] if aligned else rng.integers(2, most, count).tolist()
        fields[modality] = np.zeros((count, TOKENS if aligned else most, width))
        if not aligned:
            fields[f"{modality}_lengths"] = lengths[modality]
    for modality in ("text", *WIDTHS):
        for row, length in zip(fields[modality], lengths[modality], strict=True):
            row[:length] = rng.normal(size=(length, row.shape[1]))
    if aligned:  # [CLS] has no sound and no picture
        fields["audio"][:, 0] = fields["vision"][:, 0] = 0
    return fields
