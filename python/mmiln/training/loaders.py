"""Loaders: any iterable of batches, checked for training and for reading."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import numpy as np
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)
from torch.utils.data import Dataset as TorchDataset

from ..data import Dataset, Split
from ..data.names import PARTS
from ..data.order import LengthAware
from ..errors import BatchError, DataError, StateError
from ..labels import LabelRange
from ..text_encoder import TextEncoder
from . import batches

Loader = Any  # an iterable of batches, a Split, or one batch

_FILE: Final = re.compile(r"\S+\.[A-Za-z]\w{1,6}")  # one word that ends as the names of files do


def understood(data: Any, part: str, label_range: LabelRange) -> Loader:
    """The data as a loader: a :class:`Dataset`, a table, sentences, and utterances in a list or in a dataset
    of torch become a :class:`Split`, whatever else is returned as it is.

    Args:
        data: What a user gave.
        part: The part of a data set, or of data by part, that is meant; ``"test"`` is also the only one.
        label_range: The range of a table's or utterances' labels.

    Raises:
        BatchError: It is the path of data.
        DataError: The data set has no such part, or a table or an utterance is not as expected.
    """
    pandas = sys.modules.get("pandas")  # loaded if the data are pandas'
    if isinstance(data, Dataset) or _are_parts(data):
        return understood(_part(data, part), part, label_range)
    if pandas is not None and isinstance(data, pandas.Series):
        data = data.to_frame("raw_text")
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return Split.from_pandas(data, label_range)
    if isinstance(data, Subset) and isinstance(data.dataset, Split):
        return data.dataset[data.indices]
    if isinstance(data, TorchDataset) and not isinstance(data, (Split, IterableDataset)):
        return Split.from_items([data[place] for place in range(len(data))], label_range=label_range)  # type: ignore[arg-type]
    if isinstance(data, Path) or (
        isinstance(data, str) and (_FILE.fullmatch(data) or ("/" in data and os.path.exists(data)))
    ):
        raise BatchError(f"expected data, got a path: read it by mmiln.data.load({str(data)!r})")
    each = [data] if isinstance(data, str) else data.tolist() if _is_words(data) else data
    if isinstance(each, (list, tuple)) and each:
        if all(isinstance(sentence, str) for sentence in each):
            return Split([str(place) for place in range(len(each))], raw_text=[*each])
        if all(isinstance(item, Mapping) and batches.is_utterance(item) for item in each):
            return Split.from_items(each, label_range=label_range)
    return data


def _is_words(data: Any) -> bool:
    return isinstance(data, np.ndarray) and data.ndim == 1 and data.dtype.kind in "UOT"


def valid_of(data: Any) -> Loader:
    """The validation part that comes with a data set or with MMSA's loaders; None without any."""
    if isinstance(data, Dataset):
        return data.valid
    return data.get("valid") if _are_parts(data) else None


def _are_parts(data: Any) -> bool:
    """Whether data are given by part, such as the loaders that MMSA's ``MMDataLoader`` returns."""
    return isinstance(data, Mapping) and len(data) > 0 and data.keys() <= {*PARTS}


def _part(data: Dataset | Mapping[str, Any], part: str) -> Loader:
    parts, name = (data.splits, data.name) if isinstance(data, Dataset) else (data, "this")
    if part == "train" and isinstance(data, Dataset):
        return data.train
    if part == "test" and len(parts) == 1:
        return next(iter(parts.values()))
    if part not in parts:
        raise DataError(f"{name} has no {part} part, but {' and '.join(parts)}: give one of these")
    return parts[part]


def for_training(data: Loader, train: Mapping[str, Any]) -> Iterable[Any]:
    """An iterable that can be read once an epoch; a :class:`Split` is shuffled as the config ``train`` says.

    Raises:
        BatchError: It is not an iterable of batches, or can be read only once.
    """
    if isinstance(data, Split):
        how = {"seed": train["seed"], "order": train.get("order", "faithful"), "window": train["accumulate"]}
        return data.loader(train["batch_size"], shuffle=True, **how)
    loader = _iterable(data)
    if isinstance(loader, Iterator):
        raise BatchError(
            "training reads the loader once an epoch, an iterator can be read only once: "
            "give a list of batches or a torch DataLoader"
        )
    return loader


def for_reading(data: Loader, batch_size: int) -> Iterable[Any]:
    """An iterable in dataset order; one batch alone is an iterable of one.

    Raises:
        BatchError: It is not an iterable of batches.
    """
    if isinstance(data, Split):
        return data.loader(batch_size)
    return _iterable([batches.of_one(data)] if isinstance(data, Mapping) else data)


def _iterable(data: Loader) -> Iterable[Any]:
    if isinstance(data, (str, bytes, Mapping, np.ndarray, Tensor)) or not isinstance(data, Iterable):
        raise BatchError(
            "a loader must be an iterable of batches: a mmiln.data.Split or Dataset, a torch DataLoader, "
            f"MMSA's loader or a list of batches; got {type(data).__name__}"
        )
    return data


def each(loader: Iterable[Any], encoder: TextEncoder | None = None) -> Iterator[Any]:
    """The batches of a loader, whose sentences are one set to the text encoder that reads them.

    Raises:
        BatchError: There is none.
    """
    empty = True
    with nullcontext() if encoder is None else encoder.tokenizer.one_set():
        for batch in loader:
            empty = False
            yield batch
    if empty:
        raise BatchError("the loader yields no batch")


def batches_of(loader: Iterable[Any]) -> int | None:
    """The number of batches of a loader; None where it does not tell."""
    try:
        return len(loader) if isinstance(loader, Sized) else None
    except TypeError:  # a DataLoader of an IterableDataset without a length
        return None


def label_range(loader: Loader) -> LabelRange | None:
    """The range of the labels that a loader reads from a :class:`Split`; None where it is not known."""
    dataset = source(loader)
    return dataset.label_range if isinstance(dataset, Split) and dataset.labels is not None else None


def source(loader: Loader) -> Any:
    """The dataset that a loader reads, of which it may read some items only; None where it is not known."""
    dataset = loader if isinstance(loader, Split) else getattr(loader, "dataset", None)
    while isinstance(dataset, Subset):  # a subset's items keep the indices of the whole
        dataset = dataset.dataset
    return dataset


def shared(train: Loader, valid: Loader) -> str | None:
    """A sentence about the utterances that two loaders both read; None if no split tells of any."""
    in_train, in_valid = _known(train), _known(valid)
    both = [name for name, label in in_valid.items() if in_train.get(name) == label]
    if not both or (all(name.isdecimal() for name in both) and 2 * len(both) < len(in_valid)):
        return None  # or numbers of rows, whose labels are the same by chance
    some = ", ".join(map(repr, both[:3])) + (", ..." if len(both) > 3 else "")
    return (
        f"{len(both)} of {len(in_valid)} ids in validation are in training too, {some}: validation tells "
        "nothing of unseen utterances; leave them out of one part, or, if others, give them other ids"
    )


def _known(loader: Loader) -> dict[str, float]:
    """The ids of the utterances that a loader reads of splits; with an id that is a mere number, such as of a
    row, the label, else 0. Empty where it is not known which ones it reads.
    """
    if isinstance(loader, DataLoader):
        whole = isinstance(loader.sampler, (SequentialSampler, RandomSampler))
        known = whole and type(loader.batch_sampler) in (BatchSampler, LengthAware)
        return _known(loader.dataset) if known else {}
    if isinstance(loader, Subset) and isinstance(loader.dataset, Split):
        loader = loader.dataset[loader.indices]
    if not isinstance(loader, Split):
        return {}
    labels = np.zeros(len(loader)) if loader.labels is None else loader.labels
    pairs = zip(loader.id, labels.tolist(), strict=True)
    return {name: label if name.isdecimal() else 0.0 for name, label in pairs}


def size(loader: Loader) -> int | None:
    """The number of utterances that a loader reads; None where it does not tell."""
    dataset = loader if isinstance(loader, Split) else getattr(loader, "dataset", None)
    return len(dataset) if isinstance(dataset, Sized) else None


def training_size(loader: Iterable[Any]) -> int:
    """The size of the training set that a loader's indices refer to.

    Raises:
        StateError: The size can't be known.
    """
    dataset = source(loader)
    if dataset is not None and hasattr(dataset, "__len__"):
        return len(dataset)
    if isinstance(loader, Sequence):
        indices = [batch.get("index") for batch in map(batches.check_keys, loader)]
        if all(index is not None for index in indices):
            largest = max(batches.whole_numbers("index", index).max().item() for index in indices)
            return 1 + max(0, int(largest))
        raise StateError(
            "pseudo-labels are kept by position in the training set: every batch needs an 'index'"
        )
    raise StateError(
        "pseudo-labels are kept by position in the training set, whose size this loader does not tell: "
        "give a list of batches, or a loader with a .dataset that has a length"
    )
