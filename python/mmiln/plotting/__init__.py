"""Pictures of training, of scores and of what the model did inside, with matplotlib.

Every function takes ``ax`` (the only axes of a new figure by default), draws on it and returns it: in a
notebook ``mmiln.plotting.confusion(predictions).figure`` shows a picture by itself, and any ``ax`` of yours
will do. Nothing is set globally; fonts and backgrounds are those that you set. The "points" of labels are
sentiment points.

>>> import mmiln
>>> history = mmiln.History(train_task=[2.0, 1.5], train_total=[2.2, 1.6])
>>> mmiln.plotting.loss_parts(history).get_xlabel()
'epoch'
"""

from __future__ import annotations

from .inside import attention_map, gates, projection
from .scores import (
    by_seed,
    confusion,
    depth,
    differences,
    error_by_disagreement,
    error_by_length,
    predicted_against_true,
)
from .style import new_figure
from .training import (
    learning_curve,
    loss_parts,
    mrm_losses,
    pseudo_label_drift,
    pseudo_label_shift,
    pseudo_labels_against_human,
    validation_metrics,
)

__all__ = [
    "attention_map",
    "by_seed",
    "confusion",
    "depth",
    "differences",
    "error_by_disagreement",
    "error_by_length",
    "gates",
    "learning_curve",
    "loss_parts",
    "mrm_losses",
    "new_figure",
    "predicted_against_true",
    "projection",
    "pseudo_label_drift",
    "pseudo_label_shift",
    "pseudo_labels_against_human",
    "validation_metrics",
]
