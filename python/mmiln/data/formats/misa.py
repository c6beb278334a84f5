"""The format of MISA, MMIM, BBFN and MAG-BERT: lists of ((word ids, vision, audio, words), label, id)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats, place, reals, take
from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings, Read
from mmiln.data.formats.parts import dataset_of
from mmiln.data.items import no_frames
from mmiln.data.target import Target
from mmiln.errors import DataError


def read_misa(parts: Mapping[str, Sequence[Any]], *, name: str, target: Target | None = None) -> Dataset:
    """Build a data set from lists of samples by split.

    A sample is ``((word ids, vision (T, w), audio (T, w), words), label, id)``; two more members,
    as MMIM and BBFN have them, are the true lengths of vision and audio. MAG-BERT's have ``(words, vision,
    audio)`` in their first place.

    Args:
        parts: samples by ``train``, ``valid`` and ``test``, or some of them.
        name: name of the data set.
        target: which labels are learned.

    Raises:
        DataError: a sample is of another form, or labels have several columns of which none is named.
    """
    report, target = Findings(), target or Target()
    samples = {}
    for part, content in parts.items():
        if content:
            samples[part] = _parsed(part, content)
        else:
            report.warn(f"{part} has no utterance, and was taken as absent.")
    if not samples:
        raise DataError("expected at least one utterance, got none")
    parts_read = {}
    for part, read in samples.items():
        columns = {len(sample.scores) for sample in read}
        if len(columns) > 1:
            raise DataError(
                f"{part}: expected labels of as many columns in every sample, got {sorted(columns)}"
            )
        fields = {
            "raw_text": [" ".join(sample.words) for sample in read],
            "audio": _true_frames(part, "audio", read, report),
            "vision": _true_frames(part, "vision", read, report),
        }
        labels = target.one_column(np.array([sample.scores for sample in read]), part)
        parts_read[part] = Read([sample.name for sample in read], fields, labels)
    return dataset_of(parts_read, name, target, report)


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
    if type(features) not in (tuple, list) or len(features) not in (3, 4, 6):
        raise ValueError
    if len(features) == 3:  # of MAG-BERT: words, vision, audio
        if not all(isinstance(word, (str, bytes)) for word in features[0]):
            raise ValueError
        features = (None, *features[1:], features[0])
    vision, audio = np.asarray(features[1]), np.asarray(features[2])
    scores = reals(label).reshape(-1)
    if not scores.size or any(a.ndim != 2 or a.dtype.kind not in "fiub" for a in (vision, audio)):
        raise ValueError
    lengths = [np.asarray(n, np.int64).item() for n in features[4:]] or [len(vision), len(audio)]
    words = [_string(word) for word in features[3]]
    return _Sample(_string(name), scores.tolist(), words, vision, audio, lengths)


def _string(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)


def _parsed(part: str, content: Sequence[Any]) -> list[_Sample]:
    samples = []
    for position, sample in enumerate(content):
        try:
            samples.append(_parse(sample))
        except (TypeError, ValueError, OverflowError):
            raise DataError(
                f"{part}: expected samples ((word ids, vision (T, w), audio (T, w), words), label, "
                "id), perhaps with the lengths of vision and audio after words, or MAG-BERT's ((words, "
                f"vision, audio), label, id); sample {position} is of another form"
            ) from None
    return samples


def _true_frames(part: str, modality: str, samples: Sequence[_Sample], report: Findings) -> list[Floats]:
    """The frames of a modality up to their claimed lengths."""
    none, cut, arrays = [], [], []
    for sample in samples:
        frames: npt.NDArray[Any] = getattr(sample, modality)
        length = sample.lengths[("vision", "audio").index(modality)]
        if length < 0:
            raise DataError(
                f"{part}: {sample.name!r} claims {length} frames of {modality}, expected 0 or more"
            )
        if length > len(frames):
            cut.append(sample.name)
        if length == 0 or not len(frames):
            none.append(sample.name)
            arrays.append(np.zeros((1, frames.shape[1]), np.float32))
            continue
        lengths = np.array([min(length, len(frames))], np.int64)
        arrays += take(frames[None], place(frames[None], lengths).starts, lengths)
    if none:
        report.add(f"{part} {no_frames(modality, none)}", {f"{part}.{modality}.no_frames": len(none)})
    if cut:
        report.warn(
            f"{part} {modality}: {len(cut)} utterances claim more frames than there are, such as {cut[0]!r}; "
            "the rest was cut before.",
            {f"{part}.{modality}.cut": len(cut)},
        )
    return arrays
