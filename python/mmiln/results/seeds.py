"""Measures of models that differ in their seed alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from ..pages import html
from ..pages.tables import Table
from .measures import Family, Measure
from .metrics import Metrics, spread
from .predictions import Predictions

if TYPE_CHECKING:
    import pandas as pd


def over_seeds(values: Sequence[float], measure: Measure) -> str:
    """Mean ± sample standard deviation of a measure, a share in per cent; of one value, the value alone."""
    known = spread([measure.factor * value for value in values])
    mean = html.number(known["mean"], measure.decimals)
    return mean if math.isnan(known["std"]) else f"{mean} ± {known['std']:.{measure.decimals}f}"


@dataclass(frozen=True, repr=False)
class SeedMetrics:
    """Measures of several seeds; prints and shows in a notebook as mean ± sample standard deviation.

    Attributes:
        parts: By part of the dataset, such as ``"test"``, the measures of each seed.
        ensemble: By part, the measures of the mean of the seeds' scores, where they were asked for.
    """

    parts: dict[str, dict[int, Metrics]]
    ensemble: dict[str, Metrics] = field(default_factory=dict)

    @classmethod
    def of(cls, predictions: Mapping[str, Mapping[int, Predictions]], *, ensemble: bool, **more: Any) -> Self:
        """Measures predictions by part and seed, and with ``ensemble`` the mean of the seeds' scores.

        Raises:
            BatchError: There are no labels.
        """
        parts = {part: {s: p.measured() for s, p in seeds.items()} for part, seeds in predictions.items()}
        means = predictions.items() if ensemble else ()
        return cls(
            parts=parts,
            ensemble={part: Predictions.mean_of([*seeds.values()]).measured() for part, seeds in means},
            **more,
        )

    @property
    def seeds(self) -> list[int]:
        """The seeds in their order."""
        return list(next(iter(self.parts.values())))

    @property
    def family(self) -> Family:
        """How the measures are shown."""
        return next(metrics for seeds in self.parts.values() for metrics in seeds.values()).family

    def values(self, part: str, measure: str) -> list[float]:
        """The values of a measure, one a seed."""
        return [getattr(metrics, measure) for metrics in self.parts[part].values()]

    def to_dict(self) -> dict[str, Any]:
        """Plain data: ``seeds``; by part and measure ``n``, ``mean``, ``std``, ``min`` and ``max``; ``each``,
        the measures of every seed by part; ``ensemble`` where it was measured.
        """
        measures = self.family.measures
        known: dict[str, Any] = {"seeds": self.seeds}
        for part in self.parts:
            known[part] = {name: spread(self.values(part, name)) for name in measures}
        known["each"] = {
            str(seed): {part: seeds[seed].to_dict() for part, seeds in self.parts.items()}
            for seed in self.seeds
        }
        if self.ensemble:
            known["ensemble"] = {part: metrics.to_dict() for part, metrics in self.ensemble.items()}
        return known

    def to_pandas(self) -> pd.DataFrame:
        """A frame by part and measure: a column for each seed, then ``mean`` and ``std``, and ``ensemble``
        where it was measured. Accuracies and F1 are shares in [0, 1].
        """
        import pandas as pd

        rows = {}
        for part, seeds in self.parts.items():
            for name in self.family.measures:
                over = spread(self.values(part, name))
                row: dict[int | str, float] = {seed: getattr(each, name) for seed, each in seeds.items()}
                row |= {"mean": over["mean"], "std": over["std"]}
                row |= {"ensemble": getattr(self.ensemble[part], name)} if self.ensemble else {}
                rows[part, name] = row
        index = pd.MultiIndex.from_tuples(rows, names=["part", "measure"])
        return pd.DataFrame(list(rows.values()), index)

    def table(self) -> Table:
        """One row a measure, one column a part: mean ± standard deviation. It can be saved as Markdown."""
        columns = {part: [*seeds.values()] for part, seeds in self.parts.items()}
        columns |= {f"{part}, ensemble": [metrics] for part, metrics in self.ensemble.items()}
        rows = [
            (m.heading, *(over_seeds([getattr(x, name) for x in xs], m) for xs in columns.values()))
            for name, m in self.family.measures.items()
        ]
        count = len(self.seeds)
        caption = "One seed" if count == 1 else f"{count} seeds, mean ± standard deviation"
        return Table(caption, ("", *columns), tuple(rows))

    def __str__(self) -> str:
        return self.table().text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        table = self.table()
        return html.table(table.columns, table.rows, table.caption)
