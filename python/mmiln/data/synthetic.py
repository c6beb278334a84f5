"""A stand-in for CMU-MOSI with its shapes and a structure that is known exactly.

Each utterance has a sentiment y. Its words, voice and face are three noisy views of y; given y they
are independent, so each adds something. In some utterances the words are ironic: they say the
opposite, while voice and face tell the truth. Since the generator is known, so is the best that any
model can reach, from text alone and from everything: the ceiling.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from mmiln.data.arrays import Floats, Ints
from mmiln.data.dataset import Dataset
from mmiln.data.findings import Findings
from mmiln.data.split import Split
from mmiln.data.words import POLARITIES, embedding, sentence
from mmiln.errors import ConfigError

Doubles = npt.NDArray[np.float64]

# Shares of the rounded labels -3..3 in CMU-MOSI's train split; five annotators make steps of 0.2.
_SHARES: Final = (0.019, 0.155, 0.177, 0.193, 0.177, 0.244, 0.035)
_LABELS: Final = np.arange(-15, 16) / 5
_GRADES: Final = np.rint(_LABELS).astype(int) + 3
_PRIOR: Final = (np.array(_SHARES) / np.bincount(_GRADES))[_GRADES]

_IRONIC: Final = 0.1  # share of utterances whose words say the opposite
_TEXT_NOISE: Final = 0.7  # standard deviations of the views around y
_VIEW_NOISE: Final = {"audio": 2.0, "vision": 2.4}
# The views that a predictor sees beside the words, by the name of its ceiling.
_SEEN: Final = {
    "text": (),
    "text_audio": ("audio",),
    "text_vision": ("vision",),
    "full": ("audio", "vision"),
}

# Words per utterance are log-normal; with [CLS] and [SEP] they have CMU-MOSI's 14.8 tokens.
_WORDS_LOG_MEAN: Final = 2.335
_WORDS_LOG_STD: Final = 0.66
_MIN_WORDS, _MAX_WORDS = 3, 48
_FRAMES_PER_WORD: Final = {"audio": 2.85, "vision": 3.13}
_MAX_FRAMES: Final = {"audio": 375, "vision": 500}
_PACE_STD: Final = 0.35

_FRAME_MEMORY: Final = 0.8  # AR(1) coefficient
_CLIPS: Final = (12, 36)  # clips of a video
_EVENT: Final = np.sin(np.linspace(0, 2 * np.pi, 9))[1:-1]  # up, then down: invisible to a mean


class Ceiling(NamedTuple):
    """What the best possible predictor scores on the test split; small splits scatter."""

    mae: float
    corr: float


class SyntheticDataset(Dataset):
    """A :class:`Dataset` whose generator is known.

    Attributes:
        ceiling: by ``"text"`` (words alone), ``"text_audio"``, ``"text_vision"`` and ``"full"`` (words,
            voice, face), the best possible result on the test split: posterior median and mean of the
            label given the latents.
        latents: by split, (N, 3): the sentiment that words, voice and face express.
    """

    ceiling: dict[str, Ceiling]
    latents: dict[str, Doubles]


def synthetic(
    n_train: int = 600,
    n_valid: int = 150,
    n_test: int = 300,
    *,
    seed: int = 0,
    text_dim: int = 64,
    audio_dim: int = 5,
    vision_dim: int = 20,
) -> SyntheticDataset:
    """Generate a data set of CMU-MOSI's shape, with ``raw_text``, ``text``, ``audio``, ``vision``.

    Args:
        n_train, n_valid, n_test: utterances, at least 2 each.
        seed: equal seeds give equal bytes.
        text_dim: width of the word features.
        audio_dim, vision_dim: widths of the frames, at least 2.

    Raises:
        ConfigError: a number is too small.

    >>> data = synthetic(40, 10, 100)
    >>> data
    SyntheticDataset('synthetic', train 40, valid 10, test 100; text, raw_text, audio, vision)
    >>> data.ceiling["full"].mae < data.ceiling["text"].mae
    True
    """
    sizes = {"train": n_train, "valid": n_valid, "test": n_test}
    widths = {"text": text_dim, "audio": audio_dim, "vision": vision_dim}
    if min(*sizes.values(), *widths.values()) < 2:
        raise ConfigError(f"expected sizes and widths of at least 2, got {sizes} and {widths}")
    streams = np.random.SeedSequence(seed).spawn(len(sizes))
    splits: dict[str, Split] = {}
    latents: dict[str, Doubles] = {}
    for (name, size), stream in zip(sizes.items(), streams, strict=True):
        rng = np.random.default_rng(stream)
        labels, latents[name] = _draw_latents(size, rng)
        splits[name] = _split(name, labels, latents[name], widths, rng)
    report = Findings()
    report.add(f"Generated with seed {seed}; {_IRONIC:.0%} of the utterances are ironic.")
    dataset = SyntheticDataset(
        splits["train"], splits["valid"], splits["test"], name="synthetic", report=report
    )
    dataset.latents = latents
    dataset.ceiling = {
        name: _ceiling(splits["test"].truth, latents["test"], views) for name, views in _SEEN.items()
    }
    return dataset


def _draw_latents(size: int, rng: np.random.Generator) -> tuple[Doubles, Doubles]:
    """Labels (N,) and the noisy views of them in words, voice and face (N, 3)."""
    labels = rng.choice(_LABELS, size, p=_PRIOR / _PRIOR.sum())
    ironic = rng.random(size) < _IRONIC
    text = np.where(ironic, -labels, labels) + _TEXT_NOISE * rng.standard_normal(size)
    views = [labels + std * rng.standard_normal(size) for std in _VIEW_NOISE.values()]
    return labels, np.stack([np.clip(np.rint(text * 2) / 2, -3, 3), *views], axis=1)


def _ceiling(labels: Floats, latents: Doubles, views: tuple[str, ...]) -> Ceiling:
    """The best scores by Bayes' rule: the posterior's median for MAE, its mean for corr."""
    # The words' polarity was rounded to half steps and clipped: a normal cut midway between steps.
    middles = (np.array(POLARITIES)[:-1] + 0.25)[:, None]
    cumulative = np.vectorize(NormalDist().cdf)
    honest = cumulative((middles - _LABELS) / _TEXT_NOISE)
    ironic = cumulative((middles + _LABELS) / _TEXT_NOISE)
    below = (1 - _IRONIC) * honest + _IRONIC * ironic
    text_given_label = np.diff(below, axis=0, prepend=0.0, append=1.0)  # (13, 31)
    posterior = _PRIOR * text_given_label[np.rint(latents[:, 0] * 2).astype(int) + 6]  # (N, 31)
    for name, view in zip(_VIEW_NOISE, latents[:, 1:].T, strict=True):
        if name in views:
            error = (view[:, None] - _LABELS) / _VIEW_NOISE[name]
            posterior = posterior * np.exp(-(error**2) / 2)
    posterior /= posterior.sum(axis=1, keepdims=True)
    median = _LABELS[(np.cumsum(posterior, axis=1) >= 0.5).argmax(axis=1)]
    mae = float(np.abs(median - labels).mean())
    return Ceiling(mae, float(np.corrcoef(posterior @ _LABELS, labels)[0, 1]))


def _split(
    name: str, labels: Doubles, latents: Doubles, widths: dict[str, int], rng: np.random.Generator
) -> Split:
    words = np.exp(_WORDS_LOG_MEAN + _WORDS_LOG_STD * rng.standard_normal(len(labels)))
    counts = np.clip(np.rint(words), _MIN_WORDS, _MAX_WORDS).astype(np.int64)
    sentences = [
        sentence(polarity, count, rng)
        for polarity, count in zip(latents[:, 0].tolist(), counts.tolist(), strict=True)
    ]
    tokens = (["[CLS]", *words, "[SEP]"] for words in sentences)
    return Split(
        _ids(name, len(labels), rng),
        labels.astype(np.float32),
        text=[np.stack([embedding(word, widths["text"]) for word in t]) for t in tokens],
        raw_text=[" ".join(words) for words in sentences],
        audio=_frames("audio", latents[:, 1], counts, widths["audio"], rng),
        vision=_frames("vision", latents[:, 2], counts, widths["vision"], rng),
    )


def _ids(name: str, size: int, rng: np.random.Generator) -> list[str]:
    ids: list[str] = []
    video = 0
    while len(ids) < size:
        clips = int(rng.integers(*_CLIPS))
        ids += [f"{name}{video:03d}$_${clip}" for clip in range(min(clips, size - len(ids)))]
        video += 1
    return ids


def _frames(
    modality: str, latent: Doubles, words: Ints, width: int, rng: np.random.Generator
) -> list[Floats]:
    """AR(1) noise whose mean and events show the latent: N arrays (T, width)."""
    pace = _FRAMES_PER_WORD[modality] * np.exp(_PACE_STD * rng.standard_normal(len(words)))
    lengths = np.clip(np.rint(words * pace), 3, _MAX_FRAMES[modality]).astype(np.int64)
    noise = rng.standard_normal((lengths.max(), len(words), width), np.float32)
    for step in range(1, len(noise)):
        noise[step] *= np.sqrt(1 - _FRAME_MEMORY**2)
        noise[step] += _FRAME_MEMORY * noise[step - 1]
    # Every seed has the same columns for the mean and for the events.
    column = np.arange(width)
    shift = np.where(column % 2 == 0, 0.5, 0.0) * np.where(column % 4 == 0, 1, -1)
    swing = np.where(column % 2 == 1, 1.0, 0.0)
    frames = []
    for i, length in enumerate(lengths.tolist()):
        utterance = noise[:length, i] + latent[i] * shift
        for _ in range(1 + length // 20):
            event = _EVENT[:length]
            start = int(rng.integers(length - len(event) + 1))
            utterance[start : start + len(event)] += latent[i] * np.outer(event, swing)
        frames.append(utterance.astype(np.float32))
    return frames
