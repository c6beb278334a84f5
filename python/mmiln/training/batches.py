"""Converts the batches of users to the packed batches of the core."""

from __future__ import annotations

import reprlib
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import _core
from ..data import collate
from ..data.formats.mmsa_loader import is_batch, is_item, true_frames
from ..data.names import KEYS, MMSA_EXTRAS, UNIMODAL, near
from ..errors import BatchError, DataError, DataWarning
from ..labels import MOSI, LabelRange

if TYPE_CHECKING:
    from ..text_encoder import TextEncoder


def check_keys(batch: object) -> Mapping[str, Any]:
    """Refuses what is not a batch: a mapping with known keys. Those of MMSA's loader lose their padding."""
    if not isinstance(batch, Mapping):
        raise BatchError(
            f"a batch must be a mapping with keys such as text, audio, vision, labels; "
            f"got {type(batch).__name__}: let the loader's collate_fn name its parts, as "
            "{'text': ..., 'text_lengths': ..., 'audio': ..., 'labels': ...}"
        )
    for key in batch:
        if key not in KEYS and key not in MMSA_EXTRAS:
            nearest = near(key, KEYS)
            hint = f"; did you mean {nearest!r}?" if nearest else "."
            raise BatchError(f"unknown key {key!r} in the batch{hint} Known keys: {', '.join(KEYS)}")
    try:
        return true_frames(batch) if is_batch(batch) else batch
    except DataError as error:
        raise BatchError(str(error)) from None


def widths(batch: Mapping[str, Any]) -> dict[str, int]:
    """Width of text features, audio and vision in a batch; 0 where it has none.

    Raises:
        BatchError: A part has the wrong number of axes.
    """

    def width(name: str) -> int:
        value = batch.get(name)
        if value is None:
            return 0
        axes = 3
        if isinstance(value, (list, tuple)):
            if not value:
                raise BatchError(f"a batch needs at least one utterance, {name} has none")
            value, axes = value[0], 2
        shape = tensor(name, value).shape
        if len(shape) != axes:
            raise BatchError(
                f"{name} must be a padded array (batch, time, width) or a list of (time, width) arrays, "
                f"got {'a list of arrays ' if axes == 2 else ''}of shape {tuple(shape)}"
            )
        return shape[-1]

    return {name: width(name) for name in ("text", "audio", "vision")}


def pack(
    batch: object,
    *,
    encoder: TextEncoder | None,
    uses: Sequence[str],
    device: str,
    dtype: str,
    label_range: LabelRange = MOSI,
    unimodal_labels: bool = False,
) -> _core.Batch:
    """Packs the parts of a batch (``text``, ``audio``, ``vision``) that a model ``uses``, with labels on the
    model's scale; with ``unimodal_labels`` also those that people gave to audio and vision.

    Raises:
        BatchError: A part is missing or malformed.
    """
    batch = check_keys(batch)
    side = batch.get("padding_side", "right")
    if not isinstance(side, str) or side not in ("right", "left"):
        raise BatchError(f'padding_side must be "right" or "left", got {side!r}')
    parts: dict[str, Any] = {"padding_side": side}
    pieces = tokens(batch, encoder) if "text" in uses and encoder is not None else None
    mask = _token_mask(batch, encoder)
    if pieces is not None:
        parts["text_bert"] = pieces
    elif "text" in uses and batch.get("text") is None:
        given = ", ".join(k for k in ("text_bert", "raw_text") if batch.get(k) is not None)
        raise BatchError(
            "the batch has no 'text' (features), which a model without text_encoder reads"
            + (f"; to use its {given}, build the model with text_encoder=" if given else "")
        )
    frames_of = [name for name in uses if name != "text" or pieces is None]
    if lacking := [name for name in frames_of if batch.get(name) is None]:
        raise BatchError(
            f"the batch has no {' and '.join(map(repr, lacking))}, which this model was built with: give "
            'what is missing, or predict(..., missing="zeros")'
        )
    for name in frames_of:
        frames = _frames(name, batch[name])
        lengths = batch.get(f"{name}_lengths")
        if lengths is not None:
            true = whole_numbers(f"{name}_lengths", lengths)
            parts[f"{name}_lengths"], frames = _none_empty(name, true, frames)
        elif isinstance(frames, Tensor) and mask is not None and frames.shape[:2] == mask.shape:
            # Word-aligned arrays have one frame a token: a frame is true where its token is.
            frames = [frame[true] for frame, true in zip(frames, mask, strict=True)]
        parts[name] = frames
    if (labels := labels_of(batch)) is not None:
        parts["labels"] = label_range.scaled(tensor("labels", labels))
    if unimodal_labels:
        for name, own in unimodal_labels_of(batch).items():
            parts[f"labels_{name}"] = label_range.scaled(tensor(f"labels of {name}", own))
    if batch.get("weights") is not None:
        parts["weights"] = tensor("weights", batch["weights"])
    if batch.get("index") is not None:
        parts["index"] = whole_numbers("index", batch["index"])
    packed = _core.Batch(device=device, dtype=dtype, **parts)
    names(batch, len(packed))
    if pieces is not None and encoder is not None and not reads_sentences(batch, encoder):
        encoder.tokenizer.compare(pieces, batch.get("raw_text"))
    return packed


def labels_of(batch: Mapping[str, Any]) -> Any:
    """The multimodal labels of a batch as they were given, ``None`` without any.

    Raises:
        BatchError: The labels are a mapping without ``M``.
    """
    labels = batch.get("labels")
    if not isinstance(labels, Mapping):
        return labels
    if "M" not in labels:
        raise BatchError(f"labels must hold 'M', the multimodal label; got {sorted(labels)}")
    return labels["M"]


def unimodal_labels_of(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The labels that people gave to audio and vision, those of the two that a batch has."""
    labels = batch.get("labels")
    known = labels if isinstance(labels, Mapping) else {}
    return {name: known[key] for key, name in UNIMODAL.items() if key in known and name != "text"}


def names(batch: Mapping[str, Any], size: int) -> list[str] | None:
    """The names of the utterances of a batch of this size; ``None`` without any.

    Raises:
        BatchError: ``id`` does not hold one name for each utterance.
    """
    given = batch.get("id")
    if given is None:
        return None
    if isinstance(given, (np.ndarray, Tensor)) and given.ndim == 1:
        given = given.tolist()
    if not isinstance(given, (list, tuple)) or len(given) != size:
        raise BatchError(f"id must be a list of {size} names, one an utterance; got {reprlib.repr(given)}")
    return [str(name) for name in given]


def tensor(name: str, value: Any) -> Tensor:
    """A CPU tensor of numbers that shares memory where it can."""
    if isinstance(value, Tensor):
        if value.is_complex() or value.dtype == torch.bool or value.is_quantized:
            raise BatchError(f"{name} must hold real numbers, got {value.dtype}")
        if value.layout != torch.strided or value.is_meta or value.is_nested:
            raise BatchError(f"{name} must be a dense tensor, got one of {value.layout} on {value.device}")
        return value.detach().cpu()
    try:
        array = np.asarray(value)
    except ValueError:
        raise BatchError(f"{name} must be an array of numbers, got a ragged list") from None
    if array.dtype.kind not in "fiu":
        raise BatchError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f" and array.dtype not in (np.float16, np.float32, np.float64):
        array = array.astype(np.float64)
    elif array.dtype.kind == "u":
        array = array.astype(np.int64)
    elif not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    # torch can't share negative strides or memory that must not be written.
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def whole_numbers(name: str, value: Any) -> Tensor:
    """A flat int64 tensor of lengths or indices."""
    numbers = tensor(name, value).reshape(-1)
    if numbers.is_floating_point() and not bool(
        ((numbers == numbers.round()) & (numbers.abs() < 2**53)).all()
    ):
        raise BatchError(f"{name} must hold whole numbers, got {numbers.tolist()}")
    return numbers.long()


def _frames(name: str, value: Any) -> Tensor | list[Tensor]:
    if not isinstance(value, (list, tuple)):
        return tensor(name, value)
    frames = [tensor(f"{name}: utterance {b} of the batch", u) for b, u in enumerate(value)]
    empty = [b for b, each in enumerate(frames) if len(each) == 0]
    if empty and (whole := [each for each in frames if each.ndim == 2 and len(each)]):
        for b in empty:
            frames[b] = whole[0].new_zeros(1, whole[0].shape[1])
        _warn_of_empty(name, len(empty))
    return frames


def _none_empty(name: str, lengths: Tensor, frames: Any) -> tuple[list[int], Any]:
    """Lengths and padded frames, of which an utterance of length 0 has one frame of zeros."""
    empty = (lengths == 0).nonzero().reshape(-1)
    if len(empty) and isinstance(frames, Tensor) and frames.ndim == 3 and len(frames) == len(lengths):
        frames, lengths = frames.clone(), lengths.clone()
        frames[empty], lengths[empty] = 0, 1
        _warn_of_empty(name, len(empty))
    return lengths.tolist(), frames


def _warn_of_empty(name: str, count: int) -> None:
    warnings.warn(
        f"{count} utterances of a batch have no frame of {name}: each got one of zeros",
        DataWarning,
        stacklevel=2,
    )


def with_zeros(batch: object, model: Mapping[str, Any]) -> Mapping[str, Any]:
    """The batch with one frame of zeros an utterance in place of audio or vision that it lacks."""
    batch = check_keys(batch)
    there = [batch[name] for name in ("text", "text_bert", "raw_text", "audio", "vision") if name in batch]
    count = len(there[0]) if there else 0
    zeros = {
        name: [torch.zeros(1, model[f"{name}_dim"])] * count
        for name in ("audio", "vision")
        if model[f"{name}_dim"] and batch.get(name) is None
    }
    return {**batch, **zeros}


def is_utterance(given: Mapping[str, Any]) -> bool:
    """Whether arrays have no axis of utterances, or there is one sentence alone."""
    arrays = [given[name] for name in ("text", "text_bert", "audio", "vision") if given.get(name) is not None]
    sentence = given.get("raw_text")
    if any(not isinstance(array, (np.ndarray, Tensor)) or array.ndim != 2 for array in arrays):
        return False
    return isinstance(sentence, str) or (sentence is None and bool(arrays))


def of_one(utterance: Mapping[str, Any]) -> Mapping[str, Any]:
    """A batch of one utterance whose arrays have no axis of utterances; any other batch as it is."""
    if not is_utterance(utterance):
        return utterance
    if is_item(utterance):
        return collate([utterance])
    whole = ("padding_side", "config")
    batch = {key: value if key in whole else [value] for key, value in utterance.items() if value is not None}
    for key in [key for key in batch if key.endswith("_lengths") or key in ("index", "labels", "weights")]:
        value = utterance[key]
        batch[key] = value if isinstance(value, Mapping) else np.reshape(np.asarray(value), -1)
    for name in [name for name in ("text", "audio", "vision") if f"{name}_lengths" in batch]:
        batch[name] = utterance[name][None]
    return batch


def reads_sentences(batch: Mapping[str, Any], encoder: TextEncoder) -> bool:
    """Whether a text encoder reads a batch's ``raw_text``, because the batch has no tokens."""
    return _bert_arrays(batch, encoder) is None and batch.get("raw_text") is not None


def _bert_arrays(batch: Mapping[str, Any], encoder: TextEncoder | None) -> Any:
    """``text_bert``; for a text encoder also a ``text`` that holds the same, as MMSA's loader has it."""
    if batch.get("text_bert") is not None:
        return batch["text_bert"]
    text = batch.get("text") if encoder is not None else None
    if isinstance(text, (Tensor, np.ndarray)) and text.ndim == 3 and text.shape[1] == 3:
        return text
    return None


def _token_mask(batch: Mapping[str, Any], encoder: TextEncoder | None) -> Tensor | None:
    arrays = _bert_arrays(batch, encoder)
    if arrays is None or isinstance(arrays, (list, tuple)):
        return None
    arrays = tensor("text_bert", arrays)
    return arrays[:, 1] != 0 if arrays.ndim == 3 and arrays.shape[1] == 3 else None


def tokens(batch: Mapping[str, Any], encoder: TextEncoder) -> list[Tensor]:
    """One (3, T) tensor an utterance: ids, mask, segments.

    Raises:
        BatchError: The encoder's input is missing or malformed.
    """
    arrays = _bert_arrays(batch, encoder)
    if arrays is not None:
        if isinstance(arrays, (list, tuple)):
            return [tensor(f"text_bert: utterance {b} of the batch", u) for b, u in enumerate(arrays)]
        arrays = tensor("text_bert", arrays)
        if arrays.ndim != 3 or arrays.shape[1] != 3:
            raise BatchError(
                "text_bert must have shape (batch, 3, tokens): ids, mask, segments; "
                f"got {tuple(arrays.shape)}"
            )
        return list(arrays.unbind(0))
    sentences = batch.get("raw_text")
    if sentences is None:
        raise BatchError("the batch has no text_bert or raw_text, which the text encoder reads")
    if not isinstance(sentences, (list, tuple)) or not all(isinstance(s, str) for s in sentences):
        raise BatchError("raw_text must be a list of sentences, one string an utterance")
    return encoder.tokenizer.tokenize(list(sentences))
