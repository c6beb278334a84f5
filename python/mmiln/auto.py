"""Saved models of any kind."""

from __future__ import annotations

from pathlib import Path

import torch

from . import pretrained
from .files import read_json
from .model import Model
from .training.estimator import Estimator


def load_pretrained(directory: str | Path, *, device: str | torch.device = "cpu") -> Estimator:
    """A :class:`mmiln.Model` or a baseline, whichever was saved.

    Raises:
        MissingFileError: A file is not there.
        ConfigError: ``config.json`` is not that of a saved model.
        WeightsError: ``model.safetensors`` is damaged or does not fit.
    """
    directory = Path(directory)
    pretrained.check_there(directory)
    config = read_json(directory / "config.json")
    if isinstance(config, dict) and config.get("model_type") == "mmiln-baseline":
        from .baselines import Baseline

        return Baseline.from_pretrained(directory, device=device)
    return Model.from_pretrained(directory, device=device)
