"""A data set in memory: up to three splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmiln.data.findings import Findings
from mmiln.data.known import Known
from mmiln.data.split import Split
from mmiln.data.standardizer import Standardizer
from mmiln.errors import DataError
from mmiln.labels import LabelRange
from mmiln.pages import html

if TYPE_CHECKING:
    from mmiln.data.describe import Description


@dataclass(frozen=True)
class KnownDataset(Known):
    """What is known of a data set, with its standardizer, fitted on train."""

    standardizer: Standardizer | None = None


class Dataset:
    """Train, validation and test split of one data set, or some of them.

    Attributes:
        train: the train split; DataError where the data set has none, and is there to be predicted.
        valid, test: the other splits, or None.
        name: what the data set is called.
        report: what was read, cleaned and inferred.
        standardizer: fitted on train and applied to all splits, or None.
        known: what the conversion computed, of a converted data set.

    Raises DataError where there is no split, train and test share an utterance, or the splits differ in
    modalities or in the range of labels.
    """

    def __init__(
        self,
        train: Split | None = None,
        valid: Split | None = None,
        test: Split | None = None,
        *,
        name: str,
        report: Findings | None = None,
        standardizer: Standardizer | None = None,
    ) -> None:
        self._train = train
        self.valid = valid
        self.test = test
        self.name = name
        self.report = report if report is not None else Findings()
        self.standardizer = standardizer
        self.known: KnownDataset | None = None
        if not self.splits:
            raise DataError("expected at least one of train, valid and test, got none")
        _check_same_fields(self.splits)
        _check_ids(self.splits, self.report)

    @property
    def train(self) -> Split:
        """The train split.

        Raises DataError where there is none.
        """
        if self._train is None:
            raise DataError(
                f"{self.name} has no train part, but {' and '.join(self.splits)}: to train on it, split it "
                "by video, load(path, seed=0)"
            )
        return self._train

    @train.setter
    def train(self, split: Split) -> None:
        self._train = split

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that are present, by name."""
        named = {"train": self._train, "valid": self.valid, "test": self.test}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def dims(self) -> dict[str, int]:
        """Width of the text, audio and vision features; 0 where absent."""
        return self._first.dims

    @property
    def fields(self) -> list[str]:
        """Which of text, text_bert, raw_text, audio and vision are present."""
        return self._first.fields

    @property
    def label_range(self) -> LabelRange:
        """The lowest and the highest label that is possible."""
        return self._first.label_range

    @property
    def _first(self) -> Split:
        return next(iter(self.splits.values()))

    def describe(self) -> Description:
        """Splits, label histogram, lengths, widths and what was cleaned, by weight; print it."""
        from mmiln.data.describe import Description

        widths = ", ".join(f"{name} {width}" for name, width in self.dims.items() if width)
        return Description(
            f"{self.name}: {', '.join(self.fields)}",
            self.splits,
            [f"Widths: {widths or 'no features'}", *(f"- {line}" for line in self.report.summary())],
        )

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all ids, labels and arrays: equal contents, equal fingerprint."""
        if self.known is not None and self.known.contents == self.contents():
            return self.known.fingerprint
        return [*self.fingerprints_up_to().values()][-1]

    def fingerprints_up_to(self) -> dict[str, str]:
        """For each split, what :meth:`fingerprint` would be if it were the last; reads all arrays."""
        digest = hashlib.sha256()
        found = {}
        for name, split in self.splits.items():
            digest.update(f"{name} {len(split)} {split.fields}".encode())
            split.update(digest)
            found[name] = digest.hexdigest()
        return found

    def contents(self) -> object:
        """A value that stays equal while nothing is changed; see :meth:`Split.contents`."""
        return {name: split.contents() for name, split in self.splits.items()}

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {len(split)}" for name, split in self.splits.items())
        return f"{type(self).__name__}({self.name!r}, {sizes}; {', '.join(self.fields)})"

    def _repr_html_(self) -> str:
        """:meth:`describe` as HTML."""
        return html.code(self) + self.describe()._repr_html_()


def standardized(dataset: Dataset) -> Dataset:
    """The data set itself, its audio and vision scaled as learned from train; its report notes it."""
    known = dataset.known
    if known is not None and (known.standardized is None or known.contents != dataset.contents()):
        known = None
    if "train" not in dataset.splits:
        raise DataError(
            f"audio and vision are scaled as learned from train, and {dataset.name} has no train part: use "
            "the scale that was saved with the model, Standardizer.load(directory).transform(split)"
        )
    scaler = known.standardizer if known and known.standardizer else Standardizer.fit(dataset.train)
    for name, split in dataset.splits.items():
        scaled, bounded = scaler.scaled(split)
        for note in bounded:
            dataset.report.warn(f"{name}: {note}")
        if known and split.known and split.known.standardized:
            scaled.known = Known(scaled.contents(), split.known.standardized)
        setattr(dataset, name, scaled)
    dataset.standardizer = scaler
    there = known.standardized if known else None
    dataset.known = KnownDataset(dataset.contents(), there) if there else None
    for modality, count in scaler.constant.items():
        dataset.report.add(
            f"{count} of {dataset.dims[modality]} {modality} columns are constant in train and became 0.",
            {f"train.{modality}.constant": count},
        )
    dataset.report.add("Audio and vision columns were standardized as learned from train.")
    return dataset


def _check_same_fields(splits: Mapping[str, Split]) -> None:
    said = {"fields": "modalities", "dims": "widths", "label_range": "range of labels"}
    for what, words in said.items():
        found = {name: getattr(split, what) for name, split in splits.items()}
        if any(value != next(iter(found.values())) for value in found.values()):
            raise DataError(f"expected the same {words} in every split, got {found}")


def _check_ids(splits: Mapping[str, Split], report: Findings) -> None:
    for name, split in splits.items():
        if repeated := len(split) - len(set(split.id)):
            report.add(f"{repeated} ids of {name} occur more than once.", {f"{name}.id.repeated": repeated})
    names = list(splits)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            shared = sorted(set(splits[first].id) & set(splits[second].id))
            if not shared:
                continue
            sentence = f"{len(shared)} ids are in both {first} and {second}, such as {shared[0]!r}"
            if (first, second) == ("train", "test"):
                raise DataError(f"{sentence}: a model would be tested on what it was trained on")
            report.add(f"{sentence}.", {f"{first}.{second}.id.shared": len(shared)})
