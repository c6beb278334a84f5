"""Saved models of any kind."""

from __future__ import annotations

from pathlib import Path

import mmiln

from . import pretrained
from .files import read_json


def load_pretrained(directory: str | Path, *, device: str = "cpu") -> mmiln.Estimator:
    """A :class:`mmiln.Model` or a baseline, whichever was saved.

    Raises:
        MissingFileError: A file is not there.
        ConfigError: ``config.json`` is not that of a saved model.
        WeightsError: ``model.safetensors`` is damaged or does not fit.
    """
    directory = Path(directory)
    pretrained.check_there(directory)
    config = read_json(directory / "config.json")
    is_baseline = isinstance(config, dict) and config.get("model_type") == "mmiln-baseline"
    kind: type[mmiln.Estimator] = mmiln.baselines.Baseline if is_baseline else mmiln.Model
    return kind.from_pretrained(directory, device=device)
