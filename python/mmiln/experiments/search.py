"""Searches hyper-parameters on the validation part alone; the test part is not even loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from pydantic import Field, model_validator

from ..baselines import Baseline
from ..config import Config, differing
from ..errors import ConfigError, ExperimentError, MissingFileError, StateError
from ..files import locked, read_json, write, write_json
from ..plain import Plain
from .backends import pool_of
from .experiment import Described, Experiment, Name, Seed, Source
from .models import MODELS
from .pool import Failure, Job, Pool
from .progress import Display
from .ray_pool import RayPool
from .runs import Record

if TYPE_CHECKING:
    import optuna
    import pandas as pd

STORAGE: Final = "trials.log"
DESCRIPTION: Final = "search.json"


class Range(Plain):
    """Values of a field: from ``low`` to ``high``, in steps or evenly in the logarithm, or choices."""

    low: int | float | None = None
    high: int | float | None = None
    step: int | float | None = None
    log: bool = False
    choices: Annotated[tuple[str | bool | int | float, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _range_or_choices(self) -> Range:
        if self.choices is not None:
            if (self.low, self.high, self.step, self.log) != (None, None, None, False):
                raise ValueError("give choices, or low and high, not both")
        elif self.low is None or self.high is None:
            raise ValueError("needs low and high, or choices")
        elif self.low >= self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        elif self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("with log, low must be above 0 and there is no step")
        return self

    def suggest(self, trial: optuna.Trial, name: str) -> Any:
        """A value for a trial; whole numbers where both ends are."""
        if self.choices is not None:
            return trial.suggest_categorical(name, self.choices)
        assert self.low is not None and self.high is not None
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


class Search(Described):
    """Description of a search: a space of fields for one model on one data set.

    Attributes:
        name: Name of the search.
        dataset: Source of the utterances.
        space: The possible values of each field.
        model, seeds, epochs, settings: As in :class:`Experiment`; a trial's value is the mean over seeds (and
            folds) of the lowest validation MAE.
        trials: Number of points to try.
        seed: Seed of the sampler.
    """

    name: Name
    dataset: Source
    space: Annotated[dict[str, Range], Field(min_length=1)]
    model: str = "full"
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (1111,)
    epochs: Annotated[int, Field(ge=1)] = 50
    settings: dict[str, Any] = Field(default_factory=dict)
    trials: Annotated[int, Field(ge=1)] = 50
    seed: Seed = 0

    def experiment(self, point: Mapping[str, Any]) -> Experiment:
        """The runs of one trial."""
        return Experiment.of(
            {
                "name": self.name,
                "datasets": {"data": self.dataset},
                "models": (self.model,),
                "seeds": self.seeds,
                "epochs": self.epochs,
                "settings": self.settings,
                "model_settings": {self.model: dict(point)} if point else {},
            }
        )

    def check(self) -> None:
        """Raises where a name is unknown; values that do not fit each other fail in their trial."""
        if "seed" in self.space:
            raise ConfigError("a search can't choose the seed: that would select luck")
        self.experiment(dict.fromkeys(self.space)).check_names()
        unset: dict[str, Any] = dict.fromkeys(self.space)
        if (network := MODELS[self.model].network) is None:
            Config.resolve("mosi", unset)  # knows every field
        else:
            Baseline(network, **unset)  # the same


@dataclass(frozen=True)
class Found:
    """The result of a search.

    Attributes:
        settings: Values of the searched fields in the best trial.
        mae: Its validation MAE, mean over seeds. As the lowest of many it is biased: a new run will have a
            higher one.
        trials: A table with one row a trial: its values, its MAE, its state.
    """

    settings: dict[str, Any]
    mae: float
    trials: pd.DataFrame


def search(
    description: Search | Mapping[str, Any] | str | Path,
    folder: str | Path | None = None,
    *,
    jobs: int = 1,
    progress: bool = True,
    backend: str = "local",
    address: str | None = None,
) -> Found:
    """Tries points of a space until there are as many finished trials as the search wants.

    Points are proposed by optuna's tree-structured Parzen estimator (Bergstra et al. 2011). Trials are kept
    in ``trials.log`` of the folder, so that an interrupted search resumes; an unfinished trial restarts with
    the same point. With one job the search's seed determines the points; with several they also depend on
    the order in which trials end.

    Args:
        description: A :class:`Search`, the same as plain data, or a TOML file.
        folder: Folder of trials and their runs; ``runs/<name>`` by default.
        jobs: Number of runs at a time.
        progress: Whether to show progress.
        backend: ``"local"`` for processes of this machine, ``"ray"`` for the machines of a Ray cluster
            (``pip install "mmiln[ray]"``). Those need the same versions of Python, torch, Ray and mmiln,
            and data and text encoders at the same paths; ``jobs`` runs at a time share all their cores.
        address: Address of the Ray cluster; by default the one that ``RAY_ADDRESS`` names or that runs on
            this machine, else this machine alone.

    Raises:
        ConfigError, MissingFileError: The description is wrong, optuna is not installed, or the backend is
            not available.
        DeviceError: The model is on CUDA, and no machine of the Ray cluster has a card.
        StateError: The folder holds trials of another search, another process searches in it, or this one is
            connected to Ray already and an address is given.
        ExperimentError: Every trial failed; single ones may fail, as when values do not fit each other.
    """
    optuna = _optuna()
    description = Search.given(description)
    description.check()
    pool = pool_of(backend, jobs, address)
    folder = Path("runs", description.name) if folder is None else Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    busy = f"another process searches in {folder}: wait for it, or name another folder"
    with locked(folder / ".lock", StateError(busy)):
        _same_search(description, folder)
        backend = optuna.storages.journal.JournalFileBackend(str(folder / STORAGE))
        study = optuna.create_study(
            study_name="search",
            storage=optuna.storages.JournalStorage(backend),
            direction="minimize",
            load_if_exists=True,
        )
        failures = _Trials(description, study, folder).run(pool, progress)
    return _found(study, folder, failures)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise MissingFileError("a search needs optuna: pip install 'mmiln[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _same_search(search: Search, folder: Path) -> None:
    """Writes the description, or compares it with the one that is there; ``trials`` may grow."""
    path = folder / DESCRIPTION
    now = search.model_dump(mode="json")
    if path.is_file():
        was = read_json(path)
        if not isinstance(was, dict):
            raise ConfigError(f"{path} is not the description of a search")
        if different := differing(was | {"trials": search.trials}, now):
            raise StateError(
                f"{folder} holds trials of another search, which differs in {', '.join(different)}: "
                "name another folder"
            )
    write_json(path, now)


class _Trials:
    """Proposes points, runs their jobs, and records the results in the study."""

    def __init__(self, search: Search, study: optuna.Study, folder: Path) -> None:
        import optuna

        self._search = search
        self._study = study
        self._folder = folder
        self._states = optuna.trial.TrialState
        self._tasks = list(search.experiment({}).tasks())
        self._maes: dict[int, list[float | None]] = {}  # MAEs of the ended runs, by trial

    def run(self, pool: Pool | RayPool, progress: bool) -> list[Failure]:
        """Runs the missing trials; returns the failures."""
        failures = []
        for trial in self._study.get_trials(deepcopy=False, states=[self._states.RUNNING]):
            self._study.enqueue_trial(trial.params)
            self._study.tell(trial.number, state=self._states.FAIL)
        finished = len(self._study.get_trials(deepcopy=False, states=[self._states.COMPLETE]))
        missing = max(0, self._search.trials - finished)
        with Display(missing * len(self._tasks), show=progress) as display:
            for result in pool.run(self._jobs(missing), display.on_event):
                display.ended(result)
                self._take(result)
                if isinstance(result, Failure):
                    failures.append(result)
        return failures

    def _jobs(self, count: int) -> Iterator[Job]:
        import optuna

        for _ in range(count):
            # A sampler for each trial, so that an interruption does not change the points that follow.
            number = len(self._study.get_trials(deepcopy=False))
            self._study.sampler = optuna.samplers.TPESampler(seed=self._search.seed + number)
            trial = self._study.ask()
            point = {name: values.suggest(trial, name) for name, values in self._search.space.items()}
            experiment = self._search.experiment(point)
            self._maes[trial.number] = []
            for task in experiment.tasks():
                folder = self._folder / f"trial-{trial.number:04d}" / task.folder.name
                yield Job(experiment, task, folder, test=False)

    def _take(self, result: Job | Failure) -> None:
        """Sets a trial's value to the mean of its runs once all have ended; one failure fails the trial."""
        job = result.job if isinstance(result, Failure) else result
        number = int(job.folder.parent.name.removeprefix("trial-"))
        mae = None if isinstance(result, Failure) else Record.read(job.folder).metrics["valid"]["mae"]
        maes = self._maes[number]
        maes.append(mae)
        if len(maes) < len(self._tasks):
            return
        known = [mae for mae in maes if mae is not None]
        if len(known) < len(maes):
            self._study.tell(number, state=self._states.FAIL)
        else:
            self._study.tell(number, float(np.mean(sorted(known))))


def _found(study: optuna.Study, folder: Path, failures: list[Failure]) -> Found:
    from optuna.trial import TrialState

    frame = study.trials_dataframe(attrs=("number", "value", "params", "state"))
    frame = frame.rename(columns=lambda name: name.removeprefix("params_"))
    frame = frame.rename(columns={"value": "valid_mae"})
    write(folder / "trials.csv", lambda path: frame.to_csv(path, index=False))
    if not study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        raise ExperimentError("every trial failed: " + "; ".join(map(str, failures[:1])))
    return Found(dict(study.best_params), float(study.best_value), frame)
