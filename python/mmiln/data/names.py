"""Names of fields and parts, and what users call them elsewhere."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

MODALITIES: Final = ("text", "audio", "vision")
FIELDS: Final = ("text", "text_bert", "raw_text", "audio", "vision")
#: MMSA's keys of human labels of one modality.
UNIMODAL: Final = {"T": "text", "A": "audio", "V": "vision"}
#: Keys of batches and of utterances.
KEYS: Final = (
    *("text", "text_bert", "raw_text", "audio", "vision"),
    *("text_lengths", "audio_lengths", "vision_lengths", "padding_side", "labels", "weights", "index", "id"),
)
# Keys that MMILN ignores: of MMSA's loader for missing modalities, and of MMSA-FET's features of one clip.
MMSA_EXTRAS: Final = {"config"} | {
    f"{m}{end}" for m in MODALITIES for end in ("_m", "_mask", "_missing_mask")
}

PARTS: Final = ("train", "valid", "test")
#: The parts of a dataset by the names that files use.
SPLITS: Final = {
    "train": "train", "valid": "valid", "dev": "valid", "test": "test",
    "training": "train", "val": "valid", "validation": "valid", "testing": "test",
}  # fmt: skip
_MODALITY: Final = {
    "feature_t": "text", "language": "text",
    "feature_a": "audio", "acoustic": "audio",
    "feature_v": "vision", "video": "vision", "visual": "vision",
}  # fmt: skip
#: Fields of a part by the names that other tools use.
ALIASES: Final = {
    **_MODALITY,
    **{f"{other}_lengths": f"{name}_lengths" for other, name in _MODALITY.items()},
    "ids": "id", "label": "regression_labels", "labels": "regression_labels", "sentence": "raw_text",
    "sentences": "raw_text", "bert": "text_bert",
}  # fmt: skip


def part_of(stem: str) -> str:
    """The part that a file of one part holds, by its name; test where that does not tell."""
    return SPLITS.get(stem.strip().lower(), "test")


def near(name: object, known: Iterable[str]) -> str | None:
    """The known name that a key most likely stands for; None where none is near."""
    known = list(known)
    plain = str(name).strip().lower()
    if (alias := ALIASES.get(plain)) in known:
        return alias
    return next(iter(difflib.get_close_matches(plain, known, n=1, cutoff=0.7)), None)


def renamed(fields: Mapping[Any, Any], known: Iterable[str]) -> dict[str, str]:
    """For each known field that is absent, the key that surely stands for it.

    >>> renamed({"video": 1, "audio": 2, "acoustic": 3}, ["audio", "vision"])
    {'vision': 'video'}
    """
    known = set(known)
    found: dict[str, str] = {}
    for key in fields:
        plain = str(key).strip().lower()
        name = plain if plain in known else ALIASES.get(plain, plain)
        if name in known and fields.get(name) is None and fields[key] is not None:
            found.setdefault(name, key)
    return found
