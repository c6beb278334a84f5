"""What a network reads: padded frames with their true lengths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Sequence:
    """Frames of one modality.

    Attributes:
        frames: (B, T, w), zeros after each utterance's end.
        lengths: (B,) int64, at least 1.
    """

    frames: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, packed: Tensor, lengths: Tensor) -> Sequence:
        """Pads packed frames (sum T, w), which hold all utterances one after the other."""
        return cls(pad_sequence(list(torch.split(packed, lengths.tolist())), batch_first=True), lengths)

    @property
    def mask(self) -> Tensor:
        """(B, T), true where there is a frame."""
        steps = torch.arange(self.frames.shape[1], device=self.frames.device)
        return steps < self.lengths[:, None]

    @property
    def first(self) -> Tensor:
        """(B, w): the first frame of each utterance, [CLS] where a BERT made the frames."""
        return self.frames[:, 0]

    @property
    def last(self) -> Tensor:
        """(B, w): the last true frame of each utterance."""
        return self.frames[torch.arange(len(self.frames), device=self.frames.device), self.lengths - 1]

    @property
    def inner(self) -> Sequence:
        """Frames without the first and the last ([CLS] and [SEP] of a BERT), at least one."""
        within = Sequence(pad(self.frames, (0, 0, -1, 1)), (self.lengths - 2).clamp(min=1))
        return within.map(within.frames)

    @property
    def mean(self) -> Tensor:
        """(B, w): the mean of each utterance's frames."""
        return self.frames.sum(1) / self.lengths[:, None]

    def take(self, some: Tensor) -> Sequence:
        """The utterances at these positions, padded to the longest of them."""
        lengths = self.lengths[some]
        return Sequence(self.frames[some, : int(lengths.max())], lengths)

    def map(self, frames: Tensor) -> Sequence:
        """Other frames with the same lengths; values after the ends are set to zero."""
        return Sequence(frames * self.mask[:, :, None], self.lengths)


@dataclass(frozen=True)
class Inputs:
    """A batch of B utterances.

    Attributes:
        tokens: (B, T, 2) int64, word-piece ids and segments, where the model has a text encoder.
        text: Features of each token, where it has none.
        audio, vision: Frames.
        labels: (B,), and index: (B,) int64, positions in the training set; ``None`` where unknown.
        weights: (B,), of the utterances in the task loss; ``None`` where all are 1.
    """

    tokens: Sequence | None = None
    text: Sequence | None = None
    audio: Sequence | None = None
    vision: Sequence | None = None
    labels: Tensor | None = None
    index: Tensor | None = None
    weights: Tensor | None = None

    @classmethod
    def of(cls, parts: Mapping[str, Tensor], device: str) -> Inputs:
        """Pads the parts of a packed batch: each modality's frames and lengths, labels, index."""
        parts = {name: tensor.to(device) for name, tensor in parts.items()}
        sequences = {
            name: Sequence.of(parts[name], parts[f"{name}_lengths"])
            for name in ("tokens", "text", "audio", "vision")
            if name in parts
        }
        labels, index, weights = map(parts.get, ("labels", "index", "weights"))
        return cls(**sequences, labels=labels, index=index, weights=weights)

    def __len__(self) -> int:
        """B; 0 where the batch holds nothing."""
        lengths = (s.lengths for s in (self.tokens, self.text, self.audio, self.vision) if s is not None)
        return next((len(each) for each in (*lengths, self.labels, self.index) if each is not None), 0)

    def select(self, rows: Tensor) -> Inputs:
        """The utterances at these positions."""

        def taken(sequence: Sequence | None) -> Sequence | None:
            return None if sequence is None else sequence.take(rows)

        return Inputs(
            taken(self.tokens),
            taken(self.text),
            taken(self.audio),
            taken(self.vision),
            None if self.labels is None else self.labels[rows],
            None if self.index is None else self.index[rows],
            None if self.weights is None else self.weights[rows],
        )

    def mean(self, errors: Tensor) -> Tensor:
        """The mean of the utterances' errors (B,), by their weights: sum_i w_i e_i / sum_i w_i."""
        return errors.mean() if self.weights is None else (errors * self.weights).sum() / self.weights.sum()
