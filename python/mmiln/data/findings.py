"""What reading a data set found, cleaned and inferred: sentences for people, counts for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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

    def add(self, note: str, counts: Mapping[str, int] | None = None) -> None:
        """Append one sentence and the counts behind it."""
        self.notes.append(note)
        self.counts.update(counts or {})

    def warn(self, note: str, counts: Mapping[str, int] | None = None) -> None:
        """Append one sentence that users must not miss, and the counts behind it."""
        self.add(note, counts)
        self.warnings.append(note)
