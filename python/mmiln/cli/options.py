"""Options and helpers that several commands share."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import mmiln

from .. import files
from ..errors import ConfigError, DataError, ProtocolError

if TYPE_CHECKING:
    from ..pages.tables import Table as PageTable

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)
STDIN = "-"

#: What ``--data`` takes, in words.
DATA = (
    "A pickle as of MMSA, MISA, MulT or MAG-BERT, a table (CSV, Parquet), a folder of parts or of "
    ".csd files, a converted dataset, or 'synthetic'."
)
Data = Annotated[str, typer.Option(help=DATA)]
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
Saved = Annotated[
    Path, typer.Option("--model", help=f"{SAVED} Also a folder of several seeds that train wrote.")
]


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


def seed_folders(folder: Path) -> dict[int, Path]:
    """The saved models of a folder that ``mmiln train`` wrote, by seed; none where it is itself one."""
    if (folder / "config.json").is_file():
        return {}
    saved = [file.parent for file in folder.glob("seed-*/config.json")]
    found = {path.name.removeprefix("seed-"): path for path in saved}
    return dict(sorted((int(seed), path) for seed, path in found.items() if seed.isdecimal()))


def opened(folder: Path, *, ensemble: bool) -> dict[Path, mmiln.Estimator]:
    """The models of a folder of seeds, or the one that it holds, by the directory of each.

    Raises:
        ConfigError: An ensemble is wanted of one model.
        ProtocolError: The models differ in more than the seed.
    """
    from ..config import differing

    seeds = seed_folders(folder)
    if ensemble and not seeds:
        raise ConfigError(
            "--ensemble is for a folder of seeds, as `mmiln train --seed 1 --seed 2` leaves it, got "
            f"{folder}: leave it out"
        )
    models = {path: mmiln.load_pretrained(path) for path in seeds.values() or [mmiln.pretrained.find(folder)]}
    first, *others = models
    for other in others:
        fields = differing(models[first].config.to_dict(), models[other].config.to_dict())
        if different := [f"{n} ({a!r} and {b!r})" for n, (a, b) in fields.items() if n != "seed"]:
            raise ProtocolError(
                f"models of several seeds must be alike, but {first} and {other} differ in "
                f"{', '.join(different)}: give one of them"
            )
    return models


def prepared(
    models: dict[Path, mmiln.Estimator],
    data: str,
    split: str | None,
    labels: str | None,
    clamp: bool,
    target: str | None,
) -> tuple[str, dict[Path, mmiln.data.Split]]:
    """The name of a part of a dataset, and the part for each saved model, scaled as its training data was."""
    from ..data.names import PARTS
    from ..labels import MOSI, SIMS

    known = next(iter(models.values())).label_range_
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
    scaled = dict.fromkeys(models, part)
    for folder in models:
        if (folder / mmiln.data.standardizer.FILE).is_file():
            scaled[folder] = mmiln.data.Standardizer.load(folder).transform(part)
    return name, scaled


def shown(table: PageTable) -> Table:
    """A table as a terminal shows it."""
    grid = Table(title=table.caption, title_justify="left")
    for at, name in enumerate(table.columns):
        grid.add_column(name, justify="right" if at else "left")
    for row in table.rows:
        grid.add_row(*row)
    return grid
