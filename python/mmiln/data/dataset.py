"""A data set in memory: up to three splits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from mmiln.data.findings import Findings
from mmiln.data.known import Known
from mmiln.data.split import Split, check_alike
from mmiln.data.standardizer import Standardizer
from mmiln.data.videos import video_of
from mmiln.errors import DataError
from mmiln.labels import LabelRange
from mmiln.pages import html

if TYPE_CHECKING:
    from mmiln.data.describe import Description


LEAST: Final = 3  # folds: one each for train, valid and test


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
        check_alike(self.splits)
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

    def kfold(
        self, n: int = 5, *, by: Literal["video"] | Callable[[str], str] = "video", seed: int | None = None
    ) -> Iterator[Dataset]:
        """The ``n`` divisions of all utterances for cross-validation, whole videos together.

        All utterances are divided into folds of about equal size. In each division another fold is the test
        part, the next one the validation part, all others train: every utterance is tested once.

        Args:
            n: Number of folds.
            by: What stays together: ``"video"``, or a function from an id to the name of a group, such as
                the speaker.
            seed: Draws which videos share a fold; None for a division that is the same in every call.

        Raises:
            DataError: There are fewer than three folds, or fewer videos or groups than folds.

        >>> from mmiln.data import synthetic
        >>> sum(len(division.test) for division in synthetic(100, 50, 50).kfold(5, seed=1))
        200
        """
        from sklearn.model_selection import GroupKFold

        whole = Split.concat(self.splits.values())
        groups = [(video_of if by == "video" else by)(name) for name in whole.id]
        names = sorted(set(groups))
        if n < LEAST:
            raise DataError(f"expected at least {LEAST} folds, for train, valid and test, got {n}")
        if len(names) < n:
            what = "videos" if by == "video" else "groups"
            raise DataError(f"expected at least as many {what} as folds, got {len(names)} and {n}")
        folds: list[list[int]] = [[] for _ in range(n)]
        if seed is None:
            divisions = GroupKFold(n).split(np.zeros(len(whole)), groups=groups)
            folds = [fold.tolist() for _, fold in divisions]
        else:
            random.Random(seed).shuffle(names)
            for name in names:
                min(folds, key=len).extend(i for i, group in enumerate(groups) if group == name)
        return (self._division(whole, [*folds[k:], *folds[:k]]) for k in range(n))

    def _division(self, whole: Split, folds: Sequence[list[int]]) -> Dataset:
        """The first of the folds as test, the second as validation, the others as train part."""
        test, valid, *others = folds
        parts = [whole.subset(sorted(at)) for at in (chain(*others), valid, test)]
        return Dataset(*parts, name=self.name, report=self.report)

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
            some = ", ".join(map(repr, shared[:3])) + (", ..." if len(shared) > 3 else "")
            sentence = f"{len(shared)} ids are in both {first} and {second}: {some}"
            if (first, second) == ("train", "test"):
                raise DataError(
                    f"{sentence}; a model would be tested on what it was trained on: leave them out of one, "
                    "or, if they are other utterances, give them other ids"
                )
            report.warn(
                f"{sentence}; measures on one part are then not of unseen utterances.",
                {f"{first}.{second}.id.shared": len(shared)},
            )
