"""What several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..auto import load_pretrained
from ..data import Dataset, Split, Standardizer, load, synthetic
from ..data.standardizer import FILE as STANDARDIZER_FILE
from ..experiments import runs
from ..training.estimator import Estimator

out = Console(soft_wrap=True)

Data = Annotated[
    str,
    typer.Option(help="A pickle of MMSA's or MISA's format, a folder, a converted dataset, or 'synthetic'."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Saved = Annotated[Path, typer.Option("--model", help="A directory that save_pretrained or train wrote.")]


def load_data(data: str, *, standardize: bool = False) -> Dataset:
    """A dataset by what the option says."""
    return synthetic() if data == "synthetic" else load(data, standardize=standardize)


def prepared(model: Path, data: str, split: str) -> tuple[Estimator, Split]:
    """A saved model and a part of a dataset, scaled as the model's training data was."""
    loaded = load_pretrained(model)
    part = runs.part_of(load_data(data), split)
    if (model / STANDARDIZER_FILE).is_file():
        part = Standardizer.load(model).transform(part)
    return loaded, part
