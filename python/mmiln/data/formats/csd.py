"""Computational sequences of the CMU-MultimodalSDK: a folder of ``.csd`` files (HDF5), one a sequence.

A sequence has for each video ``features`` (n, w) and their ``intervals`` (n, 2), start and end in seconds.
The intervals of the label sequence are the utterances. Names, order of labels and standard folds are those of
https://github.com/CMU-MultiComp-Lab/CMU-MultimodalSDK (MIT licence).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats, single
from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings, Read
from mmiln.data.formats.parts import dataset_of
from mmiln.data.names import PARTS, SPLITS
from mmiln.data.target import Target
from mmiln.errors import ConfigError, DataError
from mmiln.files import read_json

if TYPE_CHECKING:
    import h5py

ENDING: Final = ".csd"
FOLDS: Final = "folds.json"
# The columns of CMU-MOSEI's labels.
EMOTIONS: Final = ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear")
PAUSE: Final = "sp"
# What a sequence of numbers is by its name; the first that fits.
ROLES: Final = {
    "labels": "label",
    "text": "vector|glove|bert",
    "audio": "covarep|opensmile|acoustic|audio|librosa|wav2vec",
    "vision": "facet|openface|visual|vision|video",
}
_UNREAD: Final = {
    "phones": "phones are not used",
    "": "its name does not say what it is: name it by audio=, vision= or text=",
}
_STANDARD: Final = Path(__file__).with_name("folds")
_SAME: Final = 1e-5  # seconds; nearer times are taken for the same, as in the SDK
_INFLATED: Final = 1100  # bytes of content for each stored one; gzip packs at most 1032 into one
_GROWTH: Final = 8  # bytes of an array for each one of its file, beside 64 MiB
_DAMAGED: Final = (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)

Numbers = npt.NDArray[np.float64]


def read_csd(
    folder: Path,
    *,
    chosen: Mapping[str, str | None],
    align: bool,
    folds: Mapping[str, Sequence[str]] | None,
    target: Target,
    test: bool,
) -> Dataset:
    """Build a data set from a folder of computational sequences; see :func:`mmiln.data.load_csd`.

    Args:
        chosen: by role (words, text, audio, vision, labels) a file or sequence, where names don't tell.
        folds: videos by part; None for those of ``folds.json`` in the folder, or the standard ones.
        target: which labels are learned, the sentiment where it names no column.
        test: whether the test part is wanted.

    Raises:
        DataError: a file is damaged, or its role unclear; or h5py is not installed.
        ConfigError: ``chosen`` or ``target`` name what is not there.
    """
    with ExitStack() as opened:
        sequences = [opened.enter_context(_Sequence(path)) for path in files_of(folder)]
        report = Findings()
        roles = _roles(sequences, chosen, report)
        if align and "words" not in roles:
            raise DataError(
                f"{folder.name}: to align by words a sequence of words is needed, load_csd(words=...)"
            )
        part_of = _parts(folder, roles["labels"], folds, report)
        parts = _Reader(roles, part_of, align, target, report).parts(test)
        if not parts:
            raise DataError(f"{folder.name}: no utterance has all of {', '.join(roles)}")
        return dataset_of(parts, folder.name, target, report)


def files_of(folder: Path) -> list[Path]:
    """The computational sequences in a folder."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() == ENDING)


class _Entry(NamedTuple):
    """Frames of a video: features (n, w) and intervals (n, 2)."""

    features: npt.NDArray[Any]
    intervals: Numbers

    def within(self, start: float, end: float) -> _Entry:
        """The frames that overlap with an interval; one without duration is where it starts."""
        starts, ends = self.intervals.T
        inside = (starts < end - _SAME) & (np.maximum(ends, starts + 2 * _SAME) > start + _SAME)
        return _Entry(self.features[inside], self.intervals[inside])

    def at(self, intervals: Numbers) -> Floats:
        """A row for each interval (m, 2): the mean of the frames, weighted by their overlap with it.

        Where none overlaps, it is the frame whose middle is nearest.
        """
        starts, ends = self.intervals.T
        rows = np.empty((len(intervals), self.features.shape[1]), np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # infinities stay infinite or become NaN
            for row, (start, end) in zip(rows, intervals, strict=True):
                overlaps = np.minimum(ends, end) - np.maximum(starts, start)
                some = np.flatnonzero(overlaps > _SAME)
                if not len(some):
                    row[:] = self.features[np.abs(starts + ends - start - end).argmin()]
                else:
                    row[:] = np.average(self.features[some], axis=0, weights=overlaps[some])
        return rows


class _Sequence:
    """A computational sequence, whose file is open within its context."""

    def __init__(self, path: Path) -> None:
        try:
            import h5py
        except ImportError:
            raise DataError(f"{path.name} needs h5py to be read: pip install 'mmiln[csd]'") from None
        self.path = path
        try:
            self._file = h5py.File(path, "r")
            if len(self._file) != 1:
                raise ValueError(f"expected one group at its top, got {len(self._file)}")
            self.name: str = next(iter(self._file))
            self._data = _member(_member(self._file, self.name, h5py.Group), "data", h5py.Group)
            self.entries = {str(name) for name in self._data}
            a_video = min(self.entries)
        except _DAMAGED as error:
            raise self._damaged(error) from None
        first = self.entry(a_video)
        self.holds_text = _holds_text(first)
        self.width: int = first.features.shape[1]

    def __enter__(self) -> _Sequence:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _damaged(self, error: Exception) -> DataError:
        return DataError(f"{self.path.name} is no computational sequence, or a damaged one: {error}")

    def entry(self, name: str) -> _Entry:
        """The frames of a video, or of a part of it, in order of time.

        Raises DataError where they are not features and intervals.
        """
        import h5py

        try:
            group = _member(self._data, name, h5py.Group)
            features, intervals = (_array(group, member) for member in ("features", "intervals"))
            intervals = intervals.astype(np.float64)
        except _DAMAGED as error:
            raise self._damaged(error) from None
        if features.ndim != 2 or intervals.shape != (len(features), 2) or not np.isfinite(intervals).all():
            raise DataError(
                f"{self.path.name}: expected features (n, w) and intervals (n, 2) for {name!r}, got "
                f"{features.shape} and {intervals.shape}"
            )
        return _Entry(features, intervals)

    def same(self, name: str) -> _Entry:
        """The frames of a video, in the order of the file.

        Raises DataError where they are not like those of others.
        """
        entry = self.entry(name)
        if entry.features.shape[1] != self.width or _holds_text(entry) != self.holds_text:
            kind = "text" if self.holds_text else "numbers"
            raise DataError(
                f"{self.path.name}: expected {self.width} columns of {kind} for {name!r}, got "
                f"{entry.features.shape} {entry.features.dtype}"
            )
        return entry

    def of(self, name: str) -> _Entry | None:
        """The frames that belong to an entry of the labels, in order of time; None where there are none."""
        for known in (name, _video(name)):
            if known in self.entries:
                features, intervals = self.same(known)
                order = np.argsort(intervals[:, 0], kind="stable")
                return _Entry(features[order], intervals[order]) if len(order) else None
        return None


def _holds_text(entry: _Entry) -> bool:
    return entry.features.dtype.kind in "SO"


def _member(group: Any, name: str, kind: type) -> Any:
    """A group or array inside of a file, which a link could lead out of."""
    import h5py

    if not isinstance(group.get(name, getlink=True), h5py.HardLink) or not isinstance(group[name], kind):
        raise ValueError(f"expected {name!r} to be a {kind.__name__.lower()} of this file")
    return group[name]


def _array(group: h5py.Group, name: str) -> npt.NDArray[Any]:
    import h5py

    array = _member(group, name, h5py.Dataset)
    text = h5py.check_string_dtype(array.dtype) is not None
    if array.external or array.is_virtual or not (text or array.dtype.kind in "fiu"):
        raise ValueError(f"expected {name} of numbers or text, in this file")
    most = 64 * 2**20 + _GROWTH * array.file.id.get_filesize()
    if array.nbytes > min(most, _INFLATED * array.id.get_storage_size()):
        raise ValueError(f"{name} claims {array.nbytes} bytes, which the file does not hold")
    return np.asarray(array[()])


def _video(entry: str) -> str:
    return entry.partition("[")[0]


def _roles(
    sequences: Sequence[_Sequence], chosen: Mapping[str, str | None], report: Findings
) -> dict[str, _Sequence]:
    """The sequence of words, text, audio, vision and labels, where there is one."""
    roles: dict[str, _Sequence] = {}
    for role, name in chosen.items():
        if name is not None:
            named = [s for s in sequences if name in (s.path.name, s.path.stem, s.name)]
            if len(named) != 1:
                there = ", ".join(s.path.name for s in sequences)
                raise ConfigError(f"expected {role}= to be one of the files {there}, got {name!r}")
            roles[role] = named[0]
            if named[0].holds_text != (role == "words"):
                raise ConfigError(f"{role}={name!r} has {'words' if named[0].holds_text else 'numbers'}")
    guessed: dict[str, list[_Sequence]] = defaultdict(list)
    for sequence in sequences:
        name = f"{sequence.path.stem} {sequence.name}".lower()
        fitting = (role for role, pattern in ROLES.items() if re.search(pattern, name))
        role = ("phones" if "phon" in name else "words") if sequence.holds_text else next(fitting, "")
        if sequence in roles.values() or role in roles:
            continue
        if role in _UNREAD:
            report.warn(f"{sequence.path.name} was left unread, as {_UNREAD[role]}.")
        else:
            guessed[role].append(sequence)
    for role, several in guessed.items():
        if len(several) > 1:
            files = " and ".join(sequence.path.name for sequence in several)
            raise DataError(f"{files} may each be the {role}: name one, load_csd(folder, {role}=...)")
        roles[role] = several[0]
    if "labels" not in roles or len(roles) == 1:
        there = ", ".join(f"{s.path.name}" for s in sequences)
        raise DataError(
            f"expected sequences of labels and of words, text, audio or vision, got {there}; name them by "
            "load_csd(folder, labels=..., words=...)"
        )
    used = ", ".join(f"{role} from {sequence.path.name}" for role, sequence in roles.items())
    report.add(f"Computational sequences: {used}.")
    return roles


def _parts(
    folder: Path, labels: _Sequence, folds: Mapping[str, Sequence[str]] | None, report: Findings
) -> dict[str, str]:
    """The part of each video, by the folds given, those in the folder, or the standard ones that fit."""
    videos = {_video(entry) for entry in labels.entries}
    if folds is None and (folder / FOLDS).is_file():
        folds = read_json(folder / FOLDS)
    if folds is None:
        for path in sorted(_STANDARD.glob("*.json")):
            standard: dict[str, list[str]] = read_json(path)
            if 2 * len(videos & {video for its in standard.values() for video in its}) > len(videos):
                report.add(f"Parts are the standard folds of {path.stem.upper().replace('_', '-')}.")
                folds = standard
    if folds is None:
        report.warn(
            "The videos are of no standard fold and were taken as one part, train: give folds= or a file "
            f"{FOLDS} with the videos of train, valid and test."
        )
        folds = {"train": sorted(videos)}
    if not isinstance(folds, Mapping) or not all(
        key in SPLITS and isinstance(its, list | tuple) and all(isinstance(video, str) for video in its)
        for key, its in folds.items()
    ):
        raise DataError("expected folds as lists of videos by train, valid and test")
    part_of = {video: SPLITS[key] for key, its in folds.items() for video in its}
    if len(part_of) < sum(map(len, folds.values())):
        raise DataError("expected every video once in the folds")
    return part_of


class _Reader:
    """Collects utterances by part."""

    def __init__(
        self,
        roles: dict[str, _Sequence],
        part_of: dict[str, str],
        align: bool,
        target: Target,
        report: Findings,
    ) -> None:
        self._roles = roles
        self._part_of = part_of
        self._align = align
        self._report = report
        self._column = self._column_of(target.column)
        self._left: Counter[str] = Counter()
        self._pauses = 0

    def _column_of(self, target: int | str | None) -> int:
        width = self._roles["labels"].width
        names = EMOTIONS if width == len(EMOTIONS) else ()
        if target is None and width == 1:
            return 0
        if target is None and names:
            self._report.add(f"Labels are the column {names[0]}; the others are {', '.join(names[1:])}.")
            return 0
        column = names.index(target) if target in names else target
        if isinstance(column, int) and 0 <= column < width:
            return column
        possible = f"one of {', '.join(names)}, or " if names else ""
        raise DataError(
            f"labels have {width} columns: expected target= to be {possible}a number from 0 to {width - 1}, "
            f"got {target!r}"
        )

    def parts(self, test: bool) -> dict[str, Read]:
        found: dict[str, list[_Utterance]] = {part: [] for part in PARTS}
        for entry in sorted(self._roles["labels"].entries):
            part = self._part_of.get(_video(entry))
            if part is None:
                self._left["their video is in no fold"] += len(self._roles["labels"].same(entry).intervals)
            elif test or part != "test" or len({*self._part_of.values()}) == 1:
                found[part] += self._utterances(entry)
        for why, count in self._left.items():
            key = f"left_out.{why.replace(' ', '_')}"
            self._report.warn(f"{count} utterances were left out, as {why}.", {key: count})
        if self._pauses:
            self._report.add(
                f"{self._pauses} pauses ({PAUSE!r}) are no words.", {"words.pauses": self._pauses}
            )
        return {part: _read(utterances) for part, utterances in found.items() if utterances}

    def _utterances(self, entry: str) -> list[_Utterance]:
        """The segments of an entry of the labels, but those that lack something."""
        scores, segments = self._roles["labels"].same(entry)
        found = {role: sequence.of(entry) for role, sequence in self._roles.items() if role != "labels"}
        if lacking := [role for role, frames in found.items() if frames is None]:
            self._left[f"their video has no {' and no '.join(lacking)}"] += len(segments)
            return []
        there = {role: frames for role, frames in found.items() if frames is not None}
        alone = len(segments) == 1 and "[" in entry  # it was cut before
        utterances = []
        for place, (label, (start, end)) in enumerate(zip(scores, segments, strict=True)):
            fields = self._fields(there, start, end)
            if fields:
                name = entry if alone else f"{entry}[{place}]"
                utterances.append(_Utterance(name, float(label[self._column]), fields))
            else:
                self._left["no word is in them"] += 1
        return utterances

    def _fields(self, entries: Mapping[str, _Entry], start: float, end: float) -> dict[str, Any]:
        """What is between two times; nothing where there are words, but none there."""
        fields: dict[str, Any] = {}
        by_word = None
        if "words" in entries:
            spoken, intervals = entries["words"].within(start, end)
            words = [_word(word) for word in spoken[:, 0]]
            kept = [place for place, word in enumerate(words) if word != PAUSE]
            self._pauses += len(words) - len(kept)
            if not kept:
                return {}
            fields["raw_text"] = " ".join(words[place] for place in kept)
            by_word = intervals[kept]
        for role, frames in entries.items():
            if by_word is not None and (role == "text" or self._align) and role != "words":
                fields[role] = frames.at(by_word)
            elif role != "words":
                fields[role] = single(frames.within(start, end).features)
        return fields


class _Utterance(NamedTuple):
    name: str
    label: float
    fields: dict[str, Any]


def _read(utterances: list[_Utterance]) -> Read:
    return Read(
        [utterance.name for utterance in utterances],
        {name: [utterance.fields[name] for utterance in utterances] for name in utterances[0].fields},
        np.array([utterance.label for utterance in utterances]),
    )


def _word(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
