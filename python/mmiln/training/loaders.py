"""Loaders: any iterable of batches, checked for training and for reading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import nullcontext
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Subset

from ..data import Split
from ..errors import BatchError, StateError
from ..labels import LabelRange
from ..text_encoder import TextEncoder
from . import batches

Loader = Any  # an iterable of batches, a Split, or one batch


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
            "a loader must be an iterable of batches: a mmiln.data.Split, a torch DataLoader, MMSA's "
            f"loader or a list of batches; got {type(data).__name__}"
        )
    return data


def each(loader: Iterable[Any], encoder: TextEncoder | None = None) -> Iterator[Any]:
    """The batches of a loader, whose sentences are one set to the text encoder that reads them.

    Raises:
        BatchError: There is none.
    """
    empty = True
    with nullcontext() if encoder is None else encoder.one_set():
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
