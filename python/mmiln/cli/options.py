"""Options and helpers that several commands share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import mmiln

from .. import files
from ..errors import DataError

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)
STDIN = "-"

Data = Annotated[
    str,
    typer.Option(
        help="A pickle as of MMSA, MISA, MulT or MAG-BERT, a table (CSV, Parquet), a folder of parts or of "
        ".csd files, a converted dataset, or 'synthetic'."
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        help="Lowest and highest label that is possible, such as --labels=1,5; default -3,3 or -1,1."
    ),
]
Clamp = Annotated[bool, typer.Option("--clamp", help="Labels beyond the range become its nearest end.")]
Target = Annotated[
    str | None, typer.Option(help="The label to learn, of several: a column's number or a name.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
SAVED = "A directory that save_pretrained or train wrote, or a name on the Hugging Face hub: user/model."
Saved = Annotated[Path, typer.Option("--model", help=SAVED)]


def overrides(assignments: list[str]) -> dict[str, Any]:
    """Config fields out of ``name=value`` texts; values are JSON, or plain words.

    Raises:
        DataError: A text is no assignment.

    >>> overrides(["alpha=0.3", "variant=no_mrm"])
    {'alpha': 0.3, 'variant': 'no_mrm'}
    """
    fields = {}
    for assignment in assignments:
        name, sign, value = assignment.partition("=")
        if not sign:
            raise DataError(f"expected name=value, got {assignment!r}")
        try:
            fields[name.strip()] = json.loads(value)
        except ValueError:
            fields[name.strip()] = value.strip()
    return fields


def print_json(value: Any) -> None:
    """Prints a value as JSON, with null for numbers that are not finite."""
    print(json.dumps(files.finite(value), allow_nan=False))


def load_data(
    data: str,
    *,
    standardize: bool = False,
    seed: int | None = None,
    labels: tuple[float, float] | None = None,
    clamp: bool = False,
    target: str | None = None,
) -> mmiln.data.Dataset:
    """The dataset that the option ``--data`` names."""
    if data == "synthetic":
        return mmiln.data.synthetic()
    return mmiln.data.load(
        data, standardize=standardize, seed=seed, labels=labels, clamp=clamp, target=column_of(target)
    )


def column_of(target: str | None) -> int | str | None:
    """The column that the option ``--target`` names: a number or a name."""
    return int(target) if target is not None and target.isdecimal() else target


def parsed_labels(labels: str | None) -> tuple[float, float] | None:
    """The range of labels that the option ``--labels`` names.

    Raises:
        ConfigError: It is not two numbers with a comma.
    """
    from ..labels import LabelRange

    return None if labels is None else LabelRange.checked(labels.split(","))


def prepared(
    model: Path, data: str, split: str | None, labels: str | None, clamp: bool, target: str | None
) -> tuple[mmiln.Estimator, mmiln.data.Split]:
    """A saved model and a part of a dataset, scaled as the model's training data was."""
    from ..data.names import PARTS
    from ..labels import MOSI, SIMS

    model = mmiln.pretrained.find(model)
    loaded = mmiln.load_pretrained(model)
    known = loaded.label_range_
    among = parsed_labels(labels) or (None if known in (MOSI, SIMS) else known)
    dataset = load_data(data, labels=among, clamp=clamp, target=target)
    name = split or (next(iter(dataset.splits)) if len(dataset.splits) == 1 else "test")
    part = mmiln.experiments.runs.part_of(dataset, name)
    others = tuple(f"{other}{end}" for other in PARTS if other != name for end in " :")
    for note in dataset.report.notes:
        if not note.startswith(("There is no ", *others)) and note not in dataset.report.warnings:
            err.print(f"note: {note}", markup=False, highlight=False)
    if part.label_range == MOSI and part.labels is not None and not known.outside(part.labels).any():
        part = replace(part, label_range=known)  # too few labels to tell their range
    if (model / mmiln.data.standardizer.FILE).is_file():
        part = mmiln.data.Standardizer.load(model).transform(part)
    return loaded, part
