"""MMSA's format: a dictionary of splits, each a dictionary of padded arrays."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Ints, content_bounds, place, reals, single
from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings
from mmiln.data.sequences import Padded
from mmiln.data.split import FIELDS, MODALITIES, Split
from mmiln.errors import DataError

SPLITS: Final = {"train": "train", "valid": "valid", "dev": "valid", "test": "test"}
KNOWN: Final = {"id", "regression_labels", *FIELDS, *(f"{m}_lengths" for m in MODALITIES)}

Fields = MutableMapping[str, Any]


def read_mmsa(content: Mapping[str, Any], *, name: str) -> Dataset:
    """Build a data set from the content of an MMSA pickle, aligned or not.

    Args:
        content: ``{split: {field: values}}`` with splits train, valid (or dev) and test, and fields
            id, regression_labels, any of raw_text, text (N, T, w), text_bert (N, 3, T),
            audio (N, T, w), vision (N, T, w), and their lengths where known. Arrays are removed
            from it; the data set holds them as :class:`Padded` sequences.
        name: name of the data set.

    Raises:
        DataError: a field is missing, of a wrong shape, or has impossible lengths or labels.
    """
    if "train" not in content:
        raise DataError(f"expected a 'train' split, got {sorted(map(str, content))}")
    report = Findings()
    splits: dict[str, Split] = {}
    for key, fields in content.items():
        if key not in SPLITS:
            report.add(f"{key!r} is not a split and was left unread.")
            continue
        if SPLITS[key] in splits:
            raise DataError("expected one validation split, got both 'valid' and 'dev'")
        if not isinstance(fields, dict):
            raise DataError(f"expected {key} to be a dictionary, got {type(fields).__name__}")
        splits[SPLITS[key]] = _Reader(SPLITS[key], fields, report).split()
    read = [fields for key, fields in content.items() if key in SPLITS]
    if unread := sorted({str(key) for fields in read for key in fields} - KNOWN):
        report.add(f"Fields left unread: {', '.join(unread)}.")
    for missing in sorted({"valid", "test"} - splits.keys()):
        report.add(f"The file has no {missing} split.")
    return Dataset(splits["train"], splits.get("valid"), splits.get("test"), name=name, report=report)


class _Reader:
    """Reads one split; methods are in the order of use."""

    def __init__(self, name: str, fields: Fields, report: Findings) -> None:
        self._name = name
        self._fields = fields
        self._report = report
        self._ids: list[str] = []

    def split(self) -> Split:
        present = [key for key in FIELDS if self._fields.get(key) is not None]
        if not present:
            raise self._error(f"expected any of {FIELDS}, got {sorted(map(str, self._fields))}")
        self._check_counts(present)
        self._ids = self._strings("id")
        labels = self._numbers("regression_labels")
        if labels.shape not in ((len(self._ids),), (len(self._ids), 1)):
            raise self._error(f"expected regression_labels of shape (N,), got {labels.shape}")
        values: dict[str, Any] = {}
        mask = None
        if "raw_text" in present:
            values["raw_text"] = self._strings("raw_text")
        if "text_bert" in present:
            values["text_bert"], mask = self._tokens()
        for modality in MODALITIES:
            if modality in present:
                values[modality] = self._frames(modality, mask if modality == "text" else None)
        try:
            return Split(self._ids, single(labels.reshape(-1)), **values)
        except DataError as error:
            raise self._error(str(error)) from None

    def _error(self, message: str) -> DataError:
        return DataError(f"{self._name}: {message}")

    def _need(self, key: str) -> Any:
        if self._fields.get(key) is None:
            raise self._error(f"expected a field {key!r}, got {sorted(map(str, self._fields))}")
        return self._fields[key]

    def _check_counts(self, present: list[str]) -> None:
        lengths = [f"{m}_lengths" for m in MODALITIES]
        given = [key for key in lengths if self._fields.get(key) is not None]
        counts = {}
        for key in ["id", "regression_labels", *present, *given]:
            value = self._need(key)
            counts[key] = len(value) if isinstance(value, list | tuple) or np.ndim(value) else 1
        if len(set(counts.values())) > 1:
            raise self._error(f"expected as many entries in every field, got {counts}")
        if not counts["id"]:
            raise self._error("expected at least one utterance, got none")

    def _strings(self, key: str) -> list[str]:
        values = self._need(key)
        if not isinstance(values, list | tuple) and np.ndim(values) == 0:
            raise self._error(f"expected {key!r} to be a list, got {type(values).__name__}")
        # An entry may be a str, bytes, or an array that holds one of either.
        entries = (np.asarray(e, object).reshape(-1) for e in values)
        flat = [e[0] if len(e) == 1 else None for e in entries]
        decoded = [e.decode("latin1") if isinstance(e, bytes) else e for e in flat]
        if not all(isinstance(e, str) for e in decoded):
            raise self._error(f"expected one string for each entry of {key!r}")
        return [str(e) for e in decoded]

    def _numbers(self, key: str) -> npt.NDArray[np.float64]:
        try:
            return reals(self._need(key))
        except (TypeError, ValueError, OverflowError):
            raise self._error(f"expected {key} to be one number for each utterance") from None

    def _array(self, key: str, shape: str) -> npt.NDArray[Any]:
        try:
            array = np.asarray(self._fields.pop(key))
        except ValueError:
            raise self._error(f"expected {key} of shape {shape}, got unequal rows") from None
        wrong_kind = array.dtype.kind not in "fiub"
        if wrong_kind or array.ndim != 3 or 0 in array.shape:
            raise self._error(f"expected {key} of shape {shape} and numbers, got {array.shape} {array.dtype}")
        return array

    def _tokens(self) -> tuple[list[Ints], tuple[Ints, Ints, int]]:
        """The true tokens, and their place in the padding: starts, lengths, width."""
        tokens = self._array("text_bert", "(N, 3, T)")
        values = tokens.astype(np.float64)
        whole = (values == np.rint(values)) & (np.abs(values) < 2**31)
        if tokens.shape[1] != 3 or not whole.all():
            raise self._error(
                "expected text_bert to hold whole numbers of shape (N, 3, T): ids, mask, segments; "
                f"got {tokens.shape} {tokens.dtype}"
            )
        tokens = tokens.astype(np.int64)
        mask = tokens[:, 1]
        lengths = mask.sum(axis=1)
        starts = mask.argmax(axis=1).astype(np.int64)
        for i, (start, length) in enumerate(zip(starts, lengths, strict=True)):
            if length < 1 or not (mask[i, start : start + length] == 1).all():
                raise self._error(
                    f"expected one unbroken run of ones as the mask of text_bert, "
                    f"got {mask[i].tolist()} for {self._ids[i]!r}"
                )
        cut = zip(tokens, starts, lengths, strict=True)
        true = [t[:, start : start + length].copy() for t, start, length in cut]
        return true, (starts, lengths, tokens.shape[2])

    def _frames(self, modality: str, mask: tuple[Ints, Ints, int] | None) -> Padded:
        frames = self._array(modality, "(N, T, w)")
        key = f"{modality}_lengths"
        if mask is not None and mask[2] == frames.shape[1]:
            starts, lengths = mask[:2]
        elif self._fields.get(key) is not None:
            lengths = self._checked_lengths(modality, self._numbers(key), frames.shape[1])
            starts = self._placed(modality, frames, lengths)
        else:
            starts, lengths = self._inferred(modality, frames)
        return Padded(frames, starts, lengths)

    def _checked_lengths(self, modality: str, lengths: npt.NDArray[np.float64], width: int) -> Ints:
        if lengths.size != len(self._ids):
            raise self._error(f"expected {modality}_lengths of shape (N,), got {lengths.shape}")
        lengths = lengths.reshape(-1)
        wrong = ~((lengths >= 1) & (lengths <= width) & (lengths == np.rint(lengths)))
        if wrong.any():
            i = int(wrong.argmax())
            raise self._error(
                f"{modality} of {self._ids[i]!r} has the length {lengths[i]:g}, expected a whole "
                f"number from 1 to the width {width}; {int(wrong.sum())} such lengths in all"
            )
        return lengths.astype(np.int64)

    def _placed(self, modality: str, frames: npt.NDArray[Any], lengths: Ints) -> Ints:
        placement = place(frames, lengths)
        if padded := placement.end + placement.start + placement.noisy:
            note = (
                f"{self._name} {modality}: of {padded} padded utterances, {placement.end} are "
                f"padded at the end and {placement.start} at the start"
            )
            if placement.noisy:
                note += f"; {placement.noisy} hold values in the padding, taken to be at the end"
            key = f"{self._name}.{modality}"
            self._report.add(
                f"{note}.",
                {
                    f"{key}.padded_end": placement.end,
                    f"{key}.padded_start": placement.start,
                    f"{key}.noisy_padding": placement.noisy,
                },
            )
        return placement.starts

    def _inferred(self, modality: str, frames: npt.NDArray[Any]) -> tuple[Ints, Ints]:
        first, last = content_bounds(frames)
        empty = last == 0
        starts, lengths = np.where(empty, 0, first), np.where(empty, 1, last - first)
        key = f"{self._name}.{modality}"
        note = (
            f"{self._name} {modality}: no lengths are given; they were inferred from the first to "
            "the last row that is not zero"
        )
        if empty.any():
            note += f"; {int(empty.sum())} utterances without any such row keep one"
        self._report.add(
            f"{note}.",
            {f"{key}.inferred_lengths": len(lengths), f"{key}.all_zero": int(empty.sum())},
        )
        return starts, lengths
