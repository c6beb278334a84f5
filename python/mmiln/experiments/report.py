"""The report of an experiment: tables in the paper's layout, comparisons, and the cost of the runs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from .. import plotting
from ..errors import ConfigError
from ..files import write, write_text
from ..pages.tables import Table, page
from ..results.measures import AGAINST_HUMAN, MOSI, Family, Measure, family_of
from ..results.metrics import spread
from ..results.seeds import over_seeds
from . import published as literature
from . import results
from .compare import CONFIDENCE, RESAMPLES, Comparison, compare
from .experiment import DESCRIPTION, Experiment
from .models import MODELS
from .results import Group
from .runs import Row

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

DEPTH: Final = "num_layers"
WIDTH: Final = 80  # characters of a table's line


class Report:
    """All finished runs below a folder, checked to be comparable.

    Attributes:
        name: Name of the experiment.
        groups: Runs by dataset and row of the tables, in the order of the experiment.

    >>> Report.read("nowhere")
    Traceback (most recent call last):
    mmiln.errors.MissingFileError: there is no finished run in nowhere: run an experiment with this folder
    """

    def __init__(
        self, name: str, groups: dict[str, dict[Row, Group]], experiment: Experiment | None = None
    ) -> None:
        self.name = name
        self.groups = groups
        self._experiment = experiment
        self._comparisons: dict[tuple[str, Row, Row], Comparison] = {}

    @classmethod
    def read(cls, folder: str | Path) -> Report:
        """Reads a folder that :func:`run` or ``mmiln train`` wrote.

        Raises:
            MissingFileError: There is no finished run.
            ProtocolError: Its runs can't be averaged; names their differences.
            DataError: A file is damaged.
        """
        folder = Path(folder)
        groups = results.grouped(results.read(folder))
        if not (folder / DESCRIPTION).is_file():  # written by `mmiln train`
            return cls(folder.resolve().name, groups)
        experiment = Experiment.of_folder(folder)
        order = {(task.dataset, task.row): None for task in experiment.tasks()}
        ordered: dict[str, dict[Row, Group]] = {name: {} for name in experiment.datasets if name in groups}
        for dataset, row in order:
            if row in groups.get(dataset, {}):
                ordered[dataset][row] = groups[dataset][row]
        return cls(experiment.name, ordered, experiment)

    # Numbers

    def to_pandas(self) -> pd.DataFrame:
        """A table of every measure by dataset, row and seed, on the test part where there is one."""
        import pandas as pd

        return pd.DataFrame(
            {"dataset": dataset, "model": row.model, **row.grid, "seed": seed, "part": group.part, **measures}
            for dataset, rows in self.groups.items()
            for row, group in rows.items()
            for seed, measures in group.measures.items()
        )

    def summary(self) -> pd.DataFrame:
        """Mean, sample standard deviation, minimum and maximum over seeds, by dataset, row and measure."""
        import pandas as pd

        index, values = [], []
        for dataset, rows in self.groups.items():
            for row, group in rows.items():
                for measure in next(iter(group.measures.values())):
                    index.append((dataset, str(row), measure))
                    values.append(spread([each[measure] for each in group.measures.values()]))
        return pd.DataFrame(
            values,
            index=pd.MultiIndex.from_tuples(index, names=["dataset", "row", "measure"]),
            columns=["n", "mean", "std", "min", "max"],
        )

    def compare(self, first: str, second: str, dataset: str | None = None) -> Comparison:
        """Compares the first row with the second, paired by seed and utterance; rows are named as in tables.

        Raises:
            ConfigError: There is no such row or dataset.
            DataError: They share no seed.
        """
        name = self._dataset(dataset)
        rows = self.groups[name]
        return self._compared(name, self._group(rows, first), self._group(rows, second))

    def _compared(self, dataset: str, first: Group, second: Group) -> Comparison:
        """The comparison, cached, so that each pair is resampled once for all pages."""
        pair = (dataset, first.row, second.row)
        if pair not in self._comparisons:
            self._comparisons[pair] = compare(first.scores, second.scores)
        return self._comparisons[pair]

    def _dataset(self, name: str | None) -> str:
        if name is None and len(self.groups) == 1:
            return next(iter(self.groups))
        if name not in self.groups:
            raise ConfigError(f"name a dataset of {', '.join(self.groups)}; got {name!r}")
        return name

    @staticmethod
    def _group(rows: dict[Row, Group], name: str) -> Group:
        for row, group in rows.items():
            if str(row) == name:
                return group
        raise ConfigError(f"name a row of {', '.join(map(repr, map(str, rows)))}; got {name!r}")

    # Pages

    def tables(self, against: str | None = None) -> list[Table]:
        """For every dataset: results, spread, comparisons with ``against`` (by default the first row), cost.

        Raises:
            ConfigError: There is no row ``against``.
        """
        return [table for dataset in self.groups for table in self._tables(dataset, against)]

    def _tables(self, dataset: str, against: str | None) -> list[Table]:
        rows = self.groups[dataset]
        base = self._group(rows, against) if against is not None else next(iter(rows.values()))
        others = [group for group in rows.values() if group is not base]
        title = self._title(dataset)
        tables = [_results(title, rows), _ranges(title, rows), _cost(title, rows)]
        if others:
            compared = [(group, self._compared(dataset, group, base)) for group in others]
            tables.insert(2, _differences(title, base, compared))
        if any(_against_human(group) for group in rows.values()):
            tables.append(_pseudo_labels(title, rows))
        source = self._experiment.datasets[dataset].published if self._experiment is not None else None
        if source is not None:
            tables.append(_published(title, literature.published(source)))
        return tables

    def _title(self, dataset: str) -> str:
        """A dataset's name, with that of its file where it is another."""
        path = self._experiment.datasets[dataset].path if self._experiment is not None else dataset
        file = Path(os.path.expandvars(path)).name
        return dataset if Path(file).stem == dataset else f"{dataset} ({file})"

    def figures(self) -> dict[str, Figure]:
        """The paper's figure 4 by dataset, where several depths were run: measures over ``num_layers``."""
        figures = {}
        for dataset, rows in self.groups.items():
            depths = {row: group for row, group in rows.items() if DEPTH in row.grid}
            lines = _lines(depths)
            if len({row.grid[DEPTH] for row in depths}) > 1:
                figure = plotting.new_figure(width=9.0)
                plotting.depth(lines, figure.subplots(1, 2))
                figures[dataset] = figure
        return figures

    def figures_of_rows(self, against: str | None = None) -> dict[str, Figure]:
        """Each row's MAE by seed, and its difference from ``against`` (by default the first row) with its
        interval; by dataset, where several rows were run.

        Raises:
            ConfigError: There is no row ``against``.
        """
        figures = {}
        for dataset, rows in self.groups.items():
            base = self._group(rows, against) if against is not None else next(iter(rows.values()))
            if len(rows) == 1:
                continue
            figure = plotting.new_figure(9.0, 1.2 + 0.3 * len(rows))
            left, right = figure.subplots(1, 2, sharey=True)
            plotting.by_seed({str(row): _numbers(group, "mae") for row, group in rows.items()}, left)
            left.set_xlabel("MAE (sentiment points)")
            others = {
                str(row): None if group is base else self._compared(dataset, group, base).differences["mae"]
                for row, group in rows.items()
            }
            plotting.differences(others, right)
            right.set_xlabel(f"MAE minus that of {base.row}, {CONFIDENCE:.0%} interval")
            figures[dataset] = figure
        return figures

    def to_markdown(self, against: str | None = None) -> str:
        """The report as a page of Markdown, its tables at most 80 characters wide where columns allow it.

        Figures have the names under which :meth:`save` writes them.
        """
        depths, rows = self.figures(), self.figures_of_rows(against)
        parts = [f"# {self.name}", self._protocol()]
        for dataset in self.groups:
            title = self._title(dataset)
            parts.append(f"## {title}")
            parts += [table.markdown(WIDTH) for table in self._tables(dataset, against)]
            if dataset in rows:
                parts.append(
                    f"![{title}: test MAE of each row]({_figure_name('mae', dataset)}.png)\n\n"
                    f"{title}: MAE in sentiment points, a point for each seed and a bar at their mean; "
                    "and the differences, orange where the interval excludes 0."
                )
            if dataset in depths:
                parts.append(
                    f"![{title}: measures by number of fusion layers]"
                    f"({_figure_name('figure4', dataset)}.png)\n\n"
                    f"{title}: by number of fusion layers, mean and standard deviation over seeds."
                )
            parts.append(self._notes(dataset))
        return "\n\n".join(part for part in parts if part) + "\n"

    def to_latex(self, against: str | None = None) -> str:
        """Every table, for a document with the package booktabs."""
        return "\n".join(table.latex() for table in self.tables(against))

    def to_html(self, against: str | None = None) -> str:
        """The report as a page of HTML."""
        return page(self.to_markdown(against), self.name)

    def _repr_html_(self) -> str:
        return "".join(table.html(WIDTH) for table in self.tables())

    def __repr__(self) -> str:
        runs = sum(len(group.runs) for rows in self.groups.values() for group in rows.values())
        return f"Report({self.name!r}, {runs} runs of {', '.join(self.groups)})"

    def save(self, folder: str | Path, against: str | None = None) -> list[Path]:
        """Writes ``report.md``, ``.tex``, ``.html``, ``.csv`` and figures (PNG, PDF); returns the paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        texts = {
            "report.md": self.to_markdown(against),
            "report.tex": self.to_latex(against),
            "report.html": self.to_html(against),
            "report.csv": self.to_pandas().to_csv(index=False),
        }
        for name, text in texts.items():
            write_text(folder / name, text)
        written = [folder / name for name in texts]
        for what, figures in (("mae", self.figures_of_rows(against)), ("figure4", self.figures())):
            for dataset, figure in figures.items():
                for kind in ("png", "pdf"):
                    path = folder / f"{_figure_name(what, dataset)}.{kind}"
                    _write_figure(path, figure, kind)
                    written.append(path)
        return written

    def _protocol(self) -> str:
        """A Markdown list of the settings and machines of all runs."""
        records = [r for rows in self.groups.values() for group in rows.values() for r in group.records]

        def each(value: Callable[[Any], Any]) -> str:
            return ", ".join(sorted({str(value(record)) for record in records}))

        seeds, epochs = each(lambda r: r.seed), each(lambda r: r.protocol.epochs)
        lines = [
            f"{_counted(len(records), 'run')}; seed{'s' if ',' in seeds else ''} {seeds}",
            f"at most {epochs} epoch{'' if epochs == '1' else 's'}, "
            f"patience {each(lambda r: r.config['patience'])}, "
            f"the epoch with {each(lambda r: r.protocol.choice)}",
            f"preset {each(lambda r: r.preset)}; text encoder (SHA-256) "
            f"{each(lambda r: 'none' if r.text_encoder is None else r.text_encoder[:12])}",
            f"mmiln {each(lambda r: r.code['version'])}, build {each(lambda r: r.code['digest'][:12])}; "
            f"torch {each(lambda r: r.machine['torch'])}; {each(lambda r: r.machine['processor'])}, "
            f"device {each(lambda r: r.machine['device'])}",
        ]
        if self._experiment is not None:
            given = {"every model": self._experiment.settings, **self._experiment.model_settings}
            lines[3:3] = [
                f"settings of {model}: {_listed(settings)}" for model, settings in given.items() if settings
            ]
        return "\n".join(f"- {line}" for line in lines)

    def _notes(self, dataset: str) -> str:
        """What a reader must know of a dataset's runs."""
        rows = self.groups[dataset]
        records = [record for group in rows.values() for record in group.records]
        first = records[0]
        parts = ", ".join(f"{name} {size}" for name, size in first.sizes.items())
        notes = [
            f"Data: {parts}"
            + (f" (of the first of {first.protocol.folds} folds by video)" if first.protocol.folds else "")
            + (", audio and vision standardized by train" if first.protocol.standardized else "")
            + f"; fingerprint {first.fingerprint[:12]}."
        ]
        for what, found in {
            "machines": {str(sorted(r.machine.items())) for r in records},
            "builds of the code": {r.code["digest"] for r in records},
        }.items():
            if len(found) > 1:
                notes.append(f"The runs come from {len(found)} {what}.")
        for group in rows.values():
            if group.incomplete:
                seeds = ", ".join(map(str, sorted({run.record.seed for run in group.incomplete})))
                notes.append(f"{group.row}: left out for missing folds: seed{'s' * (',' in seeds)} {seeds}.")
        if self._experiment is not None:
            wanted = {(t.row, t.seed, t.fold) for t in self._experiment.tasks() if t.dataset == dataset}
            there = {
                (run.record.row, run.record.seed, run.record.fold)
                for group in rows.values()
                for run in (*group.runs, *group.incomplete)
            }
            if missing := len(wanted - there):
                notes.append(f"Not finished: {missing} of {_counted(len(wanted), 'run')}.")
        known = dict.fromkeys(row.model for row in rows if row.model in MODELS)
        notes += [f"`{name}`: {MODELS[name].about}." for name in known]
        return "\n".join(f"- {note}" for note in notes)


def _results(title: str, rows: Mapping[Row, Group]) -> Table:
    family = _family(rows)
    lines = [
        (
            _label(group),
            str(len(group.measures)),
            *family.cells(partial(_over_seeds, group), family.paper).values(),
            f"{group.records[0].parameters:,}",
            _seconds(group),
        )
        for group in rows.values()
    ]
    first = next(iter(rows.values()))
    several = max(len(group.measures) for group in rows.values()) > 1
    caption = (
        f"{title}: {first.part} part, {_counted(len(first.scores.id), 'utterance')}, "
        f"{'mean ± standard deviation over seeds' if several else 'one seed'}, epoch chosen on validation"
        + ("; Acc-2 and F1 as has0 / non0." if len(family.binary) > 1 else ".")
    )
    if any(group.records[0].protocol.selection == "test" for group in rows.values()):
        caption += " † Epoch chosen on the test part, which flatters: not to be compared with the other rows."
    return Table(caption, ("model", "seeds", *_columns(family), "parameters", "s an epoch"), tuple(lines))


def _published(title: str, known: Mapping[str, literature.Published]) -> Table:
    sources = dict.fromkeys(entry.source for entry in known.values())
    cited = "; ".join(f"[{key}] {literature.citation(key)}" for key in sources)
    return Table(
        f"{title}: published, not measured here; Acc-2 and F1 as has0 / non0. {cited}",
        ("model", *_columns(MOSI)),
        tuple((f"{name} [{entry.source}]", *entry.scores.values()) for name, entry in known.items()),
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _family(rows: Mapping[Row, Group]) -> Family:
    """The measures of a dataset, which all of its runs share."""
    return family_of(next(iter(rows.values())).records[0].label_range)


def _columns(family: Family) -> tuple[str, ...]:
    return tuple(family.headings[title] for title in family.paper)


def _label(group: Group) -> str:
    return str(group.row) + (" †" if group.records[0].protocol.selection == "test" else "")


def _numbers(group: Group, measure: str) -> list[float]:
    return [measures[measure] for measures in group.measures.values()]


def _over_seeds(group: Group, name: str, measure: Measure) -> str:
    return over_seeds(_numbers(group, name), measure)


def _text(value: float, decimals: int, sign: str = "") -> str:
    return "–" if math.isnan(value) else f"{value:{sign}.{decimals}f}"


def _ranges(dataset: str, rows: dict[Row, Group]) -> Table:
    family = _family(rows)

    def line(group: Group) -> tuple[str, ...]:
        def text(name: str, measure: Measure) -> str:
            values = spread([measure.factor * value for value in _numbers(group, name)])
            low, high = (f"{values[end]:.{measure.decimals}f}" for end in ("min", "max"))
            return "–" if math.isnan(values["mean"]) else f"{low} – {high}"

        return _label(group), *family.cells(text, family.paper).values()

    caption = f"{dataset}: lowest and highest of the seeds."
    return Table(caption, ("model", *_columns(family)), tuple(map(line, rows.values())))


def _differences(dataset: str, base: Group, compared: list[tuple[Group, Comparison]]) -> Table:
    family = _family({base.row: base})

    def line(group: Group, found: Comparison) -> tuple[str, ...]:
        def text(name: str, measure: Measure) -> str:
            d = found.differences[name]
            ends = (measure.factor * x for x in (d.value, d.low, d.high))
            value, low, high = (_text(x, measure.decimals, "+") for x in ends)
            return value if math.isnan(d.low) else f"{value} [{low}, {high}]"

        def tests(convention: str) -> str:
            p = sorted(test.p for test in found.mcnemar[convention].values())
            return f"{float(np.median(p)):.2g} ({p[0]:.2g} – {p[-1]:.2g})" if len(p) > 1 else f"{p[0]:.2g}"

        p = " / ".join(map(tests, family.binary))
        return _label(group), *family.cells(text, family.paper[:3]).values(), p

    return Table(
        f"{dataset}: the row minus {base.row}, on the same seeds and utterances: mean over seeds, "
        f"{CONFIDENCE:.0%} interval of a paired bootstrap over utterances ({RESAMPLES} resamples), and p of "
        f"McNemar's exact test on {' / '.join(family.binary)}, a test a seed: median (lowest – highest). "
        "Nothing is corrected for the number of comparisons.",
        ("model", *_columns(family)[:3], "McNemar p"),
        tuple(line(group, found) for group, found in compared),
    )


def _cost(dataset: str, rows: dict[Row, Group]) -> Table:
    def line(group: Group) -> tuple[str, ...]:
        epochs = [len(record.history["seconds"]) for record in group.records]
        best = [record.best_epoch for record in group.records]
        return (
            _label(group),
            f"{np.mean(best):.1f} of {np.mean(epochs):.1f}",
            f"{np.mean([record.seconds for record in group.records]):.0f}",
            f"{max(record.peak_memory_mib for record in group.records):,.0f}",
        )

    return Table(
        f"{dataset}: what the runs have cost; time depends on what else the machine did.",
        ("model", "best epoch of", "s a run", "peak MiB"),
        tuple(map(line, rows.values())),
    )


def _against_human(group: Group) -> dict[str, list[float]]:
    """How near pseudo-labels were to human ones in the epoch that was chosen, by measure and run."""
    found: dict[str, list[float]] = {}
    for record in group.records:
        for name in AGAINST_HUMAN.keys() & record.history.keys():
            chosen = record.history[name][record.best_epoch - 1 :]
            found.setdefault(name, []).append(math.nan if not chosen or chosen[0] is None else chosen[0])
    return found


def _pseudo_labels(dataset: str, rows: dict[Row, Group]) -> Table:
    groups = [(group, found) for group in rows.values() if (found := _against_human(group))]

    def text(values: list[float]) -> str:
        over = spread(values)
        mean = _text(over["mean"], 3)
        return mean if math.isnan(over["std"]) else f"{mean} ± {over['std']:.3f}"

    return Table(
        f"{dataset}: pseudo-labels of the train part against the labels that people gave to each modality, "
        "in the epoch chosen: mean ± standard deviation over runs.",
        ("model", *AGAINST_HUMAN.values()),
        tuple(
            (_label(group), *(text(found.get(name, [math.nan])) for name in AGAINST_HUMAN))
            for group, found in groups
        ),
    )


def _seconds(group: Group) -> str:
    """The median time of an epoch."""
    seconds = [value for record in group.records for value in record.history["seconds"] if value]
    return f"{np.median(seconds):.2f}" if seconds else "–"


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def _lines(depths: dict[Row, Group]) -> dict[str, dict[int, dict[str, list[float]]]]:
    """The values of all seeds by line (a row without its depth), depth and measure."""
    lines: dict[str, dict[int, dict[str, list[float]]]] = {}
    for row, group in depths.items():
        rest = Row(model=row.model, grid={name: v for name, v in row.grid.items() if name != DEPTH})
        measures = next(iter(group.measures.values()))
        lines.setdefault(str(rest), {})[row.grid[DEPTH]] = {name: _numbers(group, name) for name in measures}
    return lines


def _figure_name(what: str, dataset: str) -> str:
    # The name comes from a file, and must not lead out of the folder.
    return f"{what}-" + re.sub(r"[^\w.+ -]", "_", dataset)[:50]


def _write_figure(path: Path, figure: Figure, kind: str) -> None:
    # Without a date, the same results give the same bytes.
    metadata = {"CreationDate": None} if kind == "pdf" else None
    write(path, lambda temporary: figure.savefig(temporary, format=kind, dpi=150, metadata=metadata))
