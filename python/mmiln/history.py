"""What training measured, epoch by epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


class History(dict[str, list[float]]):
    """A dictionary of lists, one value an epoch: ``train_total``, ``valid_mae``, ``seconds`` and so on.

    Attributes:
        best_epoch: The epoch (from 1) whose weights are the result; ``None`` without a validation set.
    """

    best_epoch: int | None = None

    def append(self, logs: dict[str, float]) -> None:
        """Adds one epoch."""
        for name, value in logs.items():
            self.setdefault(name, []).append(value)

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(next(iter(self.values()), []))

    def to_frame(self) -> pd.DataFrame:
        """The same as a pandas frame, indexed by epoch from 1."""
        import pandas as pd

        return pd.DataFrame(dict(self), index=pd.RangeIndex(1, self.epochs + 1, name="epoch"))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draws the learning curve on ``ax`` (a new figure by default) and returns the axes."""
        from .plotting import learning_curve

        return learning_curve(self, ax)

    def __repr__(self) -> str:
        if not self.epochs:
            return "History(no epoch)"
        best = "" if self.best_epoch is None else f", best epoch {self.best_epoch}"
        last = ", ".join(f"{name} {values[-1]:.4g}" for name, values in self.items())
        return f"History({self.epochs} epochs{best}; last: {last})"
