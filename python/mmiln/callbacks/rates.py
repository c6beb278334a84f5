"""A schedule of learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable

from ..errors import ConfigError
from ..training.learner import Learner
from .callback import Callback


class LearningRate(Callback):
    """Multiplies all learning rates by a factor of the epoch, as torch's ``LambdaLR`` does.

    Epochs count from 1, as everywhere here; ``LambdaLR`` counts from 0. The factor multiplies the rates that
    the run began with (``lr_text``, ``lr_audio``, ``lr_vision``, ``lr_other``; a baseline's own), not those
    of the epoch before, so a resumed run goes on to the same bits. Weight decays stay. The history has the
    rates of each epoch; after ``fit`` the model has those of the beginning again.

    Args:
        function: Gives the factor, 0 or more, of an epoch.

    Raises:
        ConfigError: ``function`` can't be called; or, in training, gives no factor.

    >>> import mmiln
    >>> data = mmiln.data.synthetic(16, 8, 8)
    >>> model = mmiln.Model("mosi", num_layers=1)
    >>> halving = mmiln.callbacks.LearningRate(lambda epoch: 0.5 ** (epoch - 1))
    >>> model.fit(data.train, epochs=3, callbacks=[halving], progress=False)["lr_other"]
    [0.001, 0.0005, 0.00025]
    """

    def __init__(self, function: Callable[[int], float]) -> None:
        if not callable(function):
            raise ConfigError(
                f"LearningRate needs a function of the epoch, such as lambda epoch: 0.9 ** (epoch - 1); "
                f"got {function!r}"
            )
        self.function = function

    def on_epoch_begin(self, model: Learner, epoch: int) -> None:
        """Sets the rates of the epoch."""
        factor = self.function(epoch)
        try:
            usable = math.isfinite(factor) and factor >= 0
        except TypeError:
            usable = False
        if not usable:
            raise ConfigError(
                "the function of LearningRate must give a factor, a finite number of 0 or more; "
                f"got {factor!r} for epoch {epoch}"
            )
        self._scale(model, float(factor))

    def on_train_end(self, model: Learner) -> None:
        """Restores the rates that the run began with."""
        self._scale(model, 1.0)

    def on_exception(self, model: Learner, error: BaseException) -> None:
        """Restores the rates that the run began with."""
        self._scale(model, 1.0)

    def _scale(self, model: Learner, factor: float) -> None:
        initial = {name: rate for name, rate in self.plan.rates.items() if name.startswith("lr")}
        model.set_params(**{name: factor * rate for name, rate in initial.items()})
