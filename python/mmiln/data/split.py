"""A split in memory: utterances with their true lengths, and batches of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from mmiln.data.arrays import Floats, Ints, single
from mmiln.data.known import Known
from mmiln.data.order import LengthAware, Order
from mmiln.data.sequences import Ragged
from mmiln.errors import ConfigError, DataError
from mmiln.pages import html

if TYPE_CHECKING:
    import pandas as pd

MODALITIES: Final = ("text", "audio", "vision")
FIELDS: Final = ("text", "text_bert", "raw_text", "audio", "vision")
LABEL_BOUND: Final = 3.0

Item = dict[str, Any]
Batch = dict[str, Any]


@dataclass(eq=False, repr=False)
class Split(TorchDataset[Item]):
    """Utterances of one split, each with its true frames only.

    Attributes:
        id: N names.
        labels: (N,) float32 in [-3, 3].
        text: N arrays (T, w) float32, features of each token.
        text_bert: N arrays (3, T) int64: token ids, attention mask, segments.
        raw_text: N sentences.
        audio, vision: N arrays (T, w) float32.
        known: what the conversion computed, of a converted data set.

    Absent modalities are None. In a converted data set modalities are not lists: each access takes an array
    from the file, which may not be written to.

    Raises DataError where counts, shapes or labels are wrong.

    >>> split = Split(["a", "b"], [1, -1], audio=[np.ones((3, 5)), np.ones((2, 5))])
    >>> split.lengths("audio"), split.dims
    (array([3, 2]), {'text': 0, 'audio': 5, 'vision': 0})
    """

    id: list[str]
    labels: Floats
    text: Sequence[Floats] | None = None
    text_bert: Sequence[Ints] | None = None
    raw_text: list[str] | None = None
    audio: Sequence[Floats] | None = None
    vision: Sequence[Floats] | None = None
    known: Known | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.labels = single(self.labels)
        if not self.id:
            raise DataError("expected at least one utterance in a split, got none")
        for text in (*self.id, *(self.raw_text or ())):
            if not isinstance(text, str):
                raise DataError(f"expected ids and raw_text to be text, got {text!r}")
            if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
                raise DataError(f"expected ids and raw_text to be text, got half a character in {text!r}")
        counts = {"id": len(self.id), "labels": len(self.labels)}
        counts |= {name: len(getattr(self, name)) for name in self.fields}
        if len(set(counts.values())) > 1:
            raise DataError(f"expected as many entries in every field, got {counts}")
        if self.labels.ndim != 1:
            raise DataError(f"expected labels of shape (N,), got {self.labels.shape}")
        bad = ~(np.abs(self.labels) <= LABEL_BOUND + 1e-4)  # NaN too
        if bad.any():
            worst = int(bad.argmax())
            raise DataError(
                f"expected finite labels in [-3, 3], got {self.labels[worst]:g} for "
                f"{self.id[worst]!r} and {int(bad.sum())} such labels in all"
            )
        for name in MODALITIES:
            frames = getattr(self, name)
            if frames is not None and not isinstance(frames, Ragged):  # a Ragged is already as required
                setattr(self, name, _checked_frames(name, self.id, frames))
        if self.text_bert is not None and not isinstance(self.text_bert, Ragged):
            self.text_bert = [_checked_tokens(*pair) for pair in zip(self.id, self.text_bert, strict=True)]

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

    def __getitem__(self, index: int) -> Item:
        position = range(len(self))[index]
        item: Item = {name: getattr(self, name)[position] for name in self.fields}
        return item | {
            "labels": float(self.labels[position]),
            "index": position,
            "id": self.id[position],
        }

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
        _update(digest, [self.labels, *(s.encode() for s in self.id)])
        for name in self.fields:
            _update(digest, getattr(self, name))

    def contents(self) -> object:
        """A value that stays equal while nothing is changed, for sequences that can't be written to."""
        texts = [None if texts is None else tuple(texts) for texts in (self.id, self.raw_text)]
        return (*texts, self.labels.tobytes(), self.text, self.text_bert, self.audio, self.vision)

    def subset(self, indices: Iterable[int]) -> Split:
        """The utterances at these positions, in this order, indexed anew from 0; arrays shared."""
        at = [range(len(self))[i] for i in indices]
        fields = {name: _chosen(getattr(self, name), at) for name in self.fields}
        return Split([self.id[i] for i in at], self.labels[at], **fields)

    @classmethod
    def from_items(cls, items: Iterable[Mapping[str, Any]], labels: npt.ArrayLike | None = None) -> Split:
        """A split of dictionaries such as a split yields, with ``id``, ``labels``, ``text`` and so on.

        Args:
            items: Dictionaries with the same fields, arrays of numpy or torch; the default ``id`` is the
                position.
            labels: (N,), in place of the items' own.

        Raises:
            DataError: Fields or labels are missing, or counts, shapes or labels are wrong.

        >>> split = Split(["a", "b"], [1, -1], raw_text=["good", "bad"])
        >>> Split.from_items(reversed(list(split))).id
        ['b', 'a']
        """
        rows = list(items)
        for row in rows:
            if not isinstance(row, Mapping):
                raise DataError(
                    "expected each utterance to be a dictionary such as a Split yields, with labels, text, "
                    f"audio, vision, got {type(row).__name__}"
                )
        fields = {
            name: [row.get(name) for row in rows] for name in FIELDS if any(name in row for row in rows)
        }
        for name, values in fields.items():
            if missing := sum(value is None for value in values):
                raise DataError(
                    f"expected {name} in every utterance or in none, {missing} of {len(rows)} lack it"
                )
        if labels is None:
            if missing := sum("labels" not in row for row in rows):
                raise DataError(f"expected labels in every utterance, {missing} of {len(rows)} lack them")
            labels = [row["labels"] for row in rows]
        return cls([str(row.get("id", place)) for place, row in enumerate(rows)], labels, **fields)  # type: ignore[arg-type]

    @classmethod
    def from_pandas(cls, frame: pd.DataFrame) -> Split:
        """A split of a table with one utterance a row, with a ``label`` and any of the fields of a split.

        A cell of a sequence holds an array, as from ``to_pandas(arrays=True)``. Ids come from a column
        ``id``, else from the index. Columns that end in ``_length`` are ignored.

        Raises:
            DataError: A column is unknown or missing, or counts, shapes or labels are wrong.

        >>> import pandas as pd
        >>> Split.from_pandas(pd.DataFrame({"raw_text": ["good", "bad"], "label": [1.0, -1.0]}))
        Split(2 utterances, raw_text)
        """
        columns = [str(name) for name in frame.columns if not str(name).endswith("_length")]
        if unknown := [name for name in columns if name not in ("id", "label", *FIELDS)]:
            raise DataError(
                f"expected the columns id, label and any of {', '.join(FIELDS)}, got also {unknown}: leave "
                "them out, frame.drop(columns=...)"
            )
        if "label" not in columns:
            raise DataError(f"expected a column label, got {columns}")
        names = frame["id"] if "id" in columns else frame.index
        fields = {name: [_cell(value) for value in frame[name]] for name in FIELDS if name in columns}
        return cls([str(name) for name in names], frame["label"].to_numpy(np.float32), **fields)

    def to_pandas(self, arrays: bool = False) -> pd.DataFrame:
        """A table of one row an utterance: id, label, raw_text if present, lengths, and ``arrays`` if wanted.

        Rows are numbered by position, so that selected rows select utterances:

        >>> split = Split(["a", "b"], [1, -1], raw_text=["good", "bad"])
        >>> frame = split.to_pandas()
        >>> split.subset(frame[frame["label"] > 0].index).id
        ['a']
        """
        import pandas as pd

        columns: dict[str, Any] = {"id": self.id, "label": self.labels}
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


def _cell(value: Any) -> Any:
    """The rows as a list, where a format without matrices, such as Parquet, gave an array of arrays."""
    return list(value) if isinstance(value, np.ndarray) and value.dtype.hasobject else value


def _chosen(values: Sequence[Any], positions: list[int]) -> Any:
    return values.subset(positions) if isinstance(values, Ragged) else [values[i] for i in positions]


def _checked_frames(name: str, ids: Sequence[str], frames: list[Any]) -> list[Floats]:
    arrays = [single(f) for f in frames]
    width = arrays[0].shape[-1] if arrays[0].ndim else 0
    for utterance, array in zip(ids, arrays, strict=True):
        if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] != width or width < 1:
            raise DataError(
                f"expected {name} of shape (T, {width}) with T >= 1, got {array.shape} for {utterance!r}"
            )
    return arrays


def _checked_tokens(name: str, tokens: Any) -> Ints:
    array = np.asarray(tokens)
    if array.ndim != 2 or array.shape[0] != 3 or array.shape[1] < 1:
        raise DataError(f"expected text_bert of shape (3, T), got {array.shape}: {name!r}")
    return array.astype(np.int64, copy=False)


def collate(items: Sequence[Item]) -> Batch:
    """Turn items of a :class:`Split` into the batch that the model takes, still ragged.

    Returns:
        ``text``, ``text_bert``, ``raw_text``, ``audio``, ``vision``: lists of B entries, where
        present; ``labels``: ``{"M": (B,) float32}``; ``index``: (B,) int64; ``id``: B names.
    """
    batch: Batch = {name: [item[name] for item in items] for name in FIELDS if name in items[0]}
    batch["labels"] = {"M": np.array([item["labels"] for item in items], np.float32)}
    batch["index"] = np.array([item["index"] for item in items], np.int64)
    batch["id"] = [item["id"] for item in items]
    return batch


def _update(digest: hashlib._Hash, values: Iterable[str | bytes | npt.NDArray[Any]]) -> None:
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.shape} {value.dtype.str}".encode())
            digest.update(np.ascontiguousarray(value).data)
        else:
            data = value.encode() if isinstance(value, str) else value
            digest.update(f"{len(data)} ".encode())
            digest.update(data)
