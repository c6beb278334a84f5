"""The format of MISA, MMIM and BBFN: lists of ((word ids, vision, audio, words), label, id)."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats, place, reals, single, take
from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings
from mmiln.data.split import Split
from mmiln.errors import DataError

SHARES: Final = {"train": 0.6, "valid": 0.2, "test": 0.2}

_CLIP: Final = re.compile(r"(.+)\[[^\]]*\]|(.+?)\$_\$.*|(.+)_[^_]*")


def read_misa(parts: Mapping[str, Sequence[Any]], *, name: str, seed: int) -> Dataset:
    """Build a data set from lists of samples by split.

    A sample is ``((word ids, vision (T, w), audio (T, w), words), label, id)``; two more members,
    as MMIM and BBFN have them, are the true lengths of vision and audio. A single part is split by
    video, 6 : 2 : 2 in utterances, as ``seed`` determines.

    Args:
        parts: samples by ``train``, ``valid`` and ``test``.
        name: name of the data set.
        seed: for the split of a single part.

    Raises:
        DataError: a sample is of another form, or a single part has fewer than three videos.
    """
    report = Findings()
    splits = {part: _read_part(part, samples, report) for part, samples in parts.items()}
    if len(splits) == 1:
        ((part, whole),) = splits.items()
        splits = split_by_video(whole, seed)
        sizes = ", ".join(f"{key} {len(split)}" for key, split in splits.items())
        report.add(
            f"There is one part alone ({part}, {len(whole)} utterances); it was split by video "
            f"with seed {seed}: {sizes}."
        )
    if "train" not in splits:
        raise DataError(f"expected a train part, got {sorted(splits)}")
    for missing in sorted({"valid", "test"} - splits.keys()):
        report.add(f"There is no {missing} part.")
    return Dataset(splits["train"], splits.get("valid"), splits.get("test"), name=name, report=report)


def video_of(utterance: str) -> str:
    """The video's part of an id.

    >>> [video_of(name) for name in ("a_b[3]", "a_b$_$3", "a_b_3", "lone")]
    ['a_b', 'a_b', 'a_b', 'lone']
    """
    match = _CLIP.fullmatch(utterance)
    return utterance if match is None else match[match.lastindex or 0]


def split_by_video(split: Split, seed: int) -> dict[str, Split]:
    """Share out whole videos so that train, valid and test hold about 6 : 2 : 2 utterances.

    Raises DataError where there are fewer than three videos.
    """
    videos: dict[str, list[int]] = defaultdict(list)
    for position, utterance in enumerate(split.id):
        videos[video_of(utterance)].append(position)
    if len(videos) < len(SHARES):
        raise DataError(
            f"expected at least {len(SHARES)} videos to split a single part into train, valid and "
            f"test, got {len(videos)}; supply the parts as train.pkl, dev.pkl and test.pkl"
        )
    order = sorted(videos)
    random.Random(seed).shuffle(order)
    chosen: dict[str, list[int]] = {name: [] for name in SHARES}
    for video in order:
        # The split with the least of its share; an empty one comes first, so none stays empty.
        least = min(chosen, key=lambda name: len(chosen[name]) / SHARES[name])
        chosen[least] += videos[video]
    return {name: split.subset(sorted(positions)) for name, positions in chosen.items()}


class _Sample(NamedTuple):
    name: str
    scores: list[float]
    words: list[str]
    vision: npt.NDArray[Any]
    audio: npt.NDArray[Any]
    lengths: list[int]  # of vision and audio


def _parse(sample: Any) -> _Sample:
    """Parses a sample. Raises TypeError, ValueError or OverflowError where it has another form."""
    features, label, name = sample
    if type(features) not in (tuple, list) or len(features) not in (4, 6):
        raise ValueError
    vision, audio = np.asarray(features[1]), np.asarray(features[2])
    scores = reals(label).reshape(-1)
    if not scores.size or any(a.ndim != 2 or a.dtype.kind not in "fiub" for a in (vision, audio)):
        raise ValueError
    lengths = [np.asarray(n, np.int64).item() for n in features[4:]] or [len(vision), len(audio)]
    words = [_string(word) for word in features[3]]
    return _Sample(_string(name), scores.tolist(), words, vision, audio, lengths)


def _string(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _read_part(part: str, content: Sequence[Any], report: Findings) -> Split:
    samples = []
    for position, sample in enumerate(content):
        try:
            samples.append(_parse(sample))
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{part}: expected samples ((word ids, vision (T, w), audio (T, w), words), label, "
                f"id), perhaps with the lengths of vision and audio after words; sample {position} "
                "is of another form"
            ) from None
    columns = {len(sample.scores) for sample in samples}
    if columns - {1}:
        report.add(f"{part}: labels have {sorted(columns)} columns; the first was taken.")
    try:
        return Split(
            [sample.name for sample in samples],
            single([sample.scores[0] for sample in samples]),
            raw_text=[" ".join(sample.words) for sample in samples],
            audio=[_true_frames(s.name, s.audio, s.lengths[1]) for s in samples],
            vision=[_true_frames(s.name, s.vision, s.lengths[0]) for s in samples],
        )
    except DataError as error:
        raise DataError(f"{part}: {error}") from None


def _true_frames(name: str, frames: npt.NDArray[Any], length: int) -> Floats:
    if not 1 <= length <= len(frames):
        raise DataError(
            f"{name!r} has {len(frames)} frames and claims the true length {length}; expected "
            "from 1 to the number of frames"
        )
    lengths = np.array([length], np.int64)
    return take(frames[None], place(frames[None], lengths).starts, lengths)[0]
