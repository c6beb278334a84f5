"""One model trained with several seeds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .results.predictions import Predictions
from .results.seeds import SeedMetrics
from .training.estimator import Estimator
from .training.loaders import Loader
from .training.scoring import Missing


@dataclass(frozen=True, repr=False, kw_only=True)
class Seeds(SeedMetrics):
    """Models that differ in their seed alone, and their measures; prints as :class:`SeedMetrics` does.

    Attributes:
        models: The fitted models by seed.
    """

    models: dict[int, Estimator]

    def predict(self, loader: Loader, *, missing: Missing = "raise") -> Predictions:
        """The mean of the models' scores, an ensemble; otherwise as :meth:`mmiln.Model.predict`."""
        return Predictions.mean_of([m.predict(loader, missing=missing) for m in self.models.values()])


def fit_seeds(
    model: Estimator,
    seeds: Iterable[int],
    train: Loader,
    valid: Loader = None,
    test: Loader = None,
    **fit: Any,
) -> Seeds:
    """Trains a new model with the arguments of ``model`` for each seed, and measures them on valid and test.

    Args:
        model: A :class:`mmiln.Model` or a baseline. It is neither trained nor changed, and weights that it
            has are not used.
        seeds: Different whole numbers.
        train: As for :meth:`mmiln.Model.fit`.
        valid: As for :meth:`mmiln.Model.fit`.
        test: A part to measure beside ``valid``; read once, after training.
        **fit: Further arguments of :meth:`mmiln.Model.fit`. ``checkpoint_dir`` gets a folder for each seed.

    Returns:
        The fitted models and, by part, the measures of each seed, their mean and deviation, and those of the
        mean score.

    Raises:
        ConfigError: No seed or the same one twice, or neither ``valid`` nor ``test``.

    >>> import mmiln
    >>> data = mmiln.data.synthetic(n_train=24, n_valid=8, n_test=8)
    >>> model = mmiln.Model("mosi", num_layers=1)
    >>> seeds = mmiln.fit_seeds(model, [1, 2], data.train, data.valid, data.test, epochs=1, progress=False)
    >>> seeds.to_pandas().loc["test"].columns.tolist()
    [1, 2, 'mean', 'std', 'ensemble']
    """
    wanted = list(seeds) if isinstance(seeds, Iterable) else [seeds, seeds]
    if not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError(f"seeds must be different numbers such as [1111, 1112, 1113], got {seeds!r}")
    parts = {name: part for name, part in (("valid", valid), ("test", test)) if part is not None}
    if not parts:
        raise ConfigError("there is nothing to measure the seeds on: give valid, test or both")
    folder = fit.pop("checkpoint_dir", None)
    models: dict[int, Estimator] = {}
    for seed in wanted:
        models[seed] = type(model)(**(model.get_params() | {"seed": seed}))
        own = None if folder is None else Path(folder) / f"seed-{seed}"
        models[seed].fit(train, valid, checkpoint_dir=own, **fit)
    predictions = {
        name: {seed: one.predict(part) for seed, one in models.items()} for name, part in parts.items()
    }
    return Seeds.of(predictions, ensemble=True, models=models)
