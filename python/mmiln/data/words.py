"""Spoken-style sentences about films, with a polarity that follows from their words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain, product
from typing import Final, TypeVar

import numpy as np

from mmiln.data.arrays import Floats

POLARITIES: Final = tuple(step / 2 for step in range(-6, 7))


def _list(words: str) -> list[str]:
    return words.split()


_MEDIUM: Final = {
    1: _list("good nice fun enjoyable funny cool solid touching clever sweet exciting charming"),
    -1: _list("bad boring dull slow weak silly predictable annoying lame messy bland tired"),
}
_STRONG: Final = {
    1: _list("amazing awesome great fantastic brilliant wonderful perfect excellent stunning"),
    -1: _list("terrible awful horrible dreadful pathetic unwatchable disgusting atrocious"),
}
_MORE: Final = _list("really very so extremely truly")
_LESS: Final = _list("slightly somewhat fairly rather")
_ASPECTS: Final = _list(
    "movie film plot story acting ending music script cast dialogue action humor character "
    "director sequel animation"
)
_FILLERS: Final = _list("um uh well so and like anyway actually")
_OPENINGS: Final = (
    "",
    "{} was",
    "the {} was",
    "i thought the {} was",
    "i have to say the {} was",
    "i mean the whole {} felt",
    "and if you ask me the {} is just",
)
_NEUTRAL: Final = (
    "we saw it",
    "you know",
    "i guess",
    "by the way",
    "i went alone",
    "there you go",
    "it has two parts",
    "i had not read the book",
    "this one is from last year",
    "it came out last week",
    "i watched it with my brother on friday",
    "it is about two hours long",
    "they go back to the city",
    "she has to find the book before the others do",
    "he plays the same man as in the first part",
    "there are a lot of people in that scene",
    "it starts in a small town near the sea",
    "so this is my review of it",
    "the trailer shows the house and the car and the two of them talking",
)

T = TypeVar("T")
Phrase = tuple[str, ...]


@cache
def phrases(polarity: float) -> tuple[Phrase, ...]:
    """All phrases for a polarity in half steps within [-3, 3]; 0 has the empty phrase alone.

    >>> phrases(1.5)[0], phrases(-0.5)[0], phrases(3.0)[0]
    (('good',), ('not', 'amazing'), ('really', 'amazing'))
    """
    sign = 1 if polarity > 0 else -1
    medium, strong = _MEDIUM[sign], _STRONG[sign]
    ways: dict[float, Iterable[Phrase]] = {
        0.0: [()],
        0.5: product(["not"], _STRONG[-sign]),
        1.0: chain(product(_LESS, medium), product(["not"], _MEDIUM[-sign])),
        1.5: product(medium),
        2.0: chain(product(_MORE, medium), product(_LESS, strong)),
        2.5: product(strong),
        3.0: product(_MORE, strong),
    }
    return tuple(ways[abs(polarity)])


def sentence(polarity: float, words: int, rng: np.random.Generator) -> list[str]:
    """A sentence of exactly ``words`` words (at least 2) that says this polarity once."""

    def pick(options: Sequence[T]) -> T:
        return options[int(rng.integers(len(options)))]

    said = list(pick(phrases(polarity)))
    if said:
        openings = [o.split() for o in _OPENINGS if len(o.split()) + len(said) <= words]
        said = [pick(_ASPECTS) if word == "{}" else word for word in pick(openings)] + said
    clauses = [said] if said else []
    unused = [clause.split() for clause in _NEUTRAL]
    while (missing := words - sum(map(len, clauses))) > 0:
        fitting = [clause for clause in unused if len(clause) <= missing]
        if fitting and rng.random() < 0.7:
            clause = pick(fitting)
            unused.remove(clause)
        else:
            clause = [pick(_FILLERS)]
        clauses.insert(int(rng.integers(len(clauses) + 1)), clause)
    return [word for clause in clauses for word in clause]


@cache
def embedding(word: str, width: int) -> Floats:
    """A fixed vector (width,) for a word: noise seeded by its letters, plus its sentiment.

    Polarity, and being a word that strengthens, weakens or negates, lie along common directions, as
    they do in learned embeddings.
    """
    vector = _noise(word, width)
    for kind, strength in _kinds(word).items():
        vector = vector + strength * _noise(f"<{kind}>", width)
    return vector.astype(np.float32)


def _kinds(word: str) -> dict[str, float]:
    kinds: dict[str, float] = {}
    for sign in (1, -1):
        if word in _MEDIUM[sign]:
            kinds["polarity"] = 1.5 * sign
        if word in _STRONG[sign]:
            kinds["polarity"] = 2.5 * sign
    if word in _MORE:
        kinds["more"] = 1.0
    if word in _LESS:
        kinds["less"] = 1.0
    if word == "not":
        kinds["not"] = 2.0
    return kinds


def _noise(word: str, width: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:8], "little")
    return np.random.default_rng(seed).standard_normal(width) * 0.5
