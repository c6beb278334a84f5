"""ULGM: pseudo-labels for audio and vision, (29)-(34), with centres recomputed from all rows."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

EPS = 1e-8
Array = NDArray[np.float64]


class Ulgm:
    """State over `n` training samples; `dims` gives the widths of "multimodal", "audio", "vision".

    `labels[u]` (n,) and `features[u]` (n, dim) hold NaN where a sample has not been seen;
    `centres[u]` is (positive, negative), each None while its class has no sample.
    """

    def __init__(
        self,
        n: int,
        dims: Mapping[str, int],
        label_bound: float = 3.0,
        exclude_zero: bool = True,
    ) -> None:
        self.dims = dict(dims)
        self.targets = [u for u in ("audio", "vision") if u in dims]
        self.label_bound = label_bound
        self.exclude_zero = exclude_zero
        self.labels = {u: np.full(n, np.nan) for u in dims}
        self.features = {u: np.full((n, dim), np.nan) for u, dim in dims.items()}
        self.centres: dict[str, tuple[Array | None, Array | None]] = dict.fromkeys(dims, (None, None))

    def pseudo(self, index: Sequence[int], y_m: ArrayLike) -> dict[str, Array]:
        """Current pseudo-labels of a batch; an unseen sample has its multimodal label."""
        y_m = np.asarray(y_m, dtype=np.float64)
        now = {u: self.labels[u][np.asarray(index)] for u in self.targets}
        return {u: np.where(np.isnan(y), y_m, y) for u, y in now.items()}

    def step(
        self,
        epoch: int,
        index: Sequence[int],
        y_m: ArrayLike,
        F_m: ArrayLike,
        F_a: ArrayLike | None = None,
        F_v: ArrayLike | None = None,
    ) -> None:
        """One training step; epochs count from 1. Of an index given twice the last row counts."""
        given = {"multimodal": F_m, "audio": F_a, "vision": F_v}
        batch = {u: np.asarray(given[u], dtype=np.float64) for u in self.dims}
        y_m = np.asarray(y_m, dtype=np.float64)
        last = {int(sample): row for row, sample in enumerate(index)}

        for sample, row in last.items():
            for u in self.dims:
                if np.isnan(self.labels[u][sample]):
                    self.labels[u][sample] = y_m[row]
            if epoch >= 2:
                rows = {u: batch[u][row] for u in self.dims}
                self._update_labels(epoch, sample, rows)
        for sample, row in last.items():
            for u in self.dims:
                self.features[u][sample] = batch[u][row]
        self.centres = {u: (self._centre(u, True), self._centre(u, False)) for u in self.dims}

    def _update_labels(self, epoch: int, sample: int, rows: Mapping[str, Array]) -> None:
        y_m = self.labels["multimodal"][sample]
        alpha_m = self._alpha("multimodal", rows["multimodal"])
        for s in self.targets:
            alpha_s = self._alpha(s, rows[s])
            if alpha_m is None or alpha_s is None:
                continue
            new = y_m * alpha_s / (2 * (alpha_m + EPS)) + (y_m + alpha_s - alpha_m) / 2
            new = min(max(new, -self.label_bound), self.label_bound)
            old = self.labels[s][sample]
            self.labels[s][sample] = (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * new

    def _alpha(self, u: str, feature: Array) -> float | None:
        """Relative distance to the two centres; None while either class is empty."""
        positive, negative = self.centres[u]
        if positive is None or negative is None:
            return None
        d_p = np.sqrt(((feature - positive) ** 2).sum()) / np.sqrt(self.dims[u])
        d_n = np.sqrt(((feature - negative) ** 2).sum()) / np.sqrt(self.dims[u])
        return float((d_n - d_p) / (d_p + EPS))

    def _centre(self, u: str, positive: bool) -> Array | None:
        stored = ~np.isnan(self.labels[u])
        if not positive:
            chosen = stored & (self.labels[u] < 0)
        elif self.exclude_zero:
            chosen = stored & (self.labels[u] > 0)
        else:
            chosen = stored & (self.labels[u] >= 0)
        return self.features[u][chosen].mean(axis=0) if chosen.any() else None
