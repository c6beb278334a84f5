"""Table 4 of the paper: single utterances, their scores by two models, and the reasons for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..data import Split, collate
from ..data.names import MODALITIES
from ..errors import ConfigError, MissingFileError
from ..explain.attribution import BACKGROUND, Gates, contributions, mean_gates
from ..model import Model
from ..pages.tables import Table
from . import runs
from .experiment import Experiment
from .results import Finished, read

Pick = Literal["disagreement", "flips"]


@dataclass(frozen=True)
class Case:
    """One utterance.

    Attributes:
        id, words, truth: The utterance's id, words and true score.
        score, other: Scores predicted by the model and by the one it is compared with.
        unimodal: Scores of the model's heads for audio and vision alone.
        pseudo_labels: ULGM's pseudo-labels, for utterances that were trained on.
        gates: By layer, stream and gate (``retain``, ``compound``, ``source``), the mean over channels and
            time.
        contributions: By modality, the score minus its mean with this modality replaced by that of other
            utterances.
    """

    id: str
    words: str
    truth: float
    score: float
    other: float
    unimodal: dict[str, float]
    pseudo_labels: dict[str, float]
    gates: list[Gates]
    contributions: dict[str, float]

    @property
    def moved_by(self) -> str:
        """The modality that moved the score most."""
        return max(self.contributions, key=lambda name: abs(self.contributions[name]))


@dataclass(frozen=True)
class CaseStudy:
    """Some utterances scored by two models."""

    model: str
    other: str
    cases: tuple[Case, ...]

    def tables(self) -> tuple[Table, Table]:
        """The utterances with scores and contributions; the gates."""
        return self._scores(), self._gates()

    def to_markdown(self) -> str:
        """Both tables."""
        return "\n\n".join(table.markdown() for table in self.tables()) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    def _scores(self) -> Table:
        modalities = list(self.cases[0].contributions)
        heads = list(self.cases[0].unimodal)
        return Table(
            f"Utterances under {self.model} and {self.other}. Heads: scores of one modality's own head. "
            "Pseudo-labels: of utterances that were trained on. Contribution: the score minus its mean with "
            f"that modality taken from {BACKGROUND} other utterances; the largest moved the score most.",
            (
                "words", "id", "truth", self.model, self.other, *(f"{name} head" for name in heads),
                *(f"{name} pseudo-label" for name in heads), *(f"{name} contribution" for name in modalities),
                "moved by",
            ),
            tuple(
                (
                    case.words, case.id, _signed(case.truth), _signed(case.score), _signed(case.other),
                    *(_signed(case.unimodal[name]) for name in heads),
                    *(_signed(case.pseudo_labels.get(name)) for name in heads),
                    *(_signed(case.contributions[name]) for name in modalities),
                    case.moved_by,
                )
                for case in self.cases
            ),
        )  # fmt: skip

    def _gates(self) -> Table:
        columns = [(stream, gate) for stream, gates in self.cases[0].gates[0].items() for gate in gates]
        return Table(
            f"Gates of {self.model}: mean over channels and time, 0 shut, 1 open.",
            ("id", "layer", *(f"{stream} {gate}" for stream, gate in columns)),
            tuple(
                (case.id, str(layer + 1), *(f"{gates[stream][gate]:.2f}" for stream, gate in columns))
                for case in self.cases
                for layer, gates in enumerate(case.gates)
            ),
        )


def case_study(
    model: Model,
    other: Model,
    part: Split,
    background: Split,
    *,
    names: tuple[str, str] = ("model", "other"),
    ids: Sequence[str] = (),
    n: int = 6,
    pick: Pick = "disagreement",
    pseudo_labels: Mapping[str, Mapping[str, float]] | None = None,
) -> CaseStudy:
    """Looks at utterances of ``part`` one by one.

    Args:
        model: The model to explain.
        other: The model it is compared with.
        part: The utterances to choose from.
        background: Utterances that replace a modality to measure its contribution, usually train.
        names: Names of the models in tables.
        ids: Ids of the utterances; by default ``n`` are picked.
        n: Number of utterances to pick.
        pick: ``"disagreement"``: where the models are farthest apart; ``"flips"``: the same among those where
            ``model`` has the right sign and ``other`` has not.
        pseudo_labels: By modality and id, for utterances that have any.

    Raises:
        ConfigError: An id is unknown, or no utterance is there to pick.
        BatchError: A model does not fit the data.
    """
    scores, others = model.predict(part).score, other.predict(part).score
    chosen = _named(part, ids) if ids else _picked(part.truth, scores, others, n, pick)
    if not chosen:
        raise ConfigError(f"no utterance to show: {names[0]} and {names[1]} never differ so ({pick})")
    some = part.subset(chosen)
    inside = model.forward(collate([some[i] for i in range(len(some))]), intermediates=True)
    moved = contributions(model, some, background)
    known = pseudo_labels or {}
    cases = tuple(
        Case(
            id=some.id[i],
            words=some.raw_text[i] if some.raw_text is not None else "",
            truth=float(some.truth[i]),
            score=float(scores[at]),
            other=float(others[at]),
            unimodal={
                name: float(inside[f"y_{name}"][i]) for name in MODALITIES[1:] if f"y_{name}" in inside
            },
            pseudo_labels={
                name: labels[some.id[i]] for name, labels in known.items() if some.id[i] in labels
            },
            gates=mean_gates(inside, i),
            contributions={name: float(values[i]) for name, values in moved.items()},
        )
        for i, at in enumerate(chosen)
    )
    return CaseStudy(*names, cases)


def _named(part: Split, ids: Sequence[str]) -> list[int]:
    places = {name: at for at, name in enumerate(part.id)}
    for name in ids:
        if name not in places:
            raise ConfigError(f"there is no utterance {name!r} in this part; ids look like {part.id[0]!r}")
    return [places[name] for name in ids]


def _picked(
    truth: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    others: npt.NDArray[np.float32],
    n: int,
    pick: Pick,
) -> list[int]:
    apart = np.abs(scores - others)
    if pick == "flips":
        right = (truth != 0) & ((scores > 0) == (truth > 0)) & ((others > 0) != (truth > 0))
        apart = np.where(right, apart, -1.0)
    elif pick != "disagreement":
        raise ConfigError(f'pick must be "disagreement" or "flips", got {pick!r}')
    order = np.argsort(-apart, kind="stable")[:n]
    return [int(at) for at in order if apart[at] >= 0]


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}"


def cases(
    folder: str | Path,
    *,
    model: str = "full",
    against: str = "text",
    dataset: str | None = None,
    part: str = "test",
    ids: Sequence[str] = (),
    n: int = 6,
    pick: Pick = "disagreement",
) -> CaseStudy:
    """A case study of two rows of an experiment with kept models, by the first seed (and fold) of both.

    Args:
        folder: Folder of :func:`run`.
        model: Row of the model to explain, as reports name it.
        against: Row of the model it is compared with.
        dataset: Name of the dataset; not needed where there is only one.
        part: Part to choose utterances from; train has pseudo-labels.
        ids, n, pick: See :func:`case_study`.

    Raises:
        MissingFileError: There is no experiment, or its models were not kept.
        ConfigError: There is no such row, dataset or utterance.
    """
    folder = Path(folder)
    experiment = Experiment.of_folder(folder)
    name = dataset or next(iter(experiment.datasets))
    if name not in experiment.datasets:
        raise ConfigError(f"name a dataset of {', '.join(experiment.datasets)}; got {name!r}")
    finished = [run for run in read(folder) if run.record.dataset_name == name]
    first, second = _pair(finished, model, against)
    data = experiment.datasets[name].load(first.record.fold)
    return case_study(
        _saved(first),
        _saved(second),
        runs.part_of(data, part),
        data.train,
        names=(model, against),
        ids=ids,
        n=n,
        pick=pick,
        pseudo_labels=_pseudo_labels(first.folder),
    )


def _pair(finished: list[Finished], model: str, against: str) -> tuple[Finished, Finished]:
    """The first runs of two rows with the same seed and fold."""
    by_row: dict[str, dict[tuple[int, int | None], Finished]] = {}
    for run in finished:
        by_row.setdefault(str(run.record.row), {})[run.record.seed, run.record.fold] = run
    for name in (model, against):
        if name not in by_row:
            raise ConfigError(f"name a row of {', '.join(map(repr, by_row))}; got {name!r}")
    common = [place for place in by_row[model] if place in by_row[against]]
    if not common:
        raise ConfigError(f"{model} and {against} have no finished run with the same seed")
    return by_row[model][common[0]], by_row[against][common[0]]


def _saved(run: Finished) -> Model:
    if not (run.folder / "config.json").is_file():
        raise MissingFileError(
            f"{run.folder} has no saved model: set keep_models = true in the experiment, delete its run.json "
            "files, and run it again"
        )
    return Model.from_pretrained(run.folder)


def _pseudo_labels(folder: Path) -> dict[str, dict[str, float]]:
    import pandas as pd

    path = folder / "pseudo_labels.csv"
    if not path.is_file():
        return {}
    frame = pd.read_csv(path, dtype={"id": str}, keep_default_na=False, na_values=[""]).set_index("id")
    return {
        str(name): dict(zip(frame.index, frame[name], strict=True))
        for name in frame.columns
        if name != "label"
    }
