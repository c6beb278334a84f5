"""Scores of a dataset's utterances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """Scores in dataset order where the batches carry indices, else in the order of the loader.

    Attributes:
        score: Predicted sentiment, float32 ``(N,)``.
        id: Names of the utterances, or ``None``.
        index: Positions in the dataset, or ``None``.
        label: True scores, or ``None``.
    """

    score: npt.NDArray[np.float32]
    id: list[str] | None = None
    index: npt.NDArray[np.int64] | None = None
    label: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.score)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.score, dtype=dtype, copy=True if copy is None else copy)

    def to_pandas(self) -> pd.DataFrame:
        """A frame with the columns that are known, of ``id``, ``index``, ``label``, ``score``."""
        import pandas as pd

        columns = {"id": self.id, "index": self.index, "label": self.label, "score": self.score}
        return pd.DataFrame({name: values for name, values in columns.items() if values is not None})
