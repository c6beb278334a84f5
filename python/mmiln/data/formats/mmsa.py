"""MMSA's format: a dictionary of splits, each a dictionary of padded arrays; and what resembles it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any, Final

import numpy as np

from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings
from mmiln.data.formats.mmsa_part import KNOWN, Fields, Part
from mmiln.data.formats.parts import dataset_of
from mmiln.data.names import FIELDS, SPLITS, near, renamed
from mmiln.data.target import Target
from mmiln.errors import DataError

#: Fields that say nothing of a clip: its labels in other forms, and MMSA-FET's settings.
_OTHER: Final = {"annotations", "classification_labels", "config"}


def read_mmsa(content: MutableMapping[Any, Any], *, name: str, target: Target | None = None) -> Dataset:
    """Build a data set from the content of an MMSA pickle, aligned or not, or of one like it.

    Args:
        content: ``{split: {field: values}}`` with any of the splits train, valid and test, and fields id,
            regression_labels (with _T, _A, _V those of one modality), any of raw_text, text (N, T, w),
            text_bert (N, 3, T), audio (N, T, w), vision (N, T, w), and their lengths where known. Also
            the fields of one clip, (T, w) each, which become a test split. Other spellings of
            these names are understood, and noted. Splits are removed from it; the data set holds
            arrays as :class:`Padded` sequences.
        name: name of the data set.
        target: which labels are learned.

    Raises:
        DataError: a field is missing, of a wrong shape, or has impossible lengths or labels.
    """
    report, target = Findings(), target or Target()
    given = target.column if isinstance(target.column, str) else None
    readers: dict[str, Part] = {}
    for split, fields in _splits(content, report).items():
        reader = Part(split, _named(split, fields, report), report, target, given)
        if reader.count == 0:
            report.warn(f"{split} has no utterance, and was taken as absent.")
        else:
            readers[split] = reader
    if not readers:
        raise DataError("expected at least one utterance, got none")
    for reader in readers.values():
        reader.read()
    unread = {str(key) for reader in readers.values() for key in reader.fields} - set(KNOWN) - {given}
    if unread:
        report.add(f"Fields left unread: {', '.join(sorted(unread))}.")
    return dataset_of({split: part.result() for split, part in readers.items()}, name, target, report)


def _splits(content: MutableMapping[Any, Any], report: Findings) -> dict[str, Fields]:
    """The fields of each split, taken out of ``content``."""
    found: dict[str, Fields] = {}
    for key in list(content):
        value = content[key]
        split = SPLITS.get(str(key).strip().lower())
        if split is None:
            continue
        if value is None:
            report.warn(f"{key} is None, and was taken as absent.")
            del content[key]
            continue
        if split in found:
            raise DataError(f"expected one {split} split, got a second one, {key!r}")
        if not isinstance(value, dict):
            raise DataError(f"expected {key} to be a dictionary, got {type(value).__name__}")
        found[split] = dict(content.pop(key))  # a copy: the same object may be two of the splits
    if not found and any(content.get(name) is not None or name in renamed(content, KNOWN) for name in FIELDS):
        report.add("There are no splits; what there is was taken as test.")
        fields = {key: content.pop(key) for key in list(content)}
        return {"test": {key: value for key, value in fields.items() if key != "config"}}
    if not found:
        raise DataError(f"expected any of the splits train, valid and test, got {sorted(map(str, content))}")
    for key in content:
        hint = near(key, SPLITS)
        note = f"{key!r} is not a split and was left unread"
        if hint and isinstance(content[key], dict):
            report.warn(f"{note}; is it {hint!r}?")
        else:
            report.add(f"{note}.")
    return found


def _named(split: str, fields: Fields, report: Findings) -> Fields:
    """The fields under the names of this format."""
    for name, other in renamed(fields, KNOWN).items():
        fields[name] = fields.pop(other)
        report.add(f"{split}: {other!r} was read as {name}.")
    for key in [key for key in fields if key not in KNOWN]:
        hint = near(key, KNOWN)
        if hint and fields.get(hint) is None and key not in _OTHER:
            report.warn(f"{split}: {key!r} was left unread; is it {hint!r}?")
        elif isinstance(fields[key], np.ndarray) and fields[key].ndim == 3:
            report.warn(
                f"{split}: {key!r}, an array {fields[key].shape}, was left unread; if it is a modality, name "
                "it text, audio or vision."
            )
    return fields
