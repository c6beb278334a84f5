"""Aligned data: one frame of each modality for a word, or for a word piece of a text encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import BatchError
from ..text_encoder import TextEncoder
from ..training import batches
from .inputs import Inputs


def to_pieces(batch: Mapping[str, Any], encoder: TextEncoder) -> Mapping[str, Any]:
    """Aligns audio and vision with word pieces, where they have one frame for each word of ``raw_text``
    (split at white space), or one for each piece except [CLS] and [SEP].

    Each piece gets the frame of its word, [CLS] and [SEP] get zeros, as MAG-BERT's code prepares its data.
    Frames of other lengths are left unchanged.
    """
    tokens = batches.tokens(batch, encoder)
    counts = [int(each[1].sum()) for each in tokens]
    places = [torch.tensor([-1, *range(n - 2), -1]) for n in counts]
    sentences = list(batch["raw_text"]) if batches.reads_sentences(batch, encoder) else []
    words = encoder.tokenizer.words(sentences) if sentences else []  # tokens alone need no tokenizer
    changed: dict[str, Any] = {}
    for name in ("audio", "vision"):
        if batch.get(name) is None:
            continue
        frames = _frames(name, batch)
        lengths = [len(each) for each in frames]
        if lengths == [n - 2 for n in counts]:
            of_piece = places
        elif lengths == [len(sentence.split()) for sentence in sentences]:
            of_piece = words
        else:
            continue
        changed[name] = [_spread(each, numbers) for each, numbers in zip(frames, of_piece, strict=True)]
        changed[f"{name}_lengths"] = None
    return {**batch, **changed, "text_bert": tokens}


def check_aligned(x: Inputs, network: str, what: str) -> None:
    """Refuses a batch whose modalities do not have equal lengths: one frame for each ``what``.

    Raises:
        BatchError: Gives the lengths of the first utterances.
    """
    sequences = {"text": x.text, "audio": x.audio, "vision": x.vision, "tokens": x.tokens}
    lengths = {name: s.lengths.tolist() for name, s in sequences.items() if s is not None}
    if len({tuple(each) for each in lengths.values()}) > 1:
        shown = ", ".join(f"{name} {each[:4]}" for name, each in lengths.items())
        raise BatchError(
            f"{network} needs aligned data, one frame of each modality a {what}; the first "
            f"utterances of these have lengths {shown}"
        )


def _frames(name: str, batch: Mapping[str, Any]) -> list[Tensor]:
    """The frames of each utterance, without padding where lengths or a list are given."""
    frames = [batches.tensor(name, each) for each in batch[name]]
    lengths = batch.get(f"{name}_lengths")
    if lengths is None:
        return frames
    left = batch.get("padding_side") == "left"
    several = zip(frames, batches.whole_numbers(name, lengths).tolist(), strict=False)
    return [each[len(each) - n :] if left else each[:n] for each, n in several]


def _spread(frames: Tensor, places: Tensor) -> Tensor:
    """(T, w): the frames at these places, zeros where a place is negative."""
    return torch.where(places[:, None] >= 0, frames[places.clamp(min=0)], 0)
