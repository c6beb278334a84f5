"""Fields of a model and of its training, resolved from a preset and overrides."""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from . import _core
from .errors import ConfigError

MAX_WEIGHTS = 10**9  # without a text encoder's
# The fields and arguments that users mean by names of other tools, without "_" and in lower case.
_RATES = ("lr", "lr_other", "lr_text")
_DECAYS = ("decay", "decay_other", "decay_text")
_WIDTHS = ("d_model", "width", "hidden", "audio_hidden", "text_hidden")
_ENCODER = ("text_encoder=",)
_EPOCHS = ("fit(epochs=)",)
_MEANT = {
    "lr": _RATES, "learningrate": _RATES, "weightdecay": _DECAYS, "wd": _DECAYS, "decay": _DECAYS,
    "hiddensize": _WIDTHS, "hidden": _WIDTHS, "hiddendim": _WIDTHS, "dim": _WIDTHS, "width": _WIDTHS,
    "bert": _ENCODER, "encoder": _ENCODER, "bertmodel": _ENCODER, "textmodel": _ENCODER,
    "earlystop": ("patience",), "earlystopping": ("patience",), "randomstate": ("seed",),
    "epochs": _EPOCHS, "epoch": _EPOCHS, "nepochs": _EPOCHS, "numepochs": _EPOCHS, "maxepochs": _EPOCHS,
    "task": ("preset=",), "dataset": ("preset=",), "gpu": ("device=",),
    "labels": ("label_range=",),
}  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Every field of a model and of its training, in the two parts that the core reads."""

    model: dict[str, Any]
    train: dict[str, Any]

    @classmethod
    def resolve(cls, preset: str, overrides: dict[str, Any]) -> Config:
        """A preset with some fields replaced; ``None`` leaves a field as it is.

        Raises:
            ConfigError: Unknown preset or field, wrong type, value out of range.
        """
        if not isinstance(preset, str):
            raise ConfigError(f"preset must be a name, one of {', '.join(_core.PRESETS)}; got {preset!r}")
        if preset not in _core.PRESETS:
            raise ConfigError(f'unknown preset "{preset}": expected one of {", ".join(_core.PRESETS)}')
        model, train = (json.loads(part) for part in _core.preset_json(preset))
        for name, value in overrides.items():
            part = model if name in model else train if name in train else None
            if part is None:
                raise ConfigError(f"unknown field {name!r}{meant(name, [*model, *train])}")
            if value is not None:
                part[name] = _plain(name, value)
        config = cls(model, train)
        config.check()
        return config

    def check(self) -> None:
        """Raises :class:`ConfigError` unless the core accepts the fields."""
        _core.check_config(json.dumps(self.model), json.dumps(self.train))
        if (count := least_weights(self.model)) > MAX_WEIGHTS:
            raise ConfigError(
                f"a model of these sizes has {count:.0e} weights or more; the limit is {MAX_WEIGHTS:.0e}"
            )

    def to_dict(self) -> dict[str, Any]:
        """Every field by name."""
        return self.model | self.train


def meant(name: str, fields: Collection[str]) -> str:
    """The end of a sentence about an unknown field: the one or two fields that it most likely stands for.

    >>> meant("LearningRate", ["lr_text", "lr_other", "alpha"])
    "; did you mean 'lr_other' or 'lr_text'?"
    """
    plain = name.lower().replace("_", "").replace("-", "")
    bare = {field.replace("_", ""): field for field in fields}
    if plain in bare:
        found = [bare[plain]]
    else:
        known = [field for field in _MEANT.get(plain, ()) if field in fields or field.endswith(("=", ")"))]
        found = known[:2] or [bare[near] for near in difflib.get_close_matches(plain, bare, n=2)]
    if not found:
        return ": config.to_dict() of a model has all fields"
    return f"; did you mean {' or '.join(map(repr, found))}?"


def is_rate(field: str) -> bool:
    """Whether a field is a learning rate or a weight decay, which may change in the course of a run.

    >>> is_rate("lr_text"), is_rate("decay"), is_rate("d_model")
    (True, True, False)
    """
    return field.partition("_")[0] in ("lr", "decay")


def differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Both values, by name, of the fields that differ between two descriptions; ``None`` for a missing one.

    >>> differing({"lr": 0.1, "seed": 1}, {"lr": 0.2, "seed": 1})
    {'lr': (0.1, 0.2)}
    """
    both = {name: (was.get(name), now.get(name)) for name in sorted({*was, *now})}
    return {name: values for name, values in both.items() if values[0] != values[1]}


def _plain(name: str, value: Any) -> Any:
    """A value that JSON can hold: numpy's scalars become Python's."""
    value = value.item() if hasattr(value, "item") else value
    if (
        not isinstance(value, (bool, int, float, str))
        or value != value
        or value
        in (
            float("inf"),
            float("-inf"),
        )
    ):
        raise ConfigError(f"{name} must be a number, a truth value or a name, got {value!r}")
    return value


def least_weights(model: Mapping[str, Any]) -> int:
    """A lower bound of a model's number of weights; the number is at most three times the bound.

    >>> least_weights({
    ...     "text_dim": 7, "audio_dim": 5, "vision_dim": 0, "d_model": 4, "num_layers": 2, "text_kernel": 1,
    ...     "audio_kernel": 1, "audio_hidden": 3, "multimodal_features": 6, "audio_features": 3,
    ... })
    985
    """
    width = model["d_model"]
    branches = [name for name in ("audio", "vision") if model[f"{name}_dim"] > 0]
    count: int = 0
    if model["text_dim"] > 0:
        count += width * model["text_dim"] * model["text_kernel"] + _head(width, model["multimodal_features"])
    for name in branches:
        hidden = model[f"{name}_hidden"]
        count += 4 * hidden * (model[f"{name}_dim"] + hidden) + width * hidden * model[f"{name}_kernel"]
        count += _head(width, model[f"{name}_features"])
        # A layer's attention and feed-forward network, in the unimodal stream and in the text-led one.
        count += model["num_layers"] * 12 * width**2 * (2 if model["text_dim"] > 0 else 1)
    return count


def _head(width: int, features: int) -> int:
    return features * (width + features)
