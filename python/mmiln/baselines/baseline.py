"""Baselines with the methods of :class:`mmiln.Model`: build, fit, evaluate, predict, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, cast

import pydantic
import torch
from torch import Tensor

from .. import pretrained
from ..config import Config, differing, is_rate, meant
from ..data.names import MODALITIES
from ..errors import BatchError, ConfigError, StateError
from ..files import read_safetensors
from ..labels import LabelRange
from ..plain import faults
from ..results.calibration import Calibration
from ..results.summary import Summary
from ..training import batches
from ..training.estimator import Estimator
from . import nonfinite
from .alignment import check_aligned, to_pieces
from .building import build
from .engine import Engine
from .inputs import Inputs
from .network import Network
from .registry import NETWORKS, find, name_of
from .saved import Saved
from .ulgm import ULGM

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Baseline(Estimator):
    """A model that others published, trained and measured by the same protocol as :class:`mmiln.Model`.

    Args:
        network: A name in :data:`mmiln.baselines.NETWORKS`, such as ``"mult"``, or a :class:`Network` of your
            own.
        preset: ``"mosi"`` or ``"mosei"``: hyper-parameters of its own publication.
        text_encoder: ``None`` to read text features; or a Hugging Face BERT or RoBERTa, by directory or hub
            name, that reads ``text_bert`` or ``raw_text`` and is fine-tuned. Needs the package
            ``transformers``.
        text_dim, audio_dim, vision_dim: Widths; 0 leaves a modality out. The default is that of the first
            batch.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:<n>"``, or a ``torch.device``.
        dtype: ``"float32"``, or ``"float64"`` to check numbers.
        label_range: The lowest and the highest label; the default is that of the data it is trained on.
        **fields: Any hyper-parameter of the network's ``Settings``.

    Raises:
        ConfigError: Unknown network, preset or field, wrong type or out of range.
        MissingFileError: The text encoder is not there.
        DeviceError: The device is not available.
    """

    ARGUMENTS = (
        "preset",
        "text_encoder",
        "text_dim",
        "audio_dim",
        "vision_dim",
        "device",
        "dtype",
        "label_range",
    )
    precision = "float32"
    _module = "model.core.network"

    def __init__(
        self,
        network: str | type[Network],
        preset: str = "mosi",
        *,
        text_encoder: str | Path | None = None,
        text_dim: int | None = None,
        audio_dim: int | None = None,
        vision_dim: int | None = None,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        label_range: tuple[float, float] | None = None,
        **fields: Any,
    ) -> None:
        self._kind = find(network)
        self.network = name_of(self._kind)
        widths = text_dim, audio_dim, vision_dim
        super().__init__(preset, text_encoder, widths, device, dtype, fields, label_range)

    # Parameters, as in scikit-learn

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments as they were given."""
        network = self.network if NETWORKS.get(self.network) is self._kind else self._kind
        return {"network": network} | super().get_params()

    def set_params(self, **params: Any) -> Self:
        """Changes arguments; once the model has weights, only learning rates and weight decays.

        During ``fit``, as from a callback, these hold from the optimiser's next step on: the history and
        checkpoints record them. The model keeps them afterwards.

        Raises:
            StateError: There are weights already, or a run is under way.
            ConfigError: Unknown field, wrong type or out of range.
        """
        self._check_change(params)
        if not self.built:
            vars(self).update(vars(type(self)(**(self.get_params() | params))))
            return self
        if fixed := [name for name in params if not is_rate(name)]:
            raise StateError(
                f"this model has weights already, which {', '.join(fixed)} can't change under: build "
                "another with Baseline(**(model.get_params() | {...}))"
            )
        fields = self.fields | params
        self.settings, self.fields = self._settings_of(fields), fields
        self._config = self._resolved(self._final_widths)
        self.core.set_rates(self.rates)
        return self

    @property
    def LOSSES(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the losses of a step."""
        return self._kind.LOSSES

    @property
    def kind(self) -> str:
        """The name of the network."""
        return self.network

    def _checked(self) -> Config:
        self.settings = self._settings_of(self.fields)
        return super()._checked()

    def _settings_of(self, fields: Mapping[str, Any]) -> Any:
        """The network's settings: defaults, replaced by the preset's, replaced by those given."""
        kind = self._kind
        if self.preset not in kind.PRESETS:
            raise ConfigError(
                f"{self.network} has the presets {', '.join(kind.PRESETS)}, got {self.preset!r}"
            )
        given = {name: value for name, value in fields.items() if value is not None}
        if unknown := [name for name in given if name not in kind.Settings.model_fields]:
            raise ConfigError(
                f"{self.network} has no field {unknown[0]!r}{meant(unknown[0], kind.Settings.model_fields)}"
            )
        try:
            return kind.Settings.model_validate(dict(kind.PRESETS[self.preset]) | given)
        except pydantic.ValidationError as error:
            raise ConfigError(f"{self.network}: {'; '.join(faults(error, 'settings'))}") from None

    def __repr__(self) -> str:
        given = {"text_encoder": self.text_encoder, **self.fields}
        shown = [f"{name}={value!r}" for name, value in given.items() if value is not None]
        return f"Baseline({', '.join([repr(self.network), repr(self.preset), *shown])})"

    def _resolved(self, widths: dict[str, int]) -> Config:
        """The config of the network with these widths, with its training settings."""
        settings = self.settings.model_dump()
        of_training = set(Network.Settings.model_fields)
        return Config(
            {"network": self.network}
            | {f"{name}_dim": width for name, width in widths.items()}
            | {name: value for name, value in settings.items() if name not in of_training},
            {name: value for name, value in settings.items() if name in of_training},
        )

    def summary(self) -> Summary:
        """How many parameters each part has.

        Raises:
            StateError: The widths are not known before the first batch.
        """
        parameters = dict(self.core.network.named_parameters())
        return Summary.of(parameters, [name for name, p in parameters.items() if not p.requires_grad])

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Sets every weight, or none.

        Raises:
            WeightsError: Lists what is missing, unexpected or misshapen.
            StateError: The widths are not known before the first batch.
        """
        self.core.load_state_dict(dict(state))
        self._weights_change()

    def forward(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """The score ``"M"`` (B,) and the network's other outputs by name, without dropout or gradients.

        Raises:
            BatchError: The batch can't be used.
        """
        x = self.pack(batch)
        with torch.no_grad():
            outputs: dict[str, Tensor] = self.core.network.eval()(x)
        return outputs

    # Files

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes ``config.json``, ``model.safetensors``, a model card and the tokenizer to a directory.

        Raises:
            StateError: The model has no weights yet.
        """
        weights, settings = self.state_dict(), self.settings.model_dump()
        preset = self._kind.Settings.model_validate(dict(self._kind.PRESETS[self.preset])).model_dump()
        changed = {n: v for n, (_, v) in differing(preset, settings).items() if n != "seed"}
        pretrained.save(
            Path(directory),
            config={
                "model_type": "mmiln-baseline",
                "network": self.network,
                "preset": self.preset,
                "dtype": self.dtype,
                "label_range": self.label_range_,
                "residuals": None if self.calibration_ is None else self.calibration_.residuals.tolist(),
                "widths": self._final_widths,
                "settings": settings,
            },
            weights=weights,
            card=pretrained.card(
                title=self._kind.__name__,
                about=f"The baseline `{self.network}` of mmiln",
                config=self.config,
                preset=self.preset,
                changed=changed,
                label_range=self.label_range_,
                weights=weights,
                encoder=self.encoder,
                trained=self.trained,
            ),
            encoder=self.encoder,
            trained=self.trained,
        )

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        device: str | torch.device = "cpu",
        network: type[Network] | None = None,
        revision: str | None = None,
    ) -> Self:
        """Loads what :meth:`save_pretrained` wrote, or a repository on the Hugging Face hub, by name.

        Args:
            directory: Or a name on the hub, such as ``"user/model"``.
            device: As for the constructor.
            network: The class, if it is one of your own.
            revision: A branch, tag or commit of the repository.

        Raises:
            MissingFileError: A file is not there, or the hub does not provide it.
            ConfigError: ``config.json`` is not that of a saved baseline.
            WeightsError: ``model.safetensors`` is damaged or does not fit.
        """
        directory = pretrained.find(directory, revision)
        saved = Saved.read(directory / "config.json")
        encoder = None if saved.text_encoder is None else directory
        given: dict[str, Any] = {"text_encoder": encoder, "device": device, "dtype": saved.dtype}
        widths = {f"{name}_dim": saved.widths.get(name, 0) for name in MODALITIES}
        model = cls(network or saved.network, saved.preset, **given, **(widths | saved.settings))
        model._followed = LabelRange.checked(saved.label_range)
        model._build(
            {name: saved.widths.get(name, 0) for name in MODALITIES},
            weights=read_safetensors(directory / "model.safetensors"),
        )
        model._weights_change()
        model.trained = saved.trained
        if saved.residuals is not None:
            model.calibration_ = Calibration.read(saved.residuals)
        return model

    # The network

    @property
    def core(self) -> Engine:
        """The network with its optimiser.

        Raises:
            StateError: The widths are not known before the first batch.
        """
        return cast(Engine, super().core)

    def where_not_finite(self, batch: Mapping[str, Any]) -> str:
        """A sentence that names the batch's utterances and the layer where values stop being finite."""
        return nonfinite.where_not_finite(self.core, self.pack(batch), batch)

    def pack(self, batch: object) -> Inputs:
        """A batch as the network reads it: padded, on the model's device.

        Raises:
            BatchError: The batch can't be used.
        """
        batch = batches.check_keys(batch)
        if self._kind.ALIGNED and self.encoder is not None:
            batch = to_pieces(batch, self.encoder)
        packed = self._packed(batch, "cpu")  # padded there, then moved
        parts = packed.parts()
        if self.encoder is not None and "tokens" in parts:
            self.encoder.check(parts["tokens"], parts["tokens_lengths"])
        x = Inputs.of(parts, self.device)
        for name, width in self._final_widths.items():
            sequence = getattr(x, name)
            if sequence is not None and sequence.frames.shape[2] != width:
                raise BatchError(f"{name} must have frames of width {width}, got {sequence.frames.shape[2]}")
        if self._kind.ALIGNED:
            what = "word" if self.encoder is None else "word piece, or a word of raw_text"
            check_aligned(x, self.network, what)
        return x

    def _widths_with(self, batch: object) -> dict[str, int]:
        widths = super()._widths_with(batch)
        given = [
            name for name in ("text_bert", "raw_text") if batches.check_keys(batch).get(name) is not None
        ]
        if self._kind.FEWEST and widths["text"] == 0 and self.text_dim is None and given:
            without = "" if "text" in self._kind.NEEDS else ", or text_dim=0 to leave text out"
            raise BatchError(
                f"the batch has no text features, which {self.network} reads without text_encoder: give one "
                f"to read {' or '.join(given)}{without}"
            )
        return widths

    def _made(self, config: Config, widths: dict[str, int], weights: Mapping[str, Tensor] | None) -> Engine:
        if missing := [name for name in self._kind.NEEDS if not widths.get(name)]:
            raise BatchError(f"{self.network} needs {' and '.join(missing)}, which these data have not")
        there = [name for name in MODALITIES if widths.get(name)]
        if len(there) < (fewest := self._kind.FEWEST):
            raise BatchError(
                f"{self.network} needs at least {fewest} of text, audio and vision, "
                f"got {' and '.join(there) or 'none'}"
            )
        dtype = DTYPES[self.dtype]
        network = build(self._kind, self.settings, widths, self.encoder, dtype, weights)
        return Engine(network, self.device, dtype)

    def new_step(self) -> Callable[[Any], Tensor]:
        """The step of a run: trains on one packed batch and returns its losses."""
        for part in self.core.network.modules():
            if isinstance(part, ULGM) and part.given_bound is None:
                part.bound = self.label_range_.bound
        return super().new_step()
