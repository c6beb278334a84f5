"""Reads an experiment's folder: records and predictions, in groups of runs that may be averaged."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..config import differing
from ..errors import DataError, MissingFileError, ProtocolError
from .compare import Scores
from .runs import PREDICTIONS, RECORD, Record, Row


@dataclass(frozen=True)
class Finished:
    """A finished run: its record and its folder."""

    record: Record
    folder: Path


@dataclass(frozen=True)
class Group:
    """The runs of one row of a table: for each seed one run, or its folds.

    Attributes:
        incomplete: Runs left out because other folds of their seeds are missing.
    """

    row: Row
    runs: tuple[Finished, ...]
    incomplete: tuple[Finished, ...] = ()

    @property
    def records(self) -> list[Record]:
        """The records of all runs."""
        return [run.record for run in self.runs]

    @cached_property
    def scores(self) -> Scores:
        """Test predictions by seed, with a seed's folds joined, in the order of the ids."""
        by_seed: dict[int, dict[str, tuple[float, float]]] = defaultdict(dict)
        for run in self.runs:
            by_seed[run.record.seed] |= _predictions(run, self.part)
        names = sorted(next(iter(by_seed.values())))
        truth = np.array([by_seed[self.runs[0].record.seed][name][0] for name in names])
        for seed, scores in by_seed.items():
            if sorted(scores) != names or any(scores[n][0] != y for n, y in zip(names, truth, strict=True)):
                raise ProtocolError(
                    f"{self.row}: seed {seed} was not tested on the same utterances as the others"
                )
        return Scores(
            tuple(names),
            truth,
            {seed: np.array([scores[n][1] for n in names]) for seed, scores in by_seed.items()},
            self.runs[0].record.label_range,
        )

    @property
    def part(self) -> str:
        """The part whose measures are reported: test, or valid where there is none."""
        return "test" if "test" in self.runs[0].record.sizes else "valid"

    @cached_property
    def measures(self) -> dict[int, dict[str, float]]:
        """The measures by seed, computed from the predictions."""
        return self.scores.measures()


def _predictions(run: Finished, part: str) -> dict[str, tuple[float, float]]:
    """Truth and score by utterance."""
    import pandas as pd

    path = run.folder / PREDICTIONS
    try:
        frame = pd.read_csv(path, dtype={"id": str, "part": str}, keep_default_na=False, na_values=[""])
        frame = frame[frame["part"] == part].astype({"label": float, "score": float})
        if not np.isfinite(frame[["label", "score"]]).all(axis=None):
            raise ValueError("labels and scores must be finite numbers")
        again = frame.groupby("id").cumcount()  # an id may occur more than once
        names = [f"{name} #{n}" if n else name for name, n in zip(frame["id"], again, strict=True)]
        scores = zip(frame["label"], frame["score"], strict=True)
        rows = dict(zip(names, scores, strict=True))
    except FileNotFoundError:
        raise MissingFileError(
            f"{path} is not there: delete its {RECORD} and run the experiment again"
        ) from None
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is no table of predictions: {error}") from None
    if len(rows) != run.record.sizes[part]:
        raise DataError(
            f"{path} has {len(rows)} utterances of the {part} part, its record says {run.record.sizes[part]}"
        )
    return rows


def read(folder: str | Path) -> list[Finished]:
    """Every finished run below a folder.

    Raises:
        MissingFileError: There is none.
        DataError: A record is damaged.
    """
    root = Path(folder)
    found = [Finished(Record.read(path.parent), path.parent) for path in sorted(root.rglob(RECORD))]
    if not found:
        raise MissingFileError(f"there is no finished run in {root}: run an experiment with this folder")
    return found


def grouped(runs: list[Finished]) -> dict[str, dict[Row, Group]]:
    """Runs by dataset and row.

    Raises:
        ProtocolError: Runs of a row differ in more than the seed, or rows were tested on different data;
            names the differences.
    """
    tables: dict[str, dict[Row, list[Finished]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        tables[run.record.dataset_name][run.record.row].append(run)
    groups = {
        dataset: {row: _group(row, members) for row, members in rows.items()}
        for dataset, rows in tables.items()
    }
    for dataset, rows in groups.items():
        _check_same_data(dataset, list(rows.values()))
    return groups


def _group(row: Row, runs: list[Finished]) -> Group:
    first = runs[0]
    for other in runs[1:]:
        _refuse(str(row), first, other, _settled(first.record), _settled(other.record))
    places: dict[tuple[int, int | None], Finished] = {}
    for run in runs:
        place = (run.record.seed, run.record.fold)
        if place in places:
            raise ProtocolError(f"{row}: {places[place].folder} and {run.folder} are runs of the same seed")
        places[place] = run
    folds = first.record.protocol.folds
    seeds = sorted({seed for seed, _ in places})
    whole = [seed for seed in seeds if folds is None or all((seed, k) in places for k in range(folds))]
    if not whole:
        raise ProtocolError(f"{row}: no seed has all its {folds} folds yet: run the experiment to its end")
    ordered = [places[place] for place in sorted(places, key=lambda place: (place[0], place[1] or 0))]
    return Group(
        row,
        tuple(run for run in ordered if run.record.seed in whole),
        tuple(run for run in ordered if run.record.seed not in whole),
    )


def _settled(record: Record) -> dict[str, Any]:
    """The settings that must be equal for runs to be averaged."""
    known = record.identity()
    known["text encoder"] = known.pop("text_encoder")
    return {name: value for name, value in known.items() if name not in ("seed", "data")}


def _check_same_data(dataset: str, groups: list[Group]) -> None:
    def about_data(record: Record) -> dict[str, Any]:
        return {
            "standardized": record.protocol.standardized,
            "folds": record.protocol.folds,
            "fingerprint of the data": record.fingerprint,
            "range of the labels": tuple(record.label_range),
        }

    seen: dict[int | None, Finished] = {}
    for run in [run for group in groups for run in group.runs]:
        first = seen.setdefault(run.record.fold, run)
        _refuse(dataset, first, run, about_data(first.record), about_data(run.record))


def _refuse(what: str, first: Finished, other: Finished, was: dict[str, Any], now: dict[str, Any]) -> None:
    if different := differing(was, now):
        raise ProtocolError(
            f"{what}: {first.folder} and {other.folder} can't stand in one table, they differ in "
            + "; ".join(f"{name}: {one!r} and {two!r}" for name, (one, two) in different.items())
        )
