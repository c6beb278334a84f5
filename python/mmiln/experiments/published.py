"""Scores that others published. They never enter a mean, a comparison or a figure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..files import read_toml


@dataclass(frozen=True)
class Published:
    """What a publication says of a model on a data set.

    Attributes:
        text: Its scores in the paper's layout.
        source: Key of the citation.
    """

    text: str
    source: str


@cache
def _file() -> dict[str, Any]:
    return read_toml(Path(__file__).with_name("published.toml"))


def published(dataset: str) -> dict[str, Published]:
    """Published scores on ``"mosi"`` or ``"mosei"`` by model."""

    def text(scores: dict[str, Any]) -> str:
        acc2, f1 = (" / ".join(f"{value:.2f}" for value in scores[name]) for name in ("acc2", "f1"))
        mae, corr, acc7 = (scores[name] for name in ("mae", "corr", "acc7"))
        return f"MAE {mae:.3f}, Corr {corr:.3f}, Acc-2 {acc2}, F1 {f1}, Acc-7 {acc7:.2f}"

    return {name: Published(text(scores), scores["source"]) for name, scores in _file()[dataset].items()}


def citation(source: str) -> str:
    """Where published scores with this source were printed."""
    cite: str = _file()["sources"][source]["cite"]
    return cite
