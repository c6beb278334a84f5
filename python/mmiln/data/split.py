"""A split in memory: utterances with their true lengths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import ConcatDataset, DataLoader
from torch.utils.data import Dataset as TorchDataset

from mmiln.data.arrays import Floats, Ints, positions, single
from mmiln.data.batching import Utterance, collate
from mmiln.data.formats.mmsa_loader import true_items
from mmiln.data.items import (
    Item,
    column,
    cut,
    frames_of,
    labels_of,
    tokens_of,
    weights_of,
    without_padding,
)
from mmiln.data.known import Known
from mmiln.data.names import FIELDS, MODALITIES, UNIMODAL
from mmiln.data.order import LengthAware, Order
from mmiln.data.sequences import Joined, Ragged
from mmiln.errors import ConfigError, DataError
from mmiln.labels import MOSI, LabelRange
from mmiln.pages import html

if TYPE_CHECKING:
    import pandas as pd


@dataclass(eq=False, repr=False)
class Split(TorchDataset[Item]):
    """Utterances of one split, each with its true frames only; a sequence of them.

    An int selects an utterance; a slice, positions or a mask (of NumPy, torch or pandas) select a split, and
    ``+`` joins two.

    Attributes:
        id: N names.
        labels: (N,) float32 in ``label_range``; None where they are not known.
        text: N arrays (T, w) float32, features of each token.
        text_bert: N arrays (3, T) int64: token ids, attention mask, segments.
        raw_text: N sentences.
        audio, vision: N arrays (T, w) float32.
        label_range: the lowest and the highest label that is possible.
        unimodal_labels: (N,) float32 by modality: labels that people gave who saw that modality alone, as
            CH-SIMS has them.
        weights: (N,) float32, 0 or more: weights of the utterances in the task loss of training, relative to
            the others of a batch; measures do not use them. None where all are 1.
        known: what the conversion computed, of a converted data set.

    Text, audio and vision may also be given as padded arrays (N, T, w) with the true lengths (N,):
    ``audio_lengths`` and so on, or where they have one frame a token, the mask of a padded ``text_bert``
    (N, 3, T). Which end is padded is seen from the frames; :meth:`lengths` returns the lengths.

    Absent modalities are None. In a converted data set modalities are not lists: each access takes an array
    from the file, which may not be written to. An utterance without any frame of a modality keeps one of
    zeros, of which :class:`mmiln.errors.DataWarning` warns.

    Raises DataError where counts, shapes or labels are wrong.

    >>> split = Split(["a", "b"], [1, -1], audio=[np.ones((3, 5)), np.ones((2, 5))])
    >>> split.lengths("audio"), split.dims
    (array([3, 2]), {'text': 0, 'audio': 5, 'vision': 0})
    >>> same = Split(["a", "b"], [1, -1], audio=np.ones((2, 3, 5)), audio_lengths=[3, 2])
    >>> same.fingerprint() == split.fingerprint(), split[1:], split[split.labels > 0].id
    (True, Split(1 utterances, audio), ['a'])
    """

    id: list[str]
    labels: Floats | None = None
    text: Sequence[Floats] | None = None
    text_bert: Sequence[Ints] | None = None
    raw_text: list[str] | None = None
    audio: Sequence[Floats] | None = None
    vision: Sequence[Floats] | None = None
    label_range: LabelRange = MOSI
    unimodal_labels: dict[str, Floats] = field(default_factory=dict)
    weights: Floats | None = None
    known: Known | None = field(default=None, init=False)
    text_lengths: InitVar[npt.ArrayLike | None] = None
    audio_lengths: InitVar[npt.ArrayLike | None] = None
    vision_lengths: InitVar[npt.ArrayLike | None] = None

    def __post_init__(
        self,
        text_lengths: npt.ArrayLike | None,
        audio_lengths: npt.ArrayLike | None,
        vision_lengths: npt.ArrayLike | None,
    ) -> None:
        if not self.id:
            raise DataError("expected at least one utterance in a split, got none")
        for text in (*self.id, *(self.raw_text or ())):
            if not isinstance(text, str):
                raise DataError(f"expected ids and raw_text to be text, got {text!r}")
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise DataError(f"expected ids and raw_text to be text, got half a character in {text!r}")
        self.label_range = LabelRange.checked(self.label_range)
        given = {"labels": self.labels} | {f"{name} labels": v for name, v in self.unimodal_labels.items()}
        scores = {name: single(values) for name, values in given.items() if values is not None}
        for name, values in scores.items():
            self._check_labels(name, values)
        self.labels = scores.pop("labels", None)
        self.unimodal_labels = {name.removesuffix(" labels"): values for name, values in scores.items()}
        if self.weights is not None:
            self.weights = self._checked_weights(single(self.weights))
        counts = {"id": len(self.id)} | {name: len(getattr(self, name)) for name in self.fields}
        if len(set(counts.values())) > 1:
            raise DataError(f"expected as many entries in every field, got {counts}")
        for name, lengths in zip(MODALITIES, (text_lengths, audio_lengths, vision_lengths), strict=True):
            frames = getattr(self, name)
            if frames is not None and not isinstance(frames, Ragged):  # a Ragged is already as required
                true = without_padding(name, frames, lengths, self.text_bert)
                setattr(self, name, frames_of(name, self.id, true))
        if self.text_bert is not None and not isinstance(self.text_bert, Ragged):
            self.text_bert = [tokens_of(*pair) for pair in zip(self.id, self.text_bert, strict=True)]

    def _check_labels(self, name: str, labels: Floats) -> None:
        if labels.ndim != 1 or len(labels) != len(self.id):
            raise DataError(
                f"expected {name} of shape (N,), one for each of {len(self.id)} ids, got {labels.shape}"
            )
        bad = self.label_range.outside(labels)
        if bad.any():
            worst = int(bad.argmax())
            raise DataError(
                f"expected finite {name} in {self.label_range}, got {labels[worst]:g} for "
                f"{self.id[worst]!r} and {int(bad.sum())} such labels in all; name the range of other "
                "labels by load(..., labels=(lo, hi)) or Split(..., label_range=(lo, hi))"
            )

    def _checked_weights(self, weights: Floats) -> Floats:
        if weights.shape != (len(self.id),):
            raise DataError(
                f"expected weights of shape (N,), one for each of {len(self.id)} ids, got {weights.shape}"
            )
        bad = ~(np.isfinite(weights) & (weights >= 0))
        if bad.any():
            worst = int(bad.argmax())
            raise DataError(
                f"expected finite weights of 0 or more, got {weights[worst]:g} for {self.id[worst]!r} and "
                f"{int(bad.sum())} such weights in all"
            )
        return weights

    @property
    def truth(self) -> Floats:
        """The labels.

        Raises DataError where there are none.
        """
        if self.labels is None:
            raise DataError("this needs labels, and the split has none: it can be predicted, not measured")
        return self.labels

    @property
    def fields(self) -> list[str]:
        """Which of text, text_bert, raw_text, audio and vision are present."""
        return [name for name in FIELDS if getattr(self, name) is not None]

    @property
    def dims(self) -> dict[str, int]:
        """Width of the text, audio and vision features; 0 where absent."""
        frames = {name: getattr(self, name) for name in MODALITIES}
        return {name: f[0].shape[1] if f is not None else 0 for name, f in frames.items()}

    def lengths(self, modality: str) -> Ints:
        """True lengths (N,) of text (tokens), audio or vision (frames).

        Raises DataError where the split has no such sequence.
        """
        if modality == "text" and self.text_bert is not None:
            return lengths_of(self.text_bert, axis=1)
        frames = getattr(self, modality, None) if modality in MODALITIES else None
        if frames is None:
            raise DataError(f"expected a sequence among {self.fields}, got {modality!r}")
        return lengths_of(frames, axis=0)

    def __len__(self) -> int:
        return len(self.id)

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice | Iterable[int]) -> Split: ...
    def __getitem__(self, index: Any) -> Item | Split:
        if isinstance(index, slice) or np.ndim(index):
            return self.subset(index)
        position = range(len(self))[index]
        item = Utterance({name: getattr(self, name)[position] for name in self.fields})
        if self.labels is not None:
            item["labels"] = float(self.labels[position])
        if self.unimodal_labels:
            keys = {key: self.unimodal_labels[m] for key, m in UNIMODAL.items() if m in self.unimodal_labels}
            item["labels"] = {
                key: float(values[position]) for key, values in ({"M": self.truth} | keys).items()
            }
        if self.weights is not None:
            item["weights"] = float(self.weights[position])
        item |= {"index": position, "id": self.id[position]}
        return item

    def __add__(self, other: TorchDataset[Item]) -> Split | ConcatDataset[Item]:  # type: ignore[override]
        return Split.concat([self, other]) if isinstance(other, Split) else super().__add__(other)

    def __iter__(self) -> Iterator[Item]:
        return (self[position] for position in range(len(self)))

    def __repr__(self) -> str:
        return f"Split({len(self)} utterances, {', '.join(self.fields)})"

    def _repr_html_(self) -> str:
        """Labels and lengths."""
        from mmiln.data.describe import tables

        return html.code(self) + tables({"this": self})

    def loader(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int = 0,
        order: Order = "faithful",
        window: int = 1,
        num_workers: int = 0,
    ) -> DataLoader[Item]:
        """Batches from :func:`collate`, in an order that ``seed`` alone determines.

        Each pass over a shuffled loader has a new order, the same for any number of workers. No global random
        state is touched.

        Args:
            batch_size: Utterances of a batch.
            shuffle: Whether to draw an order; otherwise the split's own is kept.
            seed: Seed of the drawn order.
            order: ``"faithful"`` keeps the drawn order; ``"window"`` and ``"buckets"`` batch utterances of
                similar length: see :class:`mmiln.data.order.LengthAware`.
            window: Batches of an optimiser step, for ``"window"`` and ``"buckets"``.
            num_workers: Processes that read utterances.

        Raises:
            ConfigError: The order is unknown, or utterances are to be sorted but not shuffled.
        """
        how: dict[str, Any] = {"batch_size": batch_size, "shuffle": shuffle}
        generator = torch.Generator().manual_seed(seed)
        if order != "faithful":
            if not shuffle:
                raise ConfigError(f"order={order!r} is a way to shuffle: give shuffle=True")
            longest = np.max([self.lengths(name) for name in self.sequences], axis=0)
            how = {"batch_sampler": LengthAware(longest, batch_size, order, window, generator)}
        return DataLoader(self, num_workers=num_workers, collate_fn=collate, generator=generator, **how)

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all ids, labels and arrays: equal contents, equal fingerprint."""
        if self.known is not None and self.known.contents == self.contents():
            return self.known.fingerprint
        digest = hashlib.sha256()
        self.update(digest)
        return digest.hexdigest()

    def update(self, digest: hashlib._Hash) -> None:
        """Adds all ids, labels and arrays to a digest."""
        _update(digest, [*self._label_bytes(), *(s.encode() for s in self.id)])
        for name in self.fields:
            _update(digest, getattr(self, name))

    def _label_bytes(self) -> list[bytes | Floats]:
        """All that is known of labels; of labels in [-3, 3] alone, those."""
        said = [] if self.label_range == MOSI else [str(self.label_range).encode()]
        of_one = [part for name, v in self.unimodal_labels.items() for part in (name.encode(), v)]
        weights = () if self.weights is None else (b"weights", self.weights)
        return [b"no labels" if self.labels is None else self.labels, *said, *of_one, *weights]

    def contents(self) -> object:
        """A value that stays equal while nothing is changed, for sequences that can't be written to."""
        texts = [None if texts is None else tuple(texts) for texts in (self.id, self.raw_text)]
        labels = tuple(part if isinstance(part, bytes) else part.tobytes() for part in self._label_bytes())
        return (*texts, *labels, self.text, self.text_bert, self.audio, self.vision)

    def subset(self, indices: slice | Iterable[int]) -> Split:
        """The utterances at these positions, in this order, indexed anew from 0; arrays shared.

        ``split[indices]`` is the same.

        Args:
            indices: Positions, a slice, or a mask of N booleans.

        Raises:
            DataError: They are none of these, or select nothing.
            IndexError: There is no such position.
        """
        at = positions(indices, len(self))
        fields = {name: _chosen(getattr(self, name), at) for name in self.fields}
        labels = None if self.labels is None else self.labels[at]
        unimodal = {name: values[at] for name, values in self.unimodal_labels.items()}
        weights = None if self.weights is None else self.weights[at]
        return replace(
            self,
            id=[self.id[i] for i in at],
            labels=labels,
            unimodal_labels=unimodal,
            weights=weights,
            **fields,
        )

    @classmethod
    def concat(cls, splits: Iterable[Split]) -> Split:
        """The utterances of several splits as one, indexed anew from 0; arrays shared.

        Raises:
            DataError: There is no split, or they differ in fields, widths, range of labels, or in whether
                there are labels.
        """
        parts = list(splits)
        if not parts:
            raise DataError("expected at least one split to join, got none")
        check_alike(dict(enumerate(parts)))
        having = [[part.labels is not None, *sorted(part.unimodal_labels)] for part in parts]
        if any(each != having[0] for each in having):
            raise DataError("expected labels of the same kinds in every split, or in none of them")
        return replace(
            parts[0],
            id=[name for part in parts for name in part.id],
            labels=None if parts[0].labels is None else np.concatenate([part.truth for part in parts]),
            unimodal_labels={
                name: np.concatenate([part.unimodal_labels[name] for part in parts])
                for name in parts[0].unimodal_labels
            },
            weights=_joined_weights(parts),
            **{name: _one([getattr(part, name) for part in parts]) for name in parts[0].fields},
        )

    @classmethod
    def from_items(
        cls,
        items: Iterable[Mapping[str, Any]],
        labels: npt.ArrayLike | None = None,
        label_range: tuple[float, float] = MOSI,
    ) -> Split:
        """A split of dictionaries such as a split, or a torch dataset like MMSA's, yields.

        Args:
            items: Dictionaries with the same fields, arrays of numpy or torch. Padded arrays are cut to the
                item's ``audio_lengths`` and so on; those of MMSA's own dataset, which tells few lengths, as
                ``mmiln.data.load`` cuts MMSA's files. Labels are a number or ``{"M": number}``, with
                MMSA's ``T``, ``A``, ``V`` for those of one modality; an item without labels makes a split
                without. The default ``id`` is the position.
            labels: (N,), in place of the items' own.
            label_range: the lowest and the highest label that is possible.

        Raises:
            DataError: A field is unknown or missing, or counts, shapes or labels are wrong.

        >>> split = Split(["a", "b"], [1, -1], raw_text=["good", "bad"])
        >>> Split.from_items(reversed(list(split))).id
        ['b', 'a']
        """
        rows = cut(true_items([*items]))
        fields = {name: column(rows, name) for name in FIELDS if any(name in row for row in rows)}
        of_items = labels_of(rows) if labels is None else {"M": single(labels)}
        return cls(
            [str(row.get("id", place)) for place, row in enumerate(rows)],
            of_items.pop("M", None),
            **fields,
            label_range=LabelRange.checked(label_range),
            unimodal_labels={UNIMODAL[key]: values for key, values in of_items.items()},
            weights=weights_of(rows),
        )

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame, label_range: tuple[float, float] = MOSI) -> Split:
        """A split of a table of one utterance a row: any fields of a split, perhaps ``label`` (or ``labels``)
        in ``label_range``, and ``weights``.

        A cell of a sequence holds an array, as from ``to_pandas(arrays=True)``; a column ``text`` may hold
        sentences. Ids come from a column ``id``, else from the index. Columns that end in ``_length`` are
        ignored.

        Raises:
            DataError: A column is unknown or missing, or counts, shapes or labels are wrong.

        >>> import pandas as pd
        >>> Split.from_pandas(pd.DataFrame({"raw_text": ["good", "bad"], "label": [1.0, -1.0]}))
        Split(2 utterances, raw_text)
        """
        frame = _named_as_here(frame)
        columns = [str(name) for name in frame.columns if not str(name).endswith("_length")]
        if unknown := [name for name in columns if name not in ("id", "label", "weights", *FIELDS)]:
            raise DataError(
                f"expected the columns id, label, weights and any of {', '.join(FIELDS)}, got also "
                f"{unknown}: leave them out, frame.drop(columns=...)"
            )
        labels = frame["label"].to_numpy(np.float32) if "label" in columns else None
        weights = frame["weights"].to_numpy(np.float32) if "weights" in columns else None
        names = frame["id"] if "id" in columns else frame.index
        fields: dict[str, Any] = {
            name: [_cell(value) for value in frame[name]] for name in FIELDS if name in columns
        }
        return cls(
            [str(name) for name in names],
            labels,
            **fields,
            label_range=LabelRange.checked(label_range),
            weights=weights,
        )

    def to_pandas(self, arrays: bool = False) -> pd.DataFrame:
        """A table of one row an utterance: id, label and raw_text if present, lengths, ``arrays`` if wanted.

        Rows are numbered by position, so that selected rows select utterances:

        >>> split = Split(["a", "b"], [1, -1], raw_text=["good", "bad"])
        >>> frame = split.to_pandas()
        >>> split.subset(frame[frame["label"] > 0].index).id
        ['a']
        """
        import pandas as pd

        columns: dict[str, Any] = {"id": self.id}
        if self.labels is not None:
            columns["label"] = self.labels
        if self.weights is not None:
            columns["weights"] = self.weights
        if self.raw_text is not None:
            columns["raw_text"] = self.raw_text
        columns |= {f"{name}_length": self.lengths(name) for name in self.sequences}
        if arrays:
            columns |= {name: list(getattr(self, name)) for name in self.fields if name != "raw_text"}
        return pd.DataFrame(columns)

    @property
    def sequences(self) -> list[str]:
        """Which of text, audio and vision have lengths."""
        present = {"text" if name == "text_bert" else name for name in self.fields}
        return [name for name in MODALITIES if name in present]


def lengths_of(arrays: Sequence[npt.NDArray[Any]], axis: int) -> Ints:
    """The length of each array along its axis of frames or tokens: (N,)."""
    if isinstance(arrays, Ragged):
        return arrays.lengths
    return np.array([array.shape[axis] for array in arrays], np.int64)


def _named_as_here(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with the columns ``label`` and ``raw_text`` where it has ``labels`` and sentences as text."""
    sentences = "text" in frame and len(frame) and all(isinstance(cell, str) for cell in frame["text"])
    others = {"labels": "label"} | ({"text": "raw_text"} if sentences else {})
    return frame.rename(columns={old: new for old, new in others.items() if new not in frame})


def _cell(value: Any) -> Any:
    """The rows as a list, where a format without matrices, such as Parquet, gave an array of arrays."""
    return list(value) if isinstance(value, np.ndarray) and value.dtype.hasobject else value


def check_alike(splits: Mapping[Any, Split]) -> None:
    """Raises DataError where splits, by name, differ in modalities, widths or the range of labels."""
    said = {"fields": "modalities", "dims": "widths", "label_range": "range of labels"}
    for what, words in said.items():
        found = {name: getattr(split, what) for name, split in splits.items()}
        if any(value != next(iter(found.values())) for value in found.values()):
            raise DataError(f"expected the same {words} in every split, got {found}")


def _one(sequences: list[Sequence[Any]]) -> Any:
    ragged = [sequence for sequence in sequences if isinstance(sequence, Ragged)]
    return Joined(ragged) if len(ragged) == len(sequences) else list(chain(*sequences))


def _joined_weights(parts: Sequence[Split]) -> Floats | None:
    """The weights of all utterances; 1 in a part without any."""
    if all(part.weights is None for part in parts):
        return None
    ones = (np.ones(len(part), np.float32) if part.weights is None else part.weights for part in parts)
    return np.concatenate([*ones])


def _chosen(values: Sequence[Any], positions: list[int]) -> Any:
    return values.subset(positions) if isinstance(values, Ragged) else [values[i] for i in positions]


def _update(digest: hashlib._Hash, values: Iterable[str | bytes | npt.NDArray[Any]]) -> None:
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.shape} {value.dtype.str}".encode())
            digest.update(np.ascontiguousarray(value).data)
        else:
            data = value.encode() if isinstance(value, str) else value
            digest.update(f"{len(data)} ".encode())
            digest.update(data)
