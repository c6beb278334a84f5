"""Saved models: a directory with ``config.json``, ``model.safetensors``, tokenizer and model card."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import threading
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import pydantic
from torch import Tensor

from . import hub
from .config import Config
from .data.names import MODALITIES
from .data.standardizer import FILE as STANDARDIZER
from .errors import ConfigError, MissingFileError
from .files import ctrl_c_waits, read_json, write_safetensors, write_text
from .labels import LabelRange
from .plain import Plain, faults
from .results.history import History
from .results.measures import MEASURES
from .text_encoder import TextEncoder
from .tokenizer import FILES as TOKENIZER_FILES

# The fields of config.json beside model_type, and their types.
FIELDS: dict[str, tuple[type, ...]] = {
    "preset": (str,),
    "dtype": (str,),
    "model": (dict,),
    "train": (dict,),
    "text_encoder": (dict, type(None)),
}


class Trained(Plain):
    """How a model got its weights.

    Attributes:
        dataset: The name of the data set, and with ``fingerprint`` its contents, where known.
        sizes: Numbers of utterances of ``train`` and ``valid``, where known.
        epoch: The epoch, of ``epochs``, whose weights it has.
        measures: Those of the validation part after that epoch.
        versions: Of mmiln, torch and Python.
    """

    dataset: str | None = None
    fingerprint: str | None = None
    sizes: dict[str, int]
    epoch: int
    epochs: int
    measures: dict[str, float | None]
    versions: dict[str, str]

    @classmethod
    def by(cls, history: History, sizes: dict[str, int]) -> Self:
        """By a run of this history."""
        epoch = history.best_epoch or history.epochs
        measures = {
            name.removeprefix("valid_"): v[epoch - 1]
            for name, v in history.items()
            if name.startswith("valid_")
        }
        return cls(
            sizes=sizes,
            epoch=epoch,
            epochs=history.epochs,
            measures={name: value if math.isfinite(value) else None for name, value in measures.items()},
            versions={name: version(name) for name in ("mmiln", "torch")}
            | {"Python": platform.python_version()},
        )

    @classmethod
    def of(cls, saved: Mapping[str, Any], path: Path) -> Self | None:
        """What ``config.json`` says of it.

        Raises:
            ConfigError: It does not have this form.
        """
        if saved.get("trained") is None:
            return None
        try:
            return cls.model_validate(saved["trained"])
        except pydantic.ValidationError as error:
            raise ConfigError(f"{path}: {'; '.join(faults(error, 'trained'))}") from None


CARD = """---
library_name: mmiln
tags: [multimodal-sentiment-analysis, mmiln]
metrics: [mae, pearsonr, accuracy, f1]
---
# {title}

{about}: {modalities} of a spoken utterance in, a score in {label_range} out. {parameters:,} parameters.

```python
import mmiln

model = mmiln.load_pretrained("<this directory, or its name on the hub>")
predictions = model.predict(loader)
```

`model.safetensors` holds plain PyTorch layouts and names: `safetensors.torch.load_file` reads it.

## Training

{training}

## Limits

The model was made for research. Its scores say nothing reliable about a single person.
"""


def card(
    *,
    title: str,
    about: str,
    config: Config,
    preset: str,
    changed: Mapping[str, Any],
    label_range: LabelRange,
    weights: Mapping[str, Tensor],
    encoder: TextEncoder | None,
    trained: Trained | None,
) -> str:
    """The model card of a model whose fields ``changed`` from its preset's and that was ``trained`` so."""
    told = ["It was not trained, or where is not known."]
    if trained is not None:
        sizes = ", ".join(f"{part} part {size:,} utterances" for part, size in trained.sizes.items())
        name = f" on {trained.dataset}" if trained.dataset else ""
        told = [f"Trained{name}{sizes and f': {sizes}'}."]
        if trained.fingerprint:
            told.append(f"SHA-256 of the data set: `{trained.fingerprint}`.")
        rows = [f"| {_label(name)} | {_number(name, value)} |" for name, value in trained.measures.items()]
        chosen = f"| validation part | epoch {trained.epoch} of {trained.epochs} |"
        told += ["\n".join([chosen, "|---|---|", *rows])] if rows else []
        told.append(f"Versions: {', '.join(f'{name} {v}' for name, v in trained.versions.items())}.")
    fields = ", ".join(f"`{name}={value!r}`" for name, value in changed.items())
    told.append(
        f"Settings: preset `{preset}`, seed {config.train['seed']}{fields and f'; changed: {fields}'}."
    )
    if encoder is not None:
        hub_name = "" if encoder.name == str(encoder.directory) else f" `{encoder.name}`"
        kind, width = encoder.config.get("model_type", "bert"), encoder.width
        freeze = config.model.get("freeze_text", False)
        part = "not trained" if freeze is True else "fine-tuned with it" + (" in part" if freeze else "")
        told.append(f"Text encoder:{hub_name} {kind}, {encoder.layers} layers, {width} wide, {part}.")
    used = [name for name in MODALITIES if config.model.get(f"{name}_dim")]
    return CARD.format(
        title=title,
        about=about,
        modalities=", ".join(used),
        label_range=label_range,
        parameters=sum(tensor.numel() for tensor in weights.values()),
        training="\n\n".join(told),
    )


def _label(name: str) -> str:
    return MEASURES[name].label if name in MEASURES else name


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    return MEASURES[name].text(value) if name in MEASURES else f"{value:.4f}"


def save(
    directory: Path,
    *,
    config: dict[str, Any],
    weights: dict[str, Tensor],
    card: str,
    encoder: TextEncoder | None,
    trained: Trained | None,
) -> None:
    """Writes all of a model's files to a temporary directory, then moves them into place."""
    config = {"model_type": "mmiln", "mmiln_version": version("mmiln"), **config}
    config["text_encoder"] = None if encoder is None else encoder.config
    if trained is not None:
        config["trained"] = trained.model_dump()
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


def find(name: str | Path, revision: str | None = None) -> Path:
    """The folder of a saved model: the one of this name, or a copy of the hub's repository ``user/model``.

    Raises:
        MissingFileError: It is not a folder that holds a saved model, and the hub has none of this name.
        ConfigError: A folder has no ``revision``.
    """
    folder = Path(name)
    if not folder.exists() and "/" in str(name) and hub.NAME.fullmatch(str(name)):
        files = ["config.json", "model.safetensors", "README.md", STANDARDIZER, *TOKENIZER_FILES]
        folder = hub.download(str(name), files, "the model", revision)
    elif revision is not None:
        raise ConfigError(f"revision={revision!r} is for names on the hub such as 'user/model', got {name}")
    for path in (folder, folder / "config.json", folder / "model.safetensors"):
        if not path.exists():
            raise MissingFileError(
                f"{path} is not there: a saved model is a directory with config.json and model.safetensors"
            )
    return folder


def read_config(directory: Path) -> dict[str, Any]:
    """The ``config.json`` of a saved model.

    Raises:
        ConfigError: It is not that of an mmiln model.
    """
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
