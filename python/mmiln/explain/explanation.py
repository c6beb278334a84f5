"""The explanation of one utterance's score, as text and as HTML for notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from ..labels import MOSI, LabelRange
from ..pages import render
from ..plotting.checks import even
from .attribution import Gates

BLOCKS: Final = "▁▂▃▄▅▆▇█"
COLUMNS: Final = 60  # of a timeline in text
SHOWN: Final = 8  # words in text, those that moved the score most
NUMBERED: Final = 5  # words on the page that have their weight beside them
STRONGEST: Final = 0.55  # opacity behind a word that moved the score by a sixth of the range, or more

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Word:
    """A word, or a token where words are not known.

    Attributes:
        text: The word in the tokenizer's spelling.
        weight: The score minus the score without the word.
        tokens: Places of its tokens in :attr:`Explanation.tokens`.
    """

    text: str
    weight: float
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Similar:
    """A training utterance that is like the one explained.

    Attributes:
        id, text, truth: The utterance's; ``text`` and ``truth`` are ``None`` where they are not known.
        score: What the model predicts.
        cosine: The cosine of the features that both scores are computed from (``F_multimodal``).
    """

    id: str
    text: str | None
    truth: float | None
    score: float
    cosine: float


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """Why an utterance has its score. Print it, or let a notebook show it.

    All weights and contributions are differences of predicted scores, in sentiment points: the model scores
    the utterance again without a word, or with a modality replaced. They do not add up to the score.

    Attributes:
        id, text, truth: The utterance's; ``text`` and ``truth`` are ``None`` where they are not known.
        tokens: Names of the T_t tokens that the text-led streams read; empty without text.
        words: Its words with their weights. A word's weight is the score minus the score of the utterance
            without it: without all its word pieces, or its frame of text features; audio and vision stay.
            If the text is a single token, its weight is the contribution of text.
        weights: ``(T_t,)``: the weight of each token's word; 0 for [CLS] and [SEP], which stay in.
        score: What the model predicts.
        unimodal: Scores of the heads of audio and vision alone.
        contributions: By modality, the score minus its mean with this modality taken from 32 training
            utterances; it includes the modality's effect through other modalities.
        gates: By layer, stream and gate (``retain``, ``compound``, ``source``) the mean over channels and
            time, 0 shut, 1 open. Empty in the variant without gates.
        attention: By ``audio`` and ``vision`` the probabilities of the cross attention (21),
            ``(L, h, T_t, T_n)``. Empty without SAG-Transformers.
        similar: Training utterances, the nearest first.
        label_range: The lowest and the highest possible score. Colours of words reach their strongest at a
            sixth of it, 1 point in [-3, 3], so that they mean the same for every utterance.
    """

    id: str
    text: str | None
    tokens: list[str]
    words: tuple[Word, ...]
    weights: npt.NDArray[np.float64]
    truth: float | None
    score: float
    unimodal: dict[str, float]
    contributions: dict[str, float]
    gates: list[Gates]
    attention: dict[str, Floats]
    similar: tuple[Similar, ...]
    label_range: LabelRange = MOSI

    @property
    def timeline(self) -> dict[str, Floats]:
        """How much of the last layer's attention each frame gets ``(T_n,)``, by modality.

        It is the mean over heads and text positions, sums to 1, and says where the text-led stream looks, not
        what moves the score.
        """
        return {name: maps[-1].mean(axis=(0, 1)) for name, maps in self.attention.items()}

    def __repr__(self) -> str:
        return f"Explanation({self.id!r}, score={self.score:+.2f}{_truth('=', self.truth)})"

    def __str__(self) -> str:
        heads = "".join(f", {name} alone {score:+.2f}" for name, score in self.unimodal.items())
        lines = [f"{self.id}: score {self.score:+.2f}{_truth(' ', self.truth)}{heads}"]
        if self.text is not None:
            lines.append(f"  {self.text}")
        if self.words:
            most = sorted(self.words, key=lambda word: -abs(word.weight))[:SHOWN]
            listed = ", ".join(f"{word.text} {word.weight:+.2f}" for word in most)
            lines += ["words that moved it most (score minus score without the word)", f"  {listed}"]
        listed = ", ".join(f"{name} {value:+.2f}" for name, value in self.contributions.items())
        lines += ["modalities (score minus mean score with that of other utterances)", f"  {listed}"]
        if self.attention:
            lines.append("attention of the text over frames, last layer")
            for name, shares in self.timeline.items():
                lines.append(f"  {name:<6} {'' if even(shares) else _bars(shares) + ' '}{_extent(shares)}")
        if self.gates:
            lines.append("gates, 0 shut, 1 open; a stream of one modality has no source gate")
        for i, streams in enumerate(self.gates, 1):
            for stream, gates in streams.items():
                listed = ", ".join(f"{gate} {value:.3f}" for gate, value in gates.items())
                lines.append(f"  layer {i} {stream:<11} {listed}")
        lines.append("similar training utterances")
        for like in self.similar:
            lines.append(
                f"  cosine {like.cosine:.3f}, score {like.score:+.2f}{_truth(' ', like.truth)}: "
                f"{like.id}{'' if like.text is None else f'  {like.text}'}"
            )
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        strongest = sorted(self.words, key=lambda word: -abs(word.weight))[:NUMBERED]
        return render(
            "explanation.html",
            e=self,
            shade=self._shade,
            full=self._full,
            numbered=[word for word in strongest if abs(word.weight) >= 0.005],
            even=even,
            path=_path,
            extent=_extent,
            gates=self._gate_rows(),
        )

    @property
    def _full(self) -> float:
        """How far a word of the strongest colour moves the score."""
        low, high = self.label_range
        return (high - low) / 6

    def _shade(self, weight: float) -> str:
        """A colour behind a word that text can be read on, light or dark."""
        red, green, blue = (0, 114, 178) if weight > 0 else (213, 94, 0)  # Okabe and Ito 2008
        return f"rgba({red}, {green}, {blue}, {STRONGEST * min(1, abs(weight) / self._full):.3f})"

    def _gate_rows(self) -> list[tuple[int, str, dict[str, float]]]:
        return [(i, stream, g) for i, layer in enumerate(self.gates, 1) for stream, g in layer.items()]


def _extent(shares: Floats) -> str:
    """How many frames, and how far from even the attention is."""
    if len(shares) == 1:
        return "1 frame"
    if even(shares):
        return f"even over {len(shares)} frames, {1 / len(shares):.1%} on each"
    return f"{len(shares)} frames, at most {shares.max():.1%} on one, evenly {1 / len(shares):.1%}"


def _bars(shares: Floats) -> str:
    """A timeline in one line: the mean of each of at most 60 pieces, as a share of the largest."""
    pieces = np.array_split(shares, min(COLUMNS, len(shares)))
    means = np.array([piece.mean() for piece in pieces])
    return "".join(BLOCKS[round(height * (len(BLOCKS) - 1))] for height in means / means.max())


def _path(shares: Floats) -> str:
    """A timeline as the path of an area, a frame one unit wide and the largest share one unit high."""
    steps = " ".join(f"V{1 - share:.3f} h1" for share in shares / shares.max())
    return f"M0 1 {steps} V1 Z"


def _truth(sign: str, truth: float | None) -> str:
    return "" if truth is None else f", truth{sign}{truth:+.2f}"
