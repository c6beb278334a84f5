"""Saved models: a directory with ``config.json``, ``model.safetensors``, tokenizer and model card."""

from __future__ import annotations

import json
import os
import shutil
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from .errors import ConfigError, MissingFileError
from .files import ctrl_c_waits, read_json, write_safetensors, write_text
from .labels import LabelRange
from .text_encoder import TextEncoder

# The fields of config.json beside model_type, and their types.
FIELDS: dict[str, tuple[type, ...]] = {
    "preset": (str,),
    "dtype": (str,),
    "model": (dict,),
    "train": (dict,),
    "text_encoder": (dict, type(None)),
}

CARD = """---
library_name: mmiln
tags: [multimodal-sentiment-analysis, mmiln]
---
# MMILN, {variant}

A multimodal sentiment model (Xue et al., CCL 2023): {modalities} of a spoken utterance in, a score in
{label_range} out. {parameters:,} parameters, saved by mmiln {version}.

```python
import mmiln

model = mmiln.Model.from_pretrained("<this directory>")
predictions = model.predict(loader)
```

`model.safetensors` holds plain PyTorch layouts and names: `safetensors.torch.load_file` reads it.
It was built as `{model}`.

The model was made for research. Its scores say nothing reliable about a single person.
"""


def card(
    model: str,
    modalities: list[str],
    config: dict[str, Any],
    label_range: LabelRange,
    weights: dict[str, Tensor],
) -> str:
    """The model card of a model with this repr."""
    return CARD.format(
        model=model,
        variant=config["variant"],
        modalities=", ".join(modalities),
        label_range=label_range,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        version=version("mmiln"),
    )


def save(
    directory: Path,
    *,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    card: str,
    encoder: TextEncoder | None,
) -> None:
    """Writes all of a model's files to a temporary directory, then moves them into place."""
    config = {"model_type": "mmiln", "mmiln_version": version("mmiln"), **config}
    config["text_encoder"] = None if encoder is None else encoder.config
    staging = directory / f".{os.getpid()}.{threading.get_ident()}.saving"
    with ctrl_c_waits():
        staging.mkdir(parents=True)
        try:
            write_safetensors(staging / "model.safetensors", weights)
            for file in () if encoder is None else encoder.tokenizer.files():
                shutil.copyfile(file, staging / file.name)
            write_text(staging / "README.md", card)
            write_text(staging / "config.json", json.dumps(config, indent=2) + "\n")
            for file in staging.iterdir():
                file.replace(directory / file.name)
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def check_there(directory: Path) -> None:
    """Raises :class:`MissingFileError` where a file that a saved model must hold is not there."""
    for path in (directory, directory / "config.json", directory / "model.safetensors"):
        if not path.exists():
            raise MissingFileError(
                f"{path} is not there: a saved model is a directory with config.json and model.safetensors"
            )


def read_config(directory: Path) -> dict[str, Any]:
    """The ``config.json`` of a saved model.

    Raises:
        MissingFileError: The directory or a file that it must hold is not there.
        ConfigError: It is not that of an mmiln model.
    """
    check_there(directory)
    config = read_json(directory / "config.json")
    if not isinstance(config, dict) or config.get("model_type") != "mmiln":
        raise ConfigError(f"{directory / 'config.json'} is not that of a saved mmiln model")
    for name, kinds in FIELDS.items():
        if name not in config or not isinstance(config[name], kinds):
            raise ConfigError(
                f"{directory / 'config.json'} is not that of a saved mmiln model: "
                f"{name!r} is missing or of another kind"
            )
    for name in ("text_dim", "audio_dim", "vision_dim"):
        if type(config["model"].get(name)) is not int:
            raise ConfigError(f"{directory / 'config.json'}: {name!r} must be a whole number")
    return config
