"""mmiln: multimodal sentiment analysis with MMILN, trained and served by a Rust core.

>>> import mmiln
>>> data = mmiln.data.synthetic(n_train=24, n_valid=8, n_test=8)
>>> model = mmiln.Model("mosi", num_layers=1, seed=0)
>>> history = model.fit(data.train, data.valid, epochs=1, progress=False)
>>> model.evaluate(data.test).n
8
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from . import _torch, errors

_torch.check()

__version__ = version("mmiln")

__all__ = [
    "Callback", "Estimator", "History", "Metrics", "Model", "Predictions", "Summary", "baselines",
    "callbacks", "data", "errors", "experiments", "explain", "fit_seeds", "functional", "load_pretrained",
    "plotting", "pytorch", "sklearn", "testing",
]  # fmt: skip

if TYPE_CHECKING:
    from . import (
        baselines,
        callbacks,
        data,
        experiments,
        explain,
        functional,
        plotting,
        pytorch,
        sklearn,
        testing,
    )
    from .auto import load_pretrained
    from .callbacks import Callback
    from .model import Model
    from .results.history import History
    from .results.metrics import Metrics
    from .results.predictions import Predictions
    from .results.summary import Summary
    from .seeds import fit_seeds
    from .training.estimator import Estimator
else:
    _MODULE_OF = {
        "Callback": "callbacks",
        "Estimator": "training.estimator",
        "History": "results.history",
        "Metrics": "results.metrics",
        "Model": "model",
        "Predictions": "results.predictions",
        "Summary": "results.summary",
        "fit_seeds": "seeds",
        "load_pretrained": "auto",
    }

    def __getattr__(name: str) -> object:
        """Imports on first use: the names above, and any module of the package."""
        if name in _MODULE_OF:
            value = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        elif not name.startswith("__") and find_spec(f".{name}", __name__):
            value = import_module(f".{name}", __name__)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """All public names; ``testing`` only with pytest installed, as tools that list names may import each."""
    return ["__version__", *(name for name in __all__ if name != "testing" or find_spec("pytest"))]
