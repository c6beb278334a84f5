"""Saved models of any kind."""

from __future__ import annotations

from pathlib import Path

import torch

from . import pretrained
from .files import read_json
from .model import Model
from .training.estimator import Estimator


def load_pretrained(
    directory: str | Path, *, device: str | torch.device = "cpu", revision: str | None = None
) -> Estimator:
    """A :class:`mmiln.Model` or a baseline, whichever was saved.

    Args:
        directory: What ``save_pretrained`` wrote; or a name on the Hugging Face hub: ``"user/model"``.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:<n>"``.
        revision: A branch, tag or commit of the repository on the hub.

    Raises:
        MissingFileError: A file is not there, or the hub does not provide it.
        ConfigError: ``config.json`` is not that of a saved model.
        WeightsError: ``model.safetensors`` is damaged or does not fit.
    """
    directory = pretrained.find(directory, revision)
    config = read_json(directory / "config.json")
    if isinstance(config, dict) and config.get("model_type") == "mmiln-baseline":
        from .baselines import Baseline

        return Baseline.from_pretrained(directory, device=device)
    return Model.from_pretrained(directory, device=device)
