"""How large the parts of a model are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

from ..pages import html

DEPTH = {"text": 2, "audio": 2, "vision": 2, "fusion": 3, "heads": 2}


@dataclass(frozen=True)
class Summary:
    """Parameters by part, in the order of the graph.

    Attributes:
        parts: Number of parameters by the leading names of ``state_dict()``.
        frozen: Number of parameters not trained, of the parts that have any (``freeze_text=`` and so on).
    """

    parts: dict[str, int]
    frozen: dict[str, int]

    @classmethod
    def of(cls, state: Mapping[str, Tensor], frozen: Collection[str]) -> Summary:
        """Counts a state dict and, in it, the parameters with the names ``frozen``."""
        counts: Counter[str] = Counter()
        untrained: Counter[str] = Counter()
        for name, tensor in state.items():
            names = name.split(".")
            part = ".".join(names[: DEPTH.get(names[0], 1)])
            counts[part] += tensor.numel()
            if name in frozen:
                untrained[part] += tensor.numel()
        order = {name: place for place, name in enumerate(DEPTH)}
        by_graph = dict(sorted(counts.items(), key=lambda item: order.get(item[0].split(".")[0], 0)))
        return cls(by_graph, dict(untrained))

    @property
    def total(self) -> int:
        """Number of parameters in all."""
        return sum(self.parts.values())

    def _trained(self, part: str) -> str:
        """Whether a part is trained, or how much of it."""
        count, frozen = self.parts[part], self.frozen.get(part, 0)
        if 0 < frozen < count:
            return f"{count - frozen:,} trainable"
        return "frozen" if frozen else "trainable"

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.parts, "total"))
        rows = [f"{name:<{width}}  {count:>12,}  {self._trained(name)}" for name, count in self.parts.items()]
        return "\n".join([*rows, f"{'total':<{width}}  {self.total:>12,}"])

    def _repr_html_(self) -> str:
        """The same as a table."""
        rows = [(name, f"{count:,}", self._trained(name)) for name, count in self.parts.items()]
        return html.table(["part", "parameters", ""], [*rows, ("total", f"{self.total:,}", "")])
