"""A model as training sees it: its config, widths, weights, trainer and copies."""

from __future__ import annotations

import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .. import hub
from .._core import Batch
from ..config import Config, is_rate
from ..data.names import MODALITIES
from ..errors import ConfigError, StateError, StateWarning
from ..labels import MOSI, LabelRange
from ..pages import html
from ..pretrained import Trained
from ..results.calibration import Calibration
from ..results.history import History
from ..results.summary import Summary
from ..text_encoder import TextEncoder, find_text_encoder
from . import batches
from .device import check_device, device_name

_DEVICE = 'give device="cuda" to the constructor or to from_pretrained, or use the module {module}'
_MODE = "fit() trains with dropout and predict() scores without, by themselves; the module {module} has modes"
#: By the names of what a torch module has and a model has not, what to do in place.
HABITS = {
    **dict.fromkeys(("parameters", "named_parameters", "modules", "zero_grad"), "{module} is a torch module"),
    **dict.fromkeys(("to", "cuda", "cpu"), _DEVICE),
    **dict.fromkeys(("train", "eval"), _MODE),
    **dict.fromkeys(("half", "float", "double", "bfloat16"), "give dtype= or precision= to the constructor"),
}


class Trainer(Protocol):
    """What trains: the Rust core, or a PyTorch network with its optimiser."""

    def keeps_pseudo_labels(self) -> bool:
        """Whether a run keeps labels by dataset index, and so must know the size of the dataset."""

    def begin_training(self, samples: int | None, train: str) -> None:
        """Begins a run with the settings ``train`` (JSON) on ``samples`` utterances."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch, counted from 1."""

    def train_step(self, batch: Any) -> Tensor:
        """Trains on one micro-batch; its losses. Raises NonFiniteError if the step was not applied."""

    def undone_steps(self) -> int:
        """How many of the last steps turned out not to be finite and were not applied."""

    def end_epoch(self) -> None:
        """Called after each epoch."""

    def keep_best(self) -> None:
        """Remembers the weights."""

    def restore_best(self) -> None:
        """Restores the weights that :meth:`keep_best` remembered, if any."""

    def training_state(self) -> tuple[dict[str, Tensor], str]:
        """All that the run depends on: tensors by name, counters as JSON."""

    def load_training_state(self, state: dict[str, Tensor], counters: str) -> None:
        """Restores the state in a run that has just begun."""

    def pseudo_labels(self) -> dict[str, Tensor] | None:
        """The last run's pseudo-labels by modality, (N,), NaN for unseen utterances; ``None`` without any."""

    def scores(self, batch: Any) -> Tensor:
        """Scores (B,), without dropout."""

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of every weight by name."""


class Learner(ABC):
    """A model that can be trained, as the loop and callbacks see it; :class:`mmiln.Estimator` adds the loop.

    Attributes:
        history_: What the last ``fit`` measured.
        calibration_: What :meth:`mmiln.Model.calibrate` measured, or ``None``.
        encoder: The text encoder, or ``None``.
    """

    #: Names of the losses of a step, in order; the last is what is minimised.
    LOSSES: ClassVar[tuple[str, ...]]
    #: Whether several processes can train it together.
    trains_in_parallel: ClassVar[bool] = False

    #: Arguments of the constructor that are no fields of the config.
    ARGUMENTS: ClassVar[tuple[str, ...]]

    history_: History
    precision: str
    trained: Trained | None = None  # how it got its weights, where known; what the model card says
    _module: ClassVar[str] = "model.to_torch()"  # gives the same as a torch module

    def __init__(
        self,
        preset: str,
        text_encoder: str | Path | None,
        widths: tuple[int | None, int | None, int | None],
        device: str | torch.device,
        dtype: str,
        fields: dict[str, Any],
        label_range: tuple[float, float] | None = None,
    ) -> None:
        # The same objects where they are fine, as scikit-learn's clone() demands.
        self.preset = preset.lower() if isinstance(preset, str) and not preset.islower() else preset
        self.text_encoder = text_encoder
        self.text_dim, self.audio_dim, self.vision_dim = widths
        self.device = device_name(device)
        self.dtype = dtype
        self.fields = fields
        self.label_range = None if label_range is None else LabelRange.checked(label_range)
        self._followed: LabelRange | None = None  # the range of the data that it was trained on
        self.encoder: TextEncoder | None = None if text_encoder is None else find_text_encoder(text_encoder)
        self._core: Trainer | None = None
        self._random = True  # whether its weights are those that it was built with, and nobody was told so
        self.calibration_: Calibration | None = None
        self._final_widths: dict[str, int] = {}
        self._make_locks()
        self._config = self._checked()

    if not TYPE_CHECKING:  # a type checker shall refuse what is not there

        def __getattr__(self, name: str) -> NoReturn:
            """Tells what to do in place of what only a torch module has."""
            said = HABITS.get(name, "").format(module=self._module)
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}{said and ': '}{said}",
                name=name,
                obj=self,
            )

        def __call__(self, *_: object, **__: object) -> NoReturn:
            """Tells what to call in place of the model."""
            raise TypeError(
                f"a {type(self).__name__} can't be called: predict(batch) gives scores, forward(batch) also "
                f"what is inside; {self._module} is a torch module"
            )

    def _make_locks(self) -> None:
        """This object's locks: one for training, one for building its weights."""
        self._training = threading.Lock()
        self._building = threading.Lock()

    def _checked(self) -> Config:
        """The config of the arguments, with those widths that are known.

        Raises:
            ConfigError: An argument is out of range.
            DeviceError: The device is not available.
        """
        if self.dtype not in ("float32", "float64"):
            raise ConfigError(f'dtype must be "float32" or "float64", got {self.dtype!r}')
        check_device(self.device)
        config = self._resolved(self._widths())
        freeze = config.to_dict()["freeze_text"]
        if self.encoder is not None and type(freeze) is int and freeze > self.encoder.layers:
            raise ConfigError(
                f"freeze_text must be at most the text encoder's {self.encoder.layers} layers, got {freeze}"
            )
        return config

    @property
    def label_range_(self) -> LabelRange:
        """The lowest and the highest label and score: as given, else as in the training data."""
        return self.label_range or self._followed or self._usual_range()

    def _usual_range(self) -> LabelRange:
        """The range while neither arguments nor data have said another."""
        return MOSI

    def follow(self, data: LabelRange | None) -> None:
        """Takes over the range of the data's labels, where it is known and the model has none yet.

        Raises:
            ConfigError: The model has another range.
        """
        with self._building:
            known = self.label_range or self._followed
            if data is None or data == known:
                return
            if known is not None:
                raise ConfigError(
                    f"this model's labels lie in {known}, those of the data in {data}: load the data with "
                    f"labels=({known.low:g}, {known.high:g}) if that is their range, or train a model on them"
                )
            self._followed = data
            config = self._resolved(self._final_widths or self._widths())
            if self._core is not None and config != self._config:
                self._core = self._made(config, self._final_widths, self.state_dict())
            self._config = config

    @abstractmethod
    def _resolved(self, widths: dict[str, int]) -> Config:
        """The config of the arguments and of widths by modality."""

    @property
    def config(self) -> Config:
        """Every field of model and training, resolved; widths that are not known yet are the preset's."""
        return Config(self._config.model.copy(), self._config.train.copy())

    @property
    def rates(self) -> dict[str, float]:
        """Learning rates and weight decays by field, as they are now."""
        return {name: value for name, value in self._config.to_dict().items() if is_rate(name)}

    @property
    def human_labels(self) -> bool:
        """Whether unimodal heads are trained on labels that people gave, in place of pseudo-labels."""
        return bool(self._config.train.get("unimodal_labels") == "human")

    @property
    @abstractmethod
    def kind(self) -> str:
        """The model's name in tables: a variant of MMILN such as ``full``, or the network of a baseline."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments as they were given."""
        return {name: getattr(self, name) for name in self.ARGUMENTS} | self.fields

    @abstractmethod
    def set_params(self, **params: Any) -> Self:
        """Changes arguments; once there are weights, only those that weights do not depend on; during a run,
        only learning rates and weight decays.
        """

    def _check_change(self, params: Mapping[str, Any]) -> None:
        """Refuses to change, while a run is under way, anything but its rates and decays.

        Raises:
            StateError: Names what can't change.
        """
        before = self.get_params()
        fixed = [n for n, v in params.items() if not (is_rate(n) and self.built) and before.get(n) != v]
        if self._training.locked() and fixed:
            raise StateError(
                f"this model is being trained, so {', '.join(fixed)} can't change: until fit() ends, only "
                f"learning rates and weight decays can ({', '.join(self.rates)})"
            )

    def text_encoder_fingerprint(self) -> str | None:
        """SHA-256 (hex) of the file of weights that the text encoder began with; ``None`` without one."""
        return None if self.encoder is None else self.encoder.fingerprint()

    @abstractmethod
    def summary(self) -> Summary:
        """How many parameters each part has."""

    @abstractmethod
    def save_pretrained(self, directory: str | Path) -> None:
        """Writes the model to a directory."""

    @classmethod
    @abstractmethod
    def from_pretrained(
        cls, directory: str | Path, *, device: str | torch.device = "cpu", revision: str | None = None
    ) -> Self:
        """A model as :meth:`save_pretrained` left it."""

    def push_to_hub(self, name: str, *, private: bool = False, message: str = "A model of mmiln") -> str:
        """Puts what :meth:`save_pretrained` writes into a repository on the Hugging Face hub.

        Args:
            name: Such as ``"user/model"``; made if it is not there.
            private: Whether a repository that is made is private.
            message: Of the commit.

        Returns:
            Its address.

        Raises:
            ConfigError: It is no name of a repository.
            StateError: The model has no weights yet, or the hub does not take it.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.upload(Path(folder), name, private=private, message=message)

    def _repr_html_(self) -> str:
        """The constructor's call, what was trained, and the parameters of each part."""
        shown = html.code(self)
        if hasattr(self, "history_"):
            chosen = self.history_.best_epoch or "the last"
            shown += html.paragraph(f"Epochs trained: {self.history_.epochs}; weights of epoch: {chosen}")
        if not self.built:
            return shown + html.paragraph("No weights yet: the widths are read off the first batch.")
        return shown + self.summary()._repr_html_()

    def _tell_untrained(self) -> None:
        """Warns, once, where scores are those of random weights."""
        if self._random:
            self._random = False
            warnings.warn(
                "this model is not trained: its scores are those of random weights. Train it by fit(), or "
                "load weights by from_pretrained() or load_state_dict()",
                StateWarning,
                stacklevel=3,
            )

    def _weights_change(self) -> None:
        """Weights are trained or loaded: they are not random, and residuals of older ones are not theirs."""
        self._random, self.calibration_ = False, None

    # Copies: pickle, deepcopy, joblib

    def __getstate__(self) -> dict[str, Any]:
        """Arguments, weights and ``history_``, without the state of a run (pseudo-labels)."""
        # As arrays: torch would pass each tensor to another process by a file descriptor, which are few.
        weights = {n: t.cpu().numpy() for n, t in self.state_dict().items()} if self.built else None
        locks = ("_training", "_building")
        return {n: v for n, v in vars(self).items() if n not in locks} | {"_core": weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state["_core"]
        vars(self).update(state | {"_core": None})
        self._make_locks()
        if weights is not None:
            tensors = {name: batches.tensor(name, weight) for name, weight in weights.items()}
            self._build(self._final_widths, weights=tensors)

    # Weights: there are some once all widths are known

    @property
    def built(self) -> bool:
        """Whether the model has weights: it gets them once all widths are known."""
        return self._core is not None

    @property
    def core(self) -> Trainer:
        """What trains and scores.

        Raises:
            StateError: The widths are not known before the first batch.
        """
        if self._core is not None:
            return self._core
        widths = self._widths()
        if unknown := [f"{name}_dim" for name in MODALITIES if name not in widths]:
            missing = ", ".join(unknown)
            raise StateError(f"the model has no weights yet: give {missing}, or let it see a batch")
        return self._build(widths)

    def _widths(self) -> dict[str, int]:
        """The widths that are known, by modality, from the arguments or the text encoder."""
        widths = {name: value for name in MODALITIES if (value := getattr(self, f"{name}_dim")) is not None}
        return widths | ({} if self.encoder is None else {"text": self.encoder.width})

    def _widths_with(self, batch: object) -> dict[str, int]:
        """All widths, those that are not known yet read off a batch."""
        return batches.widths(batches.check_keys(batch)) | self._widths()

    def _packed(self, batch: object, device: str) -> Batch:
        """A batch without its padding; a model without weights gets its widths from it."""
        widths = self._final_widths or self._widths_with(batch)
        uses = [name for name in MODALITIES if widths[name]]
        packed = batches.pack(
            batch,
            encoder=self.encoder,
            uses=uses,
            device=device,
            dtype=self.dtype,
            label_range=self.label_range_,
            unimodal_labels=self.human_labels,
        )
        if self._core is None:
            self._build(widths)
        return packed

    def _build(self, widths: dict[str, int], *, weights: Mapping[str, Tensor] | None = None) -> Trainer:
        """Makes the core, once; a text encoder's weights come with ``weights`` or from its directory."""
        with self._building:
            if self._core is not None:  # another thread came first
                return self._core
            config = self._resolved(widths)
            core = self._made(config, widths, weights)
            self._config, self._final_widths, self._core = config, widths, core
            return core

    @abstractmethod
    def _made(self, config: Config, widths: dict[str, int], weights: Mapping[str, Tensor] | None) -> Trainer:
        """A new core."""

    @abstractmethod
    def pack(self, batch: object) -> Any:
        """A batch as the core reads it; its length is the number of utterances."""

    def packed_ahead(self, source: Iterable[Any]) -> Iterator[Any]:
        """Batches packed for training."""
        return map(self.pack, source)

    def new_step(self) -> Callable[[Any], Tensor]:
        """The step of a run: trains on one packed batch and returns its losses."""
        return self.core.train_step

    @abstractmethod
    def where_not_finite(self, batch: Mapping[str, Any]) -> str:
        """The utterances of a batch, and where its values stop being finite."""

    @property
    def pseudo_labels(self) -> dict[str, npt.NDArray[np.float32]]:
        """The pseudo-labels of the last run, by modality and dataset index ``(N,)``.

        NaN for utterances never seen.

        Raises:
            StateError: There are none: no run has made any.
        """
        labels = self.core.pseudo_labels() if self.built else None
        if labels is None:
            raise StateError(
                "there are no pseudo-labels: fit a model that makes them first, MMILN of text and another "
                "modality or the baseline self_mm"
            )
        return {name: self.label_range_.restored(v.float().cpu().numpy()) for name, v in labels.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of every weight by name, in PyTorch's layouts.

        Raises:
            StateError: The widths are not known before the first batch.
        """
        return self.core.state_dict()
