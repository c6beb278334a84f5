"""mmiln: multimodal sentiment analysis with MMILN, trained and served by a Rust core.

>>> import mmiln
>>> data = mmiln.data.synthetic(n_train=24, n_valid=8, n_test=8)
>>> model = mmiln.Model("mosi", num_layers=1, seed=0)
>>> history = model.fit(data.train, data.valid, epochs=1, progress=False)
>>> model.evaluate(data.test).n
8
"""

from __future__ import annotations

import importlib as _importlib
from importlib.metadata import version as _version
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from . import _torch, errors  # torch first: the core links against its libraries

_torch.check()

from . import baselines, callbacks, data, functional  # noqa: E402
from .auto import load_pretrained  # noqa: E402
from .callbacks import Callback  # noqa: E402
from .model import Model  # noqa: E402
from .results.history import History  # noqa: E402
from .results.metrics import Metrics  # noqa: E402
from .results.predictions import Predictions  # noqa: E402
from .results.summary import Summary  # noqa: E402
from .training.estimator import Estimator  # noqa: E402

__version__ = _version("mmiln")

if _TYPE_CHECKING:
    from . import experiments, plotting, sklearn, testing

__all__ = [
    "Callback",
    "Estimator",
    "History",
    "Metrics",
    "Model",
    "Predictions",
    "Summary",
    "baselines",
    "callbacks",
    "data",
    "errors",
    "experiments",
    "functional",
    "load_pretrained",
    "plotting",
    "sklearn",
    "testing",
]


def __getattr__(name: str) -> _Any:
    """Rooms that are opened when they are first asked for: ``testing`` needs pytest, for one."""
    if name in ("experiments", "plotting", "sklearn", "testing"):
        return _importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
