"""What was read of a data set, and what reading it found, cleaned and inferred: sentences and counts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PLACE: Final = re.compile(r"\b(?:train|valid|test|text|audio|vision)\b")
DETAIL: Final = re.compile(rf"{PLACE.pattern}|\d[\d.,]*|'[^']*'")  # in which notes of one kind differ


@dataclass
class Findings:
    """Sentences and counts collected while a data set is read.

    Attributes:
        notes: one sentence for each thing found, in the order found.
        warnings: those of the notes that say what was guessed, left out, cut or clamped; loading a data set
            warns of them (:class:`mmiln.errors.DataWarning`).
        counts: numbers by ``split.modality.what``, such as ``train.audio.nonfinite``.

    >>> report = Findings()
    >>> report.add("2 values of train audio were not finite.", {"train.audio.nonfinite": 2})
    >>> report.counts["train.audio.nonfinite"]
    2
    """

    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def summary(self) -> list[str]:
        """The notes by weight: the file's format, warnings, replaced values, all else.

        Notes that differ only in parts, modalities, numbers and ids are one line: the first of them, and
        what the others are about.

        >>> report = Findings([f"{part} audio: 7 utterances are padded." for part in ("train", "test")])
        >>> report.summary()
        ['train audio: 7 utterances are padded. (1 more like it: test audio)']
        """
        kinds: dict[str, list[str]] = {}
        for note in self.notes:
            kinds.setdefault(DETAIL.sub("", note), []).append(note)

        def weight(notes: list[str]) -> int:
            weighty = notes[0].startswith("Read from"), notes[0] in self.warnings, " became " in notes[0]
            return (*weighty, True).index(True)

        return [
            first if not others else f"{first} ({len(others)} more like it: {_places(others)})"
            for first, *others in sorted(kinds.values(), key=weight)
        ]

    def add(self, note: str, counts: Mapping[str, int] | None = None) -> None:
        """Append one sentence and the counts behind it."""
        self.notes.append(note)
        self.counts.update(counts or {})

    def warn(self, note: str, counts: Mapping[str, int] | None = None) -> None:
        """Append one sentence that users must not miss, and the counts behind it."""
        self.add(note, counts)
        self.warnings.append(note)


@dataclass
class Read:
    """What was read of a part.

    Attributes:
        ids: N names.
        fields: text, audio and so on, as :class:`mmiln.data.Split` takes them.
        labels: (N,) as they are in the file; None without any.
        unimodal: (N,) labels by modality.
        advice: a sentence that follows the note that there are no labels.
    """

    ids: list[str]
    fields: dict[str, Any]
    labels: npt.NDArray[np.float64] | None
    unimodal: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    advice: str = ""


def _places(notes: list[str]) -> str:
    """The part and the modality that each of the notes is about."""
    return ", ".join(" ".join(PLACE.findall(note)[:2]) for note in notes)
