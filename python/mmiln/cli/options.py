"""Options and helpers that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

import mmiln

from ..errors import DataError

out = Console(soft_wrap=True)
STDIN = "-"

Data = Annotated[
    str,
    typer.Option(help="A pickle of MMSA's or MISA's format, a folder, a converted dataset, or 'synthetic'."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Saved = Annotated[Path, typer.Option("--model", help="A directory that save_pretrained or train wrote.")]


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


def load_data(data: str, *, standardize: bool = False) -> mmiln.data.Dataset:
    """The dataset that the option ``--data`` names."""
    return mmiln.data.synthetic() if data == "synthetic" else mmiln.data.load(data, standardize=standardize)


def prepared(model: Path, data: str, split: str) -> tuple[mmiln.Estimator, mmiln.data.Split]:
    """A saved model and a part of a dataset, scaled as the model's training data was."""
    loaded = mmiln.load_pretrained(model)
    part = mmiln.experiments.runs.part_of(load_data(data), split)
    if (model / mmiln.data.standardizer.FILE).is_file():
        part = mmiln.data.Standardizer.load(model).transform(part)
    return loaded, part
