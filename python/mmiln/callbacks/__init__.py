"""Callbacks of :meth:`mmiln.Model.fit`: the protocol, and some that are of use to many.

>>> from mmiln.callbacks import CSVLogger, EarlyStopping
>>> callbacks = [EarlyStopping("valid_corr", patience=3), CSVLogger("runs/curve.csv")]
"""

from .callback import Callback, Plan
from .keeping import Checkpoint, PseudoLabels
from .loggers import CSVLogger, MlflowLogger, TensorBoard, WandbLogger
from .progress import ProgressBar
from .rates import LearningRate
from .stopping import EarlyStopping

__all__ = [
    "CSVLogger",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "LearningRate",
    "MlflowLogger",
    "Plan",
    "ProgressBar",
    "PseudoLabels",
    "TensorBoard",
    "WandbLogger",
]
