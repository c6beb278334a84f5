"""Scores that others published. They never enter a mean, a comparison or a figure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..files import read_toml
from ..results.measures import MOSI


@dataclass(frozen=True)
class Published:
    """Published scores of a model on a data set.

    Attributes:
        scores: Texts by title, in the paper's layout.
        source: Key of the citation.
    """

    scores: dict[str, str]
    source: str


@cache
def _file() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("published.toml"))


def published(dataset: str) -> dict[str, Published]:
    """Published scores on ``"mosi"`` or ``"mosei"`` by model."""

    def cells(scores: dict[str, Any]) -> dict[str, str]:
        both = {n: dict(zip(("has0", "non0"), scores[n], strict=True)) for n in ("acc2", "f1")}
        flat = scores | {f"{c}_{n}": value for n, values in both.items() for c, value in values.items()}
        return MOSI.cells(lambda name, measure: f"{flat[name]:.{measure.decimals}f}", MOSI.paper)

    return {name: Published(cells(scores), scores["source"]) for name, scores in _file()[dataset].items()}


def citation(source: str) -> str:
    """The citation of the publication with this key."""
    cite: str = _file()["sources"][source]["cite"]
    return cite
