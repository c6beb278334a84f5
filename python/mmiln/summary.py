"""How large the parts of a model are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

DEPTH = {"text": 2, "audio": 2, "vision": 2, "fusion": 3, "heads": 2}


@dataclass(frozen=True)
class Summary:
    """Trainable parameters by part, in the order of the graph. Every parameter of the model is trained.

    Attributes:
        parts: Number of parameters by the leading names of ``state_dict()``.
    """

    parts: dict[str, int]

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> Summary:
        """Counts a state dict."""
        counts: Counter[str] = Counter()
        for name, tensor in state.items():
            names = name.split(".")
            counts[".".join(names[: DEPTH[names[0]]])] += tensor.numel()
        order = list(DEPTH)
        return cls(dict(sorted(counts.items(), key=lambda item: order.index(item[0].split(".")[0]))))

    @property
    def total(self) -> int:
        """Number of parameters in all."""
        return sum(self.parts.values())

    def __str__(self) -> str:
        width = max(len(name) for name in (*self.parts, "total"))
        rows = [f"{name:<{width}}  {count:>12,}  trainable" for name, count in self.parts.items()]
        return "\n".join([*rows, f"{'total':<{width}}  {self.total:>12,}"])
