"""Splits from what users have, and back: utterances one by one, pandas frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from mmiln.data.split import FIELDS, Split
from mmiln.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

ARRAYS: Final = ("text", "text_bert", "audio", "vision")


def from_items(items: Iterable[Mapping[str, Any]], labels: npt.ArrayLike | None) -> Split:
    """See :meth:`Split.from_items`."""
    rows = list(items)
    for row in rows:
        if not isinstance(row, Mapping):
            raise DataError(
                "expected each utterance to be a dictionary such as a Split yields, with labels, text, "
                f"audio, vision, got {type(row).__name__}"
            )
    fields = {name: [row.get(name) for row in rows] for name in FIELDS if any(name in row for row in rows)}
    for name, values in fields.items():
        if missing := sum(value is None for value in values):
            raise DataError(
                f"expected {name} in every utterance or in none, {missing} of {len(rows)} lack it"
            )
    if labels is None:
        if missing := sum("labels" not in row for row in rows):
            raise DataError(f"expected labels in every utterance, {missing} of {len(rows)} lack them")
        labels = [row["labels"] for row in rows]
    return Split([str(row.get("id", place)) for place, row in enumerate(rows)], labels, **fields)  # type: ignore[arg-type]


def from_pandas(frame: pd.DataFrame) -> Split:
    """See :meth:`Split.from_pandas`."""
    columns = [str(name) for name in frame.columns if not str(name).endswith("_length")]
    if unknown := [name for name in columns if name not in ("id", "label", *FIELDS)]:
        raise DataError(
            f"expected the columns id, label and any of {', '.join(FIELDS)}, got also {unknown}: leave them "
            "out, frame.drop(columns=...)"
        )
    if "label" not in columns:
        raise DataError(f"expected a column label, got {columns}")
    names = frame["id"] if "id" in columns else frame.index
    fields = {name: [_cell(value) for value in frame[name]] for name in FIELDS if name in columns}
    return Split([str(name) for name in names], frame["label"].to_numpy(np.float32), **fields)


def _cell(value: Any) -> Any:
    """Rows of a file that knows no matrices, such as Parquet, come as an array of arrays."""
    return list(value) if isinstance(value, np.ndarray) and value.dtype.hasobject else value


def to_pandas(split: Split, arrays: bool) -> pd.DataFrame:
    """See :meth:`Split.to_pandas`."""
    import pandas as pd

    columns: dict[str, Any] = {"id": split.id, "label": split.labels}
    if split.raw_text is not None:
        columns["raw_text"] = split.raw_text
    columns |= {f"{name}_length": split.lengths(name) for name in split.sequences}
    if arrays:
        columns |= {name: list(getattr(split, name)) for name in ARRAYS if name in split.fields}
    return pd.DataFrame(columns)
