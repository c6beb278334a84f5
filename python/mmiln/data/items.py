"""Utterances as dictionaries: those of a split, or of a user's own torch dataset."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mmiln.data.arrays import Floats, Ints, place, single, take
from mmiln.data.names import KEYS, MMSA_EXTRAS, MODALITIES, near
from mmiln.errors import DataError, DataWarning

Item = dict[str, Any]


def cut(items: Iterable[Mapping[str, Any]]) -> list[Item]:
    """The items without padding: arrays are cut to the item's ``audio_lengths`` and so on, which go.

    Raises:
        DataError: There is no item, or one is no dictionary, has an unknown key, or a length that is none.
    """
    rows = []
    for at, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise DataError(
                "expected each utterance to be a dictionary such as a Split yields, with labels, text, "
                f"audio, vision, got {type(item).__name__}"
            )
        for key in item:
            if key not in KEYS and key not in MMSA_EXTRAS:
                nearest = near(key, KEYS)
                hint = f"; did you mean {nearest!r}?" if nearest else "."
                raise DataError(f"unknown key {key!r} in an utterance{hint} Known keys: {', '.join(KEYS)}")
        row = {key: value for key, value in item.items() if key in KEYS}
        side = row.pop("padding_side", "right")
        if row.get("text_bert") is None and is_tokens(row.get("text")):
            row["text_bert"] = row.pop("text")  # as MMSA's dataset names them
        mask = _mask(row.get("text_bert"))
        for name in MODALITIES:
            length = row.pop(f"{name}_lengths", None)
            if row.get(name) is None:
                continue
            if length is not None:
                row[name] = _cut(name, row.get("id", at), row[name], length, side)
            elif mask is not None and len(row[name]) == len(mask):  # aligned: a frame a token
                row[name] = row[name][mask]
        rows.append(row)
    if not rows:
        raise DataError("expected at least one utterance, got none")
    return rows


def is_tokens(value: Any) -> bool:
    """Whether an array (3, T) holds token ids, mask and segments."""
    if not isinstance(value, (np.ndarray, Tensor)) or value.ndim != 2 or value.shape[0] != 3:
        return False
    ids, mask, segments = np.asarray(value)
    return bool((ids == np.rint(ids)).all() and np.isin([mask, segments], (0, 1)).all())


def _mask(tokens: Any) -> npt.NDArray[np.bool_] | None:
    array = None if tokens is None else np.asarray(tokens)
    return array[1] != 0 if array is not None and array.ndim == 2 and len(array) == 3 else None


def tokens_of(name: str, tokens: Any) -> Ints:
    """Tokens (3, T) int64 without their padding, which the mask shows.

    Raises:
        DataError: They have another shape, or the mask is not one run of ones.
    """
    array = np.asarray(tokens)
    if array.ndim != 2 or array.shape[0] != 3 or array.shape[1] < 1:
        raise DataError(f"expected text_bert of shape (3, T), got {array.shape}: {name!r}")
    array = array.astype(np.int64, copy=False)
    if array[1].all():
        return array
    start, length = int(array[1].argmax()), int(array[1].sum())
    if length < 1 or not (array[1, start : start + length] == 1).all():
        raise DataError(
            "expected one unbroken run of ones as the mask of text_bert, "
            f"got {array[1].tolist()} for {name!r}"
        )
    return array[:, start : start + length]


def column(rows: Sequence[Item], name: str) -> list[Any]:
    """The field of every item.

    Raises:
        DataError: One lacks it.
    """
    values = [row.get(name) for row in rows]
    if missing := sum(value is None for value in values):
        raise DataError(f"expected {name} in every utterance or in none, {missing} of {len(rows)} lack it")
    return values


def _cut(name: str, utterance: object, frames: Any, length: Any, side: str) -> Any:
    try:
        number = np.asarray(length).reshape(-1)
        (count,) = number.tolist()
        if count != int(count) or not 0 <= count <= len(frames):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise DataError(
            f"expected {name}_lengths of {utterance!r} to be a whole number up to its {len(frames)} frames, "
            f"got {length!r}"
        ) from None
    return frames[: int(count)] if side == "right" else frames[len(frames) - int(count) :]


def labels_of(rows: Sequence[Item]) -> dict[str, Floats]:
    """The labels of items by MMSA's keys ``M``, ``T``, ``A``, ``V``, (N,) each; none where no item has any.

    Raises:
        DataError: Some items have labels and some have not, or a label is not one number.
    """
    given = [row.get("labels") for row in rows]
    if missing := sum(label is None for label in given):
        if missing == len(rows):
            return {}
        raise DataError(f"expected labels in every utterance or in none, {missing} of {len(rows)} lack them")
    each = [label if isinstance(label, Mapping) else {"M": label} for label in given]
    keys = [key for key in ("M", "T", "A", "V") if key in each[0]]
    if "M" not in keys or any(not label.keys() >= set(keys) for label in each):
        raise DataError(
            f"expected labels of every utterance to be a number, or to hold 'M', got {sorted(each[0])}: name "
            "the score to learn 'M'"
        )
    of_rows = [*zip(rows, each, strict=True)]
    return {key: np.array([_number(row, label[key]) for row, label in of_rows], np.float32) for key in keys}


def weights_of(rows: Sequence[Item]) -> Floats | None:
    """The weights of items, (N,); None where no item has one.

    Raises:
        DataError: Some items have a weight and some have not, or one is not one number.
    """
    if all(row.get("weights") is None for row in rows):
        return None
    each = zip(rows, column(rows, "weights"), strict=True)
    return np.array([_number(row, weight, "weight") for row, weight in each], np.float32)


def _number(row: Item, value: Any, what: str = "label") -> float:
    values = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    if values.size != 1 or values.dtype.kind not in "fiu":
        raise DataError(f"expected one number as the {what} of {row.get('id')!r}, got {value!r:.100}")
    return float(values.reshape(()))


def without_padding(name: str, frames: Any, lengths: Any, tokens: Any) -> Any:
    """The true frames of a padded array (N, T, w), N arrays; a list of arrays is returned as it is.

    Args:
        name: The modality.
        frames: What was given of it.
        lengths: (N,), or None.
        tokens: The ``text_bert`` beside it; that of an array (N, 3, T) tells which frames are true.

    Raises:
        DataError: Lengths are missing or impossible, or are of no padded array.
    """
    is_array = isinstance(frames, (np.ndarray, Tensor)) and frames.dtype != object
    if lengths is None and not is_array:
        return frames
    shapes = [tuple(frames.shape)] if is_array else sorted({np.shape(each) for each in frames})
    if [len(shape) for shape in shapes] != ([3] if is_array else [2]):
        raise DataError(
            f"expected {name} as a list of arrays (T, w), or as one padded array (N, T, w) with "
            f"{name}_lengths, got {', '.join(map(str, shapes[:3]))}; if each utterance has "
            f"one frame, (N, w), give {name}[:, None]"
        )
    padded = single(frames) if is_array else np.stack([single(each) for each in frames])
    count, most = padded.shape[:2]
    if lengths is not None:
        true = np.asarray(lengths.cpu() if isinstance(lengths, Tensor) else lengths)
        if true.shape != (count,) or true.dtype.kind not in "iu" or not ((true >= 0) & (true <= most)).all():
            raise DataError(
                f"expected {name}_lengths as {count} whole numbers up to the {most} frames of the array, got "
                f"{lengths!r:.200}"
            )
        return take(padded, place(padded, true).starts, true)
    if isinstance(tokens, (np.ndarray, Tensor)) and tuple(tokens.shape) == (count, 3, most):
        masks = np.asarray(tokens)[:, 1] != 0  # aligned: a frame a token
        return [each[mask] for each, mask in zip(padded, masks, strict=True)]
    if most > 1:
        raise DataError(
            f"{name} is a padded array, so {name}_lengths is needed: the true length of each utterance; if "
            f"nothing is padded, give a list of arrays, list({name})"
        )
    return [*padded]


def frames_of(name: str, ids: Sequence[str], frames: Sequence[Any]) -> list[Floats]:
    """Arrays (T, w), float32; an utterance without frames gets one of zeros, and a warning names it.

    Raises:
        DataError: An array has another shape.
    """
    arrays = [single(f) for f in frames]
    empty = [at for at, array in enumerate(arrays) if array.shape[:1] == (0,)]
    whole = [array for array in arrays if array.ndim == 2]
    width = next((array.shape[1] for array in whole if len(array)), whole[0].shape[1] if whole else 0)
    for at in empty:
        if arrays[at].ndim == 1 or arrays[at].shape[1:] == (width,):
            arrays[at] = np.zeros((1, width), np.float32)
    for utterance, array in zip(ids, arrays, strict=True):
        if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] != width or width < 1:
            raise DataError(
                f"expected {name} of shape (T, {width}) with T >= 1, got {array.shape} for {utterance!r}"
            )
    if empty:
        warnings.warn(no_frames(name, [ids[at] for at in empty]), DataWarning, stacklevel=4)
    return arrays


def no_frames(name: str, ids: Sequence[str]) -> str:
    """The note about utterances that have no frame of a modality."""
    some = ", ".join(map(repr, ids[:5])) + (", ..." if len(ids) > 5 else "")
    return f"{name}: {len(ids)} utterances have no frame, and got one of zeros: {some}."
