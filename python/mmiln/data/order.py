"""The order of utterances in training, and the ones that share a batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator
from torch.utils.data import RandomSampler, Sampler

from mmiln.errors import ConfigError

Order = Literal["faithful", "window", "buckets"]
BUCKET: Final = 32  # optimiser steps


class LengthAware(Sampler[list[int]]):
    """Batches of utterances of about the same length, drawn anew in each pass.

    Args:
        lengths: Lengths of all utterances, (N,).
        batch_size: Utterances of a batch; the last ones of a pass may have fewer.
        order: ``"window"``: sorts the utterances of each optimiser step by length into its batches; the step
            has the same utterances as without sorting. ``"buckets"``: sorts those of 32 steps together, then
            shuffles the batches.
        window: Batches of an optimiser step.
        generator: The only source of randomness.

    Raises:
        ConfigError: The order is unknown.
    """

    def __init__(
        self, lengths: npt.NDArray[np.int64], batch_size: int, order: Order, window: int, generator: Generator
    ) -> None:
        if order not in ("window", "buckets"):
            raise ConfigError(f'order must be "faithful", "window" or "buckets", got {order!r}')
        self._lengths = torch.from_numpy(lengths)
        self._batch_size = batch_size
        self._buckets = order == "buckets"
        self._together = batch_size * window * (BUCKET if self._buckets else 1)
        self._drawn = RandomSampler(range(len(lengths)), generator=generator)
        self._generator = generator

    def __len__(self) -> int:
        return -(-len(self._lengths) // self._batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        for group in torch.split(torch.tensor(list(self._drawn)), self._together):
            # Utterances of equal length stay in the order of the permutation.
            by_length = group[self._lengths[group].argsort(stable=True)]
            batches = torch.split(by_length, self._batch_size)
            places = torch.randperm(len(batches), generator=self._generator) if self._buckets else None
            for place in range(len(batches)) if places is None else places.tolist():
                yield batches[place].tolist()
