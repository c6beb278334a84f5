"""Checks of the data that plots are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from ..errors import DataError

if TYPE_CHECKING:
    from ..results.predictions import Predictions

Floats = npt.NDArray[np.float64]

EVEN: Final = 1.05  # largest ratio of weights that are called even


def finite(name: str, values: npt.ArrayLike, *shape: int | None) -> Floats:
    """The values as an array of this shape; ``None`` stands for any length but 0.

    Raises:
        DataError: Another shape, or a value that is not finite.

    >>> finite("lengths", [3, 5], 3)
    Traceback (most recent call last):
    mmiln.errors.DataError: lengths should have the shape (3,), got (2,)
    """
    wanted = str(tuple("at least 1" if size is None else size for size in shape)).replace("'", "")
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} should be numbers in the shape {wanted}: {error}") from None
    fits = array.ndim == len(shape) and all(
        size > 0 and expected in (None, size) for size, expected in zip(array.shape, shape, strict=True)
    )
    if not fits:
        raise DataError(f"{name} should have the shape {wanted}, got {array.shape}")
    if bad := int((~np.isfinite(array)).sum()):
        raise DataError(f"{name} should be finite to be drawn, {bad} of {array.size} values are not")
    return array


def even(values: npt.NDArray[np.floating[Any]]) -> bool:
    """Whether attention weights are the same but for a few per cent.

    >>> even(np.array([0.249, 0.251]))
    True
    """
    return bool(values.max() <= EVEN * values.min())


def scored(predictions: Predictions) -> tuple[Floats, Floats]:
    """The true and the predicted scores, ``(N,)`` each.

    Raises:
        DataError: There is no utterance, no label, or a score that is not finite.
    """
    if predictions.label is None:
        raise DataError("these predictions have no labels to compare with: predict on utterances that have")
    truth = finite("labels", predictions.label, None)
    return truth, finite("scores", predictions.score, len(truth))
