"""One split of MMSA's format: a dictionary of padded arrays."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Ints, content_bounds, place, reals
from mmiln.data.findings import Findings, Read
from mmiln.data.items import no_frames
from mmiln.data.names import FIELDS, MODALITIES, UNIMODAL
from mmiln.data.sequences import Padded
from mmiln.data.target import Target
from mmiln.errors import DataError

LABELS: Final = "regression_labels"
KNOWN: Final = (
    "id", LABELS, *FIELDS, *(f"{m}_lengths" for m in MODALITIES), *(f"{LABELS}_{key}" for key in UNIMODAL),
)  # fmt: skip

Fields = MutableMapping[str, Any]


@dataclass
class Part:
    """Reads one split; methods are in the order of use.

    Raises DataError where a field has a wrong shape, or impossible lengths or labels.
    """

    name: str
    fields: Fields
    report: Findings
    target: Target
    label_field: str | None  # where it is not the format's own
    ids: list[str] = field(default_factory=list)
    labels: npt.NDArray[np.float64] | None = None
    unimodal: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._present = [key for key in FIELDS if self.fields.get(key) is not None]
        if not self._present:
            raise self._error(f"expected any of {FIELDS}, got {sorted(map(str, self.fields))}")
        self._as_one_of_many()

    def _as_one_of_many(self) -> None:
        """Gives the fields of one clip, (T, w) each, an axis of utterances."""
        arrays = {key: self.fields[key] for key in self._present if key != "raw_text"}
        if not arrays or any(isinstance(v, list) or np.ndim(v) != 2 for v in arrays.values()):
            return
        if any(_is_list(self.fields.get(key)) for key in ("id", "raw_text", LABELS)):
            return
        for key in [*self._present, *KNOWN[:2], *(f"{m}_lengths" for m in MODALITIES)]:
            if self.fields.get(key) is not None:
                self.fields[key] = [self.fields[key]] if key not in MODALITIES else self.fields[key][None]
        self.report.add(f"{self.name}: arrays have no axis of utterances, and were read as one utterance.")

    @property
    def count(self) -> int:
        """Number of utterances."""
        value = self.fields[self._present[0]]
        return len(value) if _is_list(value) else 1

    def read(self) -> None:
        """Reads all fields."""
        if self.fields.get("id") is None:
            self.ids = [f"{self.name}-{place}" for place in range(self.count)]
            self.report.add(f"{self.name} has no ids; utterances were numbered.")
        self._check_counts()
        if not self.ids:
            self.ids = self._strings("id")
        self._read_labels()
        mask = None
        if "raw_text" in self._present:
            self.values["raw_text"] = self._strings("raw_text")
        if "text_bert" in self._present:
            self.values["text_bert"], mask = self._tokens()
        self._read_frames(mask)

    def result(self) -> Read:
        """What was read."""
        unimodal = {UNIMODAL[letter]: values for letter, values in self.unimodal.items()}
        return Read(self.ids, self.values, self.labels, unimodal, self._candidates())

    def _error(self, message: str) -> DataError:
        return DataError(f"{self.name}: {message}")

    def _check_counts(self) -> None:
        lengths = [f"{m}_lengths" for m in MODALITIES]
        counts = {}
        for key in ("id", LABELS, *self._present, *lengths):
            if (value := self.fields.get(key)) is not None:
                counts[key] = len(value) if _is_list(value) else 1
        if len(set(counts.values())) > 1:
            raise self._error(f"expected as many entries in every field, got {counts}")

    def _strings(self, key: str) -> list[str]:
        values = self.fields[key]
        if not _is_list(values):
            raise self._error(f"expected {key!r} to be a list, got {type(values).__name__}")
        # An entry may be a str, bytes, a number or an array of one of these; an id also [video, start, end].
        entries = [np.asarray(e, object).reshape(-1) for e in values]
        decoded = [[p.decode("latin1") if isinstance(p, bytes) else p for p in e] for e in entries]
        if key == "id":
            decoded = [[str(p) if isinstance(p, (int, float)) else p for p in e] for e in decoded]
            decoded = [[f"{e[0]}[{e[1]}-{e[2]}]"] if len(e) == 3 else e for e in decoded]
        if not all(len(e) == 1 and isinstance(e[0], str) for e in decoded):
            raise self._error(f"expected one string for each entry of {key!r}")
        return [str(e[0]) for e in decoded]

    def _numbers(self, key: str) -> npt.NDArray[np.float64]:
        try:
            return reals(self.fields[key])
        except (TypeError, ValueError, OverflowError):
            raise self._error(f"expected {key} to be one number for each utterance") from None

    def _read_labels(self) -> None:
        key = self.label_field or LABELS
        if self.fields.get(key) is not None:
            given = self._numbers(key)
            if given.ndim == 0 or len(given) != len(self.ids) or not given.size:
                raise self._error(f"expected {key} of shape (N,), got {given.shape}")
            self.labels = self.target.one_column(given, self.name)
        elif isinstance(self.target.column, str):
            raise self._error(f"there is no field {self.target.column!r} to learn.{self._candidates()}")
        for letter in UNIMODAL:
            if self.fields.get(f"{LABELS}_{letter}") is not None:
                one = self._numbers(f"{LABELS}_{letter}")
                if one.size != len(self.ids):
                    raise self._error(f"expected {LABELS}_{letter} of shape (N,), got {one.shape}")
                self.unimodal[letter] = one.reshape(-1)

    def _candidates(self) -> str:
        """A sentence that names the fields that could be learned; empty without any."""
        names = []
        for key in sorted(self.fields.keys() - set(KNOWN), key=str):
            try:
                array = np.asarray(self.fields[key])
            except ValueError:  # rows of unequal lengths
                continue
            if array.dtype.kind in "fiub" and array.ndim in (1, 2) and len(array) == len(self.ids):
                names.append(str(key))
        if not names:
            return ""
        return (
            f" MMILN learns a score by regression; fields with numbers are {', '.join(names)}: name one by "
            f"target=, with its range, such as target={names[0]!r}, labels=(0, 2)."
        )

    def _array(self, key: str, shape: str) -> npt.NDArray[Any]:
        try:
            array = np.asarray(self.fields.pop(key))
        except ValueError:
            raise self._error(f"expected {key} of shape {shape}, got unequal rows") from None
        wrong_kind = array.dtype.kind not in "fiub"
        if wrong_kind or array.ndim != 3 or 0 in array.shape:
            raise self._error(f"expected {key} of shape {shape} and numbers, got {array.shape} {array.dtype}")
        return array

    def _tokens(self) -> tuple[list[Ints], tuple[Ints, Ints, int]]:
        """The true tokens, and their place in the padding: starts, lengths, width."""
        tokens = self._array("text_bert", "(N, 3, T)")
        if tokens.shape[1] != 3 and tokens.shape[2] == 3:
            tokens = tokens.transpose(0, 2, 1)
            self.report.add(f"{self.name}: text_bert is (N, T, 3), and was read as (N, 3, T).")
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
                    f"got {mask[i].tolist()} for {self.ids[i]!r}"
                )
        cut = zip(tokens, starts, lengths, strict=True)
        true = [t[:, start : start + length].copy() for t, start, length in cut]
        return true, (starts, lengths, tokens.shape[2])

    def _read_frames(self, mask: tuple[Ints, Ints, int] | None) -> None:
        modality: str
        padded: dict[str, npt.NDArray[Any]] = {}
        lengths: dict[str, Ints] = {}
        for modality in [m for m in MODALITIES if m in self._present]:
            if self._is_ragged(self.fields[modality]):
                self.values[modality] = self._cut_list(modality)
                continue
            self._as_frames(modality)
            padded[modality] = self._array(modality, "(N, T, w)")
            if self.fields.get(f"{modality}_lengths") is not None:
                lengths[modality] = self._lengths(modality, padded[modality].shape[1])
        width = mask[2] if mask is not None else padded["text"].shape[1] if "text" in padded else None
        aligned = [m for m, frames in padded.items() if frames.shape[1] == width]
        bounds = self._word_bounds(aligned, padded, lengths, mask)
        for modality, frames in padded.items():
            if modality == "text" and mask is not None and modality in aligned:
                starts, true = mask[:2]  # whatever lengths there are, tokens have features
            elif modality in lengths:
                starts, true = self._placed(modality, frames, lengths[modality]), lengths[modality]
            elif bounds is not None and modality in aligned:
                starts, true = bounds
            else:
                starts, true = self._inferred(modality, frames)
            self.values[modality] = Padded(frames, starts, true)

    def _as_frames(self, modality: str) -> None:
        """Gives features of whole utterances, (N, w), an axis of frames."""
        features = self.fields[modality]
        if isinstance(features, np.ndarray) and features.ndim == 2:
            self.fields[modality] = features[:, None]
            self.fields[f"{modality}_lengths"] = np.ones(len(features))
            self.report.add(f"{self.name}: {modality} is (N, w), and was read as one frame an utterance.")

    @staticmethod
    def _is_ragged(value: Any) -> bool:
        """Whether a list holds arrays (T, w) of several lengths."""
        arrays = value if isinstance(value, list) else []
        return len({len(array) for array in arrays if isinstance(array, np.ndarray) and array.ndim}) > 1

    def _cut_list(self, modality: str) -> list[Any]:
        frames = list(self.fields.pop(modality))
        if self.fields.get(f"{modality}_lengths") is not None:
            most = max(len(f) for f in frames)
            frames = [f[:n] for f, n in zip(frames, self._lengths(modality, most), strict=True)]
        return frames

    def _word_bounds(
        self,
        aligned: list[str],
        padded: Mapping[str, npt.NDArray[Any]],
        lengths: Mapping[str, Ints],
        mask: tuple[Ints, Ints, int] | None,
    ) -> tuple[Ints, Ints] | None:
        """Starts and lengths of word-aligned modalities: each word has one frame, perhaps of zeros."""
        without = [m for m in aligned if m not in lengths and not (m == "text" and mask is not None)]
        if not without or (mask is None and len(aligned) < 2):
            return None
        note = f"{self.name}: {', '.join(without)} have no lengths and as many rows as text"
        known = next((m for m in aligned if m in lengths), None)
        if mask is not None:
            self.report.add(f"{note}: word-aligned, with the lengths of text_bert's mask.")
            return mask[:2]
        if known is not None:
            self.report.add(f"{note}: word-aligned, with the lengths of {known}.")
            return self._placed(known, padded[known], lengths[known]), lengths[known]
        bounds = [content_bounds(padded[m]) for m in aligned]
        first = np.min([first for first, _ in bounds], axis=0)
        last = np.max([last for _, last in bounds], axis=0)
        self.report.add(
            f"{note}: word-aligned, from the first to the last row that is not zero in any of them.",
            {f"{self.name}.aligned.inferred_lengths": len(first)},
        )
        return np.where(last == 0, 0, first), np.where(last == 0, 1, last - first)

    def _lengths(self, modality: str, width: int) -> Ints:
        """True lengths, 0 for utterances without frames."""
        lengths = self._numbers(f"{modality}_lengths")
        if lengths.size != len(self.ids):
            raise self._error(f"expected {modality}_lengths of shape (N,), got {lengths.shape}")
        lengths = lengths.reshape(-1)
        wrong = ~((lengths >= 0) & (lengths == np.rint(lengths)))
        if wrong.any():
            i = int(wrong.argmax())
            raise self._error(
                f"{modality} of {self.ids[i]!r} has the length {lengths[i]:g}, expected a whole "
                f"number from 0 to the width {width}; {int(wrong.sum())} such lengths in all"
            )
        if (long := lengths > width).any():
            i = int(lengths.argmax())
            self.report.warn(
                f"{self.name} {modality}: {int(long.sum())} utterances claim more than the {width} rows that "
                f"there are, such as {self.ids[i]!r} with {lengths[i]:g}; the rest was cut before.",
                {f"{self.name}.{modality}.cut": int(long.sum())},
            )
        if (none := lengths == 0).any():
            self._say_no_frames(modality, none)
        return np.minimum(lengths, width).astype(np.int64)

    def _say_no_frames(self, modality: str, none: npt.NDArray[np.bool_]) -> None:
        self.report.add(
            f"{self.name} {no_frames(modality, [self.ids[i] for i in np.nonzero(none)[0]])}",
            {f"{self.name}.{modality}.no_frames": int(none.sum())},
        )

    def _placed(self, modality: str, frames: npt.NDArray[Any], lengths: Ints) -> Ints:
        placement = place(frames, lengths)
        if padded := placement.end + placement.start + placement.noisy:
            note = (
                f"{self.name} {modality}: of {padded} padded utterances, {placement.end} are "
                f"padded at the end and {placement.start} at the start"
            )
            if placement.noisy:
                note += f"; {placement.noisy} hold values in the padding, taken to be at the end"
            key = f"{self.name}.{modality}"
            self.report.add(
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
        key = f"{self.name}.{modality}"
        self.report.add(
            f"{self.name} {modality}: no lengths are given; they were inferred from the first to "
            "the last row that is not zero.",
            {f"{key}.inferred_lengths": len(lengths), f"{key}.all_zero": int(empty.sum())},
        )
        if empty.any():
            self._say_no_frames(modality, empty)
        return starts, lengths


def _is_list(value: Any) -> bool:
    """Whether a field holds values of several utterances."""
    return isinstance(value, list | tuple) or np.ndim(value) > 0
