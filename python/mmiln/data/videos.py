"""Which video an utterance is of, and parts of whole videos."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from typing import Final

from mmiln.data.split import Split
from mmiln.errors import DataError

SHARES: Final = {"train": 0.6, "valid": 0.2, "test": 0.2}

_CLIP: Final = re.compile(r"(.+)\[[^\]]*\]|(.+?)\$_\$.*|(.+)_[^_]*")


def video_of(utterance: str) -> str:
    """The video's part of an id.

    >>> [video_of(name) for name in ("a_b[3]", "a_b$_$3", "a_b_3", "lone")]
    ['a_b', 'a_b', 'a_b', 'lone']
    """
    match = _CLIP.fullmatch(utterance)
    return utterance if match is None else match[match.lastindex or 0]


def shared_out(split: Split, seed: int) -> dict[str, Split]:
    """Train, valid and test of a split, whole videos together, about 6 : 2 : 2, as ``seed`` determines.

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
