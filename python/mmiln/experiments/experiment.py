"""Description of an experiment: datasets x models x a grid x seeds (x folds), under one protocol."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

import pydantic
from pydantic import Field, field_validator, model_validator

from .. import files
from ..baselines import NETWORKS, Baseline
from ..config import Config
from ..data import Dataset, fold, load, standardized, synthetic
from ..errors import ConfigError, DataError, MissingFileError
from ..model import Model
from ..plain import Plain
from ..training.estimator import Estimator
from .models import MODELS, SHARED, Entry
from .runs import Protocol, Row

DESCRIPTION: Final = "experiment.json"  # within an experiment's folder
SEEDS: Final = (1111, 1112, 1113, 1114, 1115)

MAX_RUNS: Final = 10_000  # of an experiment, as the product of a few short lists may be huge
MAX_SYNTHETIC: Final = 100_000  # utterances of a part
MAX_NAME: Final = 200  # bytes of a file's name, of the 255 that file systems take

# Names that become part of a path: no separator, no hidden file.
Name = Annotated[str, Field(pattern=r"^[\w+-][\w.+ -]*$", max_length=MAX_NAME // 4)]
T = TypeVar("T", bound=Plain)
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(le=MAX_SYNTHETIC)]


class Source(Plain):
    """A source of utterances, and how they are divided.

    Attributes:
        path: A pickle of MMSA's or MISA's format, a folder, or ``"synthetic"``. ``$NAME`` stands for the
            environment variable of that name; a relative path starts at the working directory.
        standardize: Whether audio and vision are scaled, by the train part (of each fold).
        folds: Number of folds of a cross-validation by video, each a run; by default the parts of the data.
        published: ``"mosi"`` or ``"mosei"`` where published numbers may stand beside the measured ones.
        n_train, n_valid, n_test, seed: Size and seed of synthetic data.
    """

    path: str
    standardize: bool = False
    folds: Annotated[int, Field(ge=3, le=MAX_RUNS)] | None = None
    published: Literal["mosi", "mosei"] | None = None
    n_train: Count | None = None
    n_valid: Count | None = None
    n_test: Count | None = None
    seed: Seed | None = None

    @model_validator(mode="after")
    def _only_synthetic_data_has_sizes(self) -> Source:
        if self.path != "synthetic" and self._generator():
            raise ValueError(f"{', '.join(self._generator())}: only synthetic data is made to order")
        return self

    def _generator(self) -> dict[str, int]:
        sizes = {name: getattr(self, name) for name in ("n_train", "n_valid", "n_test", "seed")}
        return {name: value for name, value in sizes.items() if value is not None}

    def load(self, number: int | None = None, *, test: bool = True) -> Dataset:
        """The data, or fold ``number`` of it; without its test part unless ``test``.

        Raises:
            MissingFileError: It is not there.
            DataError: It can't be read, or not be divided this way.
        """
        whole = test or self.folds is not None
        if self.path == "synthetic":
            dataset: Dataset = synthetic(**self._generator())
        else:
            dataset = load(expanded(self.path), test=whole, seed=0)
        if self.folds is not None and number is not None:
            dataset = fold(dataset, number, self.folds)
        if not test:
            dataset.test = None
        return standardized(dataset) if self.standardize else dataset


def expanded(text: str) -> str:
    """A text with ``$NAME`` replaced by the environment variable of that name.

    Raises:
        MissingFileError: There is no such variable.
    """
    result = os.path.expandvars(os.path.expanduser(text))
    if unset := re.search(r"\$(\w+|\{\w+\})", result):
        raise MissingFileError(f"{text!r} needs the environment variable {unset[1].strip('{}')}: set it")
    return result


class Task(Plain):
    """One run of an experiment."""

    dataset: str
    row: Row
    seed: int
    fold: int | None = None

    @property
    def folder(self) -> Path:
        """The folder of its results, below the experiment's folder."""
        grid = [f"{name}={_short(value)}" for name, value in self.row.grid.items()]
        run = f"seed-{self.seed}" + ("" if self.fold is None else f"-fold-{self.fold}")
        return Path(self.dataset, ",".join([self.row.model, *grid]), run)

    def __str__(self) -> str:
        where = "" if self.fold is None else f" fold {self.fold}"
        return f"{self.dataset}: {self.row}, seed {self.seed}{where}"


def _short(value: Any) -> str:
    return re.sub(r"[^\w.+-]", "_", str(value))


class Described(Plain):
    """Base class of what a TOML file or a dictionary describes."""

    @classmethod
    def given(cls, description: Self | Mapping[str, Any] | str | Path) -> Self:
        """Reads any form of the description: an object of this class, plain data or a TOML file."""
        if isinstance(description, cls):
            return description
        return cls.of(description) if isinstance(description, Mapping) else cls.read(description)  # type: ignore[arg-type]

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """From plain data.

        Raises:
            ConfigError: A key is unknown or a value wrong; names it.
        """
        return validated(cls, description, f"the {cls.__name__.lower()}")

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """From a TOML file, whose name is the default of ``name``.

        Raises:
            MissingFileError: There is no such file.
            ConfigError: It is not TOML, or describes something else.
        """
        return validated(cls, toml_description(path), str(path))


class Experiment(Described):
    """Datasets x models x grid x seeds, all trained by one protocol.

    Attributes:
        name: Name of the experiment.
        datasets: Sources by name.
        models: Names in :data:`MODELS`; the first is what the others are compared with.
        seeds: Seeds of initial weights, dropout and data order.
        epochs: Largest number; training stops earlier after ``patience`` epochs without a lower MAE.
        settings: Arguments of :class:`mmiln.Model` for every model: ``preset``, ``text_encoder`` (``$NAME``
            stands for an environment variable), any config field.
        model_settings: Settings of single models by name, which replace those of all; for a baseline, any of
            its hyper-parameters.
        grid: Fields with several values each; every combination is run.
        selection: The part whose MAE chooses the epoch. ``"test"`` shows how much that biases scores; reports
            mark it.
        keep_models: Whether models are saved, as case studies need them.
    """

    name: Name
    datasets: Annotated[dict[Name, Source], Field(min_length=1)]
    models: Annotated[tuple[str, ...], Field(min_length=1)] = ("full",)
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = SEEDS
    epochs: Annotated[int, Field(ge=1)] = 50
    settings: dict[str, Any] = Field(default_factory=dict)
    model_settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)
    selection: Literal["valid", "test"] = "valid"
    keep_models: bool = False

    @field_validator("models")
    @classmethod
    def _known_models(cls, models: tuple[str, ...]) -> tuple[str, ...]:
        for name in models:
            if name not in MODELS:
                near = difflib.get_close_matches(name, MODELS, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"there is no model {name!r}; {hint}Known: {', '.join(MODELS)}")
        return models

    @field_validator("models", "seeds", "grid")
    @classmethod
    def _different(cls, value: Any) -> Any:
        for name, several in value.items() if isinstance(value, dict) else [("", value)]:
            if len(set(map(_short, several))) < len(several):
                raise ValueError(f"{name or 'the list'} names the same twice: {list(several)}")
        return value

    @model_validator(mode="after")
    def _can_be_run(self) -> Self:
        """Refuses too many runs and too long names, before the runs are listed."""
        points = math.prod(map(len, self.grid.values())) * len(self.models) * len(self.seeds)
        runs = points * sum(source.folds or 1 for source in self.datasets.values())
        if runs > MAX_RUNS:
            raise ValueError(f"more than {MAX_RUNS:,} runs are described")
        longest = (max(map(len, map(str.encode, map(_short, values)))) for values in self.grid.values())
        if sum(longest) + len(",=".join(self.grid).encode()) > MAX_NAME:
            raise ValueError("grid: names and values are too long to name a folder by")
        return self

    @classmethod
    def of_folder(cls, folder: Path) -> Experiment:
        """The experiment that was run in a folder.

        Raises:
            MissingFileError: The folder has no description.
            ConfigError: Its description is damaged.
        """
        path = folder / DESCRIPTION
        if not path.is_file():
            raise MissingFileError(f"no experiment was run in {folder}: it has no {DESCRIPTION}")
        return validated(cls, files.read_json(path), str(path))

    def tasks(self) -> Iterator[Task]:
        """Every run, seeds outermost within a dataset, so that all rows of a table fill evenly."""
        points = [
            dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]
        for name, source in self.datasets.items():
            folds = [None] if source.folds is None else range(source.folds)
            for seed, number, model, point in itertools.product(self.seeds, folds, self.models, points):
                yield Task(dataset=name, row=Row(model=model, grid=point), seed=seed, fold=number)

    def protocol(self, task: Task) -> Protocol:
        """The protocol of a task's run, equal for all runs that it may be averaged with."""
        source = self.datasets[task.dataset]
        return Protocol(
            epochs=self.epochs,
            selection=self.selection,
            standardized=source.standardize,
            folds=source.folds,
            shuffled_labels=self._entry(task).shuffled_labels,
        )

    def arguments(self, task: Task) -> dict[str, Any]:
        """Arguments of a task's model: the common ones, the grid's, its own, and those that define it."""
        of_all, own = {"preset": "mosi"} | self.settings, self.model_settings.get(task.row.model, {})
        arguments = of_all | task.row.grid | own | dict(self._entry(task).settings)
        if isinstance(arguments.get("text_encoder"), str):
            arguments["text_encoder"] = expanded(arguments["text_encoder"])
        return arguments | {"seed": task.seed}

    def model(self, task: Task) -> Estimator:
        """The untrained model of a task.

        Raises:
            ConfigError: A setting is unknown or out of range.
            MissingFileError: The text encoder is not there.
        """
        arguments = self.arguments(task)
        if (network := self._entry(task).network) is None:
            return Model(**arguments)
        preset = str(arguments.pop("preset")).removesuffix("-mmsa")
        own = self.model_settings.get(task.row.model, {})
        return Baseline(network, preset, **{n: v for n, v in arguments.items() if n in (*SHARED, *own)})

    def data(self, task: Task, *, test: bool = True) -> Dataset:
        """The data of a task; without its test part unless ``test``.

        Raises:
            DataError: It can't be read, or lacks a modality that the task's model needs.
        """
        dataset = self.datasets[task.dataset].load(task.fold, test=test)
        there = dataset.train.sequences + (["text"] if dataset.train.raw_text is not None else [])
        if missing := [name for name in self._entry(task).needs if name not in there]:
            raise DataError(
                f"the model {task.row.model!r} needs {' and '.join(missing)}, "
                f"and {task.dataset} has {', '.join(dataset.train.fields)} only: leave it out of models"
            )
        network = NETWORKS.get(self._entry(task).network or "")
        if network is not None and len({*there}) < network.FEWEST:
            raise DataError(
                f"the model {task.row.model!r} needs {network.FEWEST} modalities or more, and {task.dataset} "
                f"has {', '.join(dataset.train.fields)} only: leave it out of models"
            )
        return dataset

    def _entry(self, task: Task) -> Entry:
        return MODELS[task.row.model]

    def check(self) -> None:
        """Raises the errors that any task's model would raise before it sees data."""
        self.check_names()
        for row in {task.row: task for task in self.tasks()}.values():
            self.model(row)

    def check_names(self) -> None:
        """Raises :class:`ConfigError` where a setting or a field of the grid is unknown."""
        own = [name for settings in self.model_settings.values() for name in settings]
        if "seed" in (*self.settings, *self.grid, *own):
            raise ConfigError("seeds are a list of the experiment's own: seeds = [1111, 1112]")
        for name in (*self.settings, *self.grid):
            if name not in Model.ARGUMENTS:
                Config.resolve("mosi", {name: None})  # knows every field
        for model, settings in self.model_settings.items():
            if model not in self.models:
                raise ConfigError(f"model_settings: {model!r} is none of models = {list(self.models)}")
            if fixed := [name for name in settings if name in MODELS[model].settings]:
                raise ConfigError(f"model_settings: {fixed[0]} is what makes the model {model!r}")


def toml_description(path: str | Path) -> dict[str, Any]:
    """The content of a TOML file, with the file's name as default of ``name``.

    Raises:
        MissingFileError: There is no such file.
        ConfigError: It is not TOML.
    """
    path = Path(path)
    return {"name": path.stem, **files.read_toml(path)}


def validated(kind: type[T], description: Mapping[str, Any], what: str) -> T:
    """Validates plain data as a description of this kind.

    Raises:
        ConfigError: Names every key that is unknown, is missing or has a wrong value.
    """
    try:
        return kind.model_validate(dict(description) if isinstance(description, Mapping) else description)
    except pydantic.ValidationError as error:
        faults = []
        for fault in error.errors():
            where = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                near = difflib.get_close_matches(str(fault["loc"][-1]), kind.model_fields, n=1)
                faults.append(f"unknown key {where}" + (f", did you mean {near[0]}?" if near else ""))
            else:
                faults.append(f"{where}: {fault['msg'].removeprefix('Value error, ')}")
        raise ConfigError(f"{what}: {'; '.join(faults)}") from None
