"""The public face of MMILN: build, fit, evaluate, predict, look inside, save."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from . import pretrained
from ._core import Batch, Core
from .config import Config, differing, least_weights
from .data import Dataset, Split
from .data.names import MODALITIES
from .errors import BatchError, ConfigError, StateError, WeightsError
from .explain import Explanation, explain
from .files import read_safetensors
from .labels import MODEL_BOUND, LabelRange
from .pytorch import MMILN
from .results.calibration import Calibration
from .results.summary import Summary
from .text_encoder import least_encoder_weights
from .training import batches, nonfinite
from .training.estimator import Estimator
from .training.graphs import Steps, cuda_capture, packed_ahead
from .training.ranks import own_card

WIDTHS = tuple(f"{name}_dim" for name in MODALITIES)


class Model(Estimator):
    """MMILN (Xue et al., CCL 2023): text, audio and vision of an utterance in, a score out.

    Args:
        preset: ``"mosi"`` or ``"mosei"`` (Self-MM's repository), ``"mosi-mmsa"``, ``"mosei-mmsa"`` or
            ``"simsv2"`` (MMSA's set), ``"sims"`` (both, for CH-SIMS).
        text_encoder: ``None`` to read text features; or a Hugging Face BERT or RoBERTa, by directory or hub
            name, to read ``text_bert`` or ``raw_text`` and be fine-tuned, all of it or, with ``freeze_text``,
            in part.
        text_dim: Width of text features; 0 for the control of one other modality alone. The default is
            the encoder's width, or that of the first batch.
        audio_dim: Width of audio frames; 0 leaves audio out. The default is that of the first batch.
        vision_dim: The same for vision.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:<n>"``, a card of compute capability 8.0 or later; or a
            ``torch.device``.
        dtype: ``"float32"``, or ``"float64"`` to check the arithmetic.
        precision: ``"float32"``; or ``"bf16"``, in which a text encoder on a card multiplies matrices.
            Weights, moments and all else stay float32.
        label_range: The lowest and the highest label, such as ``(1, 5)``; scores are in the same unit. The
            default is that of the data it is trained on, ``[-3, 3]`` for CMU-MOSI and CMU-MOSEI, ``[-1, 1]``
            for CH-SIMS.
        seed: Of initial weights, dropout and the order of a shuffled split; 1111 by default.
        **fields: Any other field of :attr:`config`, such as ``num_layers``, ``variant``,
            ``alpha``, ``lr_text``, ``patience``. ``freeze_text``: what is not trained of the text
            encoder: ``"embeddings"``, the embeddings and this number of first layers, or ``True`` for all;
            frozen parts run without dropout, once for each sentence (up to 2 GiB of features are kept).
            ``freeze_audio``, ``freeze_vision``: whether that modality's LSTM and convolution are not trained.
            ``order``: ``"faithful"``, or ``"window"`` or ``"buckets"`` for batches of utterances of about
            the same length (:class:`mmiln.data.order.LengthAware`). ``gather_losses``: with several
            processes, whether similarity and difference losses read the batches of all of them as one.
            ``unimodal_labels``: ``"generated"`` trains the heads of audio and vision on pseudo-labels;
            ``"human"`` on the labels that the data have for each (``A`` and ``V`` in a batch's labels).

    Attributes:
        history_: What the last :meth:`fit` measured.

    Raises:
        ConfigError: Unknown field, wrong type or out of range.
        MissingFileError: The text encoder is not there.
        DeviceError: The device is not available.

    >>> import mmiln
    >>> model = mmiln.Model("mosi", text_dim=8, audio_dim=5, vision_dim=0, num_layers=2)
    >>> model
    Model('mosi', text_dim=8, vision_dim=0, num_layers=2)
    """

    ARGUMENTS = ("preset", "text_encoder", *WIDTHS, "device", "dtype", "precision", "label_range", "seed")
    LOSSES = ("task", "sim", "diff", "total")
    trains_in_parallel = True

    def __init__(
        self,
        preset: str = "mosi",
        *,
        text_encoder: str | Path | None = None,
        text_dim: int | None = None,
        audio_dim: int | None = None,
        vision_dim: int | None = None,
        device: str | torch.device = "cpu",
        dtype: str = "float32",
        precision: str = "float32",
        label_range: tuple[float, float] | None = None,
        seed: int | None = None,
        **fields: Any,
    ) -> None:
        self.precision = precision
        self.seed = seed
        widths = text_dim, audio_dim, vision_dim
        super().__init__(preset, text_encoder, widths, own_card(device), dtype, fields, label_range)

    # Parameters, as scikit-learn has them

    def set_params(self, **params: Any) -> Self:
        """Changes arguments; once the model has weights, only settings of training can change.

        During ``fit``, as from a callback, learning rates and weight decays can change, and hold from the
        optimiser's next step on: the history and checkpoints record them. The model keeps them afterwards.

        Raises:
            StateError: The change would need other weights, or a run is under way.
            ConfigError: Unknown field, wrong type or out of range.
        """
        before = self.get_params()
        self._check_change(params)
        if not self.built:
            vars(self).update(vars(type(self)(**(before | params))))  # checks all arguments
            return self
        config = self.config
        fields = {n: value for n, value in params.items() if n not in self.ARGUMENTS or n == "seed"}
        Config.resolve(self.preset, config.to_dict() | fields)
        fixed = [n for n, v in params.items() if n not in config.train and before.get(n) != v]
        if fixed:
            raise StateError(
                f"this model has weights already, so {', '.join(fixed)} can't change: build "
                "another with mmiln.Model(**(model.get_params() | {...}))"
            )
        self.seed = fields.pop("seed", self.seed)
        self.fields = self.fields | fields
        self._config = self._resolved(self._final_widths)
        if self._training.locked():
            self.core.set_rates(json.dumps(self._config.train))
        return self

    def _checked(self) -> Config:
        if self.precision not in ("float32", "bf16"):
            raise ConfigError(f'precision must be "float32" or "bf16", got {self.precision!r}')
        config = super()._checked()
        if self.precision == "bf16" and (self.device == "cpu" or self.dtype != "float32"):
            raise ConfigError(
                'precision="bf16" needs device="cuda" and dtype="float32", '
                f"got {self.device!r} and {self.dtype!r}"
            )
        if self.encoder is not None and self.text_dim not in (None, self.encoder.width):
            raise ConfigError(
                f"text_dim must be the text encoder's width, {self.encoder.width}, got {self.text_dim}"
            )
        freeze = config.model["freeze_text"]
        if freeze is not False and self.encoder is None:
            raise ConfigError(f"freeze_text={freeze!r} needs a text encoder to freeze: give text_encoder=")
        return config

    def _resolved(self, widths: dict[str, int]) -> Config:
        if widths.get("text") == 0 and widths.get("audio") != 0 and widths.get("vision") != 0:
            raise ConfigError(_needs_text())
        named: dict[str, Any] = {f"{name}_dim": width for name, width in widths.items()}
        if (known := self.label_range or self._followed) is not None:
            named["label_bound"] = self.fields.get("label_bound", known.bound)
        return Config.resolve(self.preset, {**self.fields, **named, "seed": self.seed})

    def _usual_range(self) -> LabelRange:
        bound = min(self._config.model["label_bound"], MODEL_BOUND)
        return LabelRange(-bound, bound)

    @property
    def kind(self) -> str:
        """The variant, such as ``full`` or ``no_mrm``."""
        variant: str = self._config.model["variant"]
        return variant

    def __repr__(self) -> str:
        default = Config.resolve(self.preset, {}).to_dict() | {
            "text_encoder": None, "device": "cpu", "dtype": "float32", "precision": "float32",
            "label_range": None,
        }  # fmt: skip
        given = {name: value for name, value in self.get_params().items() if name != "preset"}
        differing = [
            f"{name}={value!r}"
            for name, value in given.items()
            if value is not None and value != default.get(name)
        ]
        return f"Model({', '.join([repr(self.preset), *differing])})"

    def summary(self) -> Summary:
        """How many parameters each part has.

        Raises:
            StateError: The widths are not known before the first batch.
        """
        return Summary.of(self.state_dict(), self.core.frozen())

    # Inner values

    def forward(
        self, batch: Mapping[str, Any], intermediates: bool = False
    ) -> dict[str, Tensor | list[Tensor]]:
        """Scores ``y_*`` ``(B,)`` and features ``F_*`` by name, without dropout or gradients.

        With ``intermediates`` also ``control.<stream>`` of the last layer ``(B, d)`` and
        ``fusion.<i>.<stream>.{output, attention, retain, compound, source}``, those per frame as one
        ``(T, d)`` tensor an utterance, those per utterance as ``(B, d)``.

        Raises:
            BatchError: The batch can't be used.
        """
        packed = self.pack(batch)
        return self.core.forward(packed, intermediates)

    def attention_maps(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        """Where the text looks in audio and vision: probabilities of the cross attention (21), no dropout.

        Returns:
            By ``fusion.<i>.text_audio`` and ``fusion.<i>.text_vision``, one ``(h, T_t, T_n)`` tensor an
            utterance: for each head and text position a distribution over that modality's true frames. Empty
            for a model without SAG-Transformers (``no_gate_fusion``, a single modality).

        Raises:
            BatchError: The batch can't be used.
        """
        packed = self.pack(batch)
        return self.core.attention_maps(packed)

    def explain(self, dataset: Split | Dataset, id: str, *, train: Split | None = None) -> Explanation:
        """Why an utterance has its score: words, voice and face, gates, attention, similar utterances.

        Weights of words and contributions of modalities are differences of predicted scores: see
        :class:`mmiln.explain.Explanation`, which prints as text and shows as HTML in a notebook.

        Args:
            dataset: Where the utterance is; all parts of a :class:`mmiln.data.Dataset` are searched.
            id: Its name.
            train: Utterances that it is compared with, and whose modalities stand in for its own. The default
                is the dataset's train part; for a split, its other utterances. All of them are scored: a
                smaller split takes less time.

        Raises:
            ConfigError: No utterance, or more than one, has this id; or there is none to compare it with.
            DataError: There is no dataset or split, or no sentence for the text encoder.
            BatchError: The model does not fit the data.

        >>> import mmiln
        >>> data = mmiln.data.synthetic(8, 2, 2)
        >>> explanation = mmiln.Model("mosi", num_layers=1).explain(data, data.test.id[0])
        >>> [word.text for word in explanation.words] == data.test.raw_text[0].split()
        True
        """
        return explain(self, dataset, id, train)

    def losses(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """``task``, ``sim``, ``diff`` and ``total`` of a batch without dropout, scalars off the graph.

        Pseudo-labels are those of the last run for utterances whose ``index`` it has seen, else the labels.

        Raises:
            BatchError: The batch can't be used or has no labels.
        """
        packed = self.pack(batch)
        return self.core.losses(packed)

    def gradients(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Gradients of the total loss of a batch by parameter name, without dropout; nothing is changed.

        Raises:
            BatchError: The batch can't be used or has no labels.
        """
        packed = self.pack(batch)
        return self.core.gradients(packed)

    # Weights

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets every weight, or none.

        Raises:
            WeightsError: Lists what is missing, unexpected or misshapen; the model is as it was.
            StateError: The widths are not known before the first batch.
        """
        if not isinstance(state, Mapping):
            raise WeightsError(f"a state dict is a mapping from names to tensors, got {type(state).__name__}")
        tensors = {}
        for name, value in state.items():
            try:
                tensors[str(name)] = batches.tensor(str(name), value)
            except BatchError as error:
                raise WeightsError(str(error)) from None
        self.core.load_state_dict(tensors, "")
        self._weights_change()

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes ``config.json``, ``model.safetensors``, a model card and the tokenizer to a directory.

        Each file is written whole or not at all; files of the same names are replaced.

        Raises:
            StateError: The model has no weights yet.
        """
        weights = self.state_dict()
        preset = Config.resolve(self.preset, {}).to_dict()
        changed = {name: value for name, (_, value) in differing(preset, self.config.to_dict()).items()}
        residuals = None if self.calibration_ is None else self.calibration_.residuals.tolist()
        pretrained.save(
            Path(directory),
            config=self._described() | {"residuals": residuals},
            weights=weights,
            card=pretrained.card(
                title=f"MMILN, {self.kind}",
                about="A multimodal sentiment model (Xue et al., CCL 2023)",
                config=self.config,
                preset=self.preset,
                changed={name: value for name, value in changed.items() if name != "seed"},
                label_range=self.label_range_,
                weights=weights,
                encoder=self.encoder,
                trained=self.trained,
            ),
            encoder=self.encoder,
            trained=self.trained,
        )

    def _described(self) -> dict[str, Any]:
        """What ``config.json`` says of the model."""
        own = {"preset": self.preset, "dtype": self.dtype, "label_range": self.label_range_}
        return own | {"model": self.config.model, "train": self.config.train}

    @classmethod
    def from_pretrained(
        cls,
        directory: str | Path,
        *,
        device: str | torch.device = "cpu",
        precision: str = "float32",
        revision: str | None = None,
    ) -> Self:
        """A model as :meth:`save_pretrained` left it, in a directory or in a repository on the hub.

        Args:
            directory: Or a name on the Hugging Face hub, such as ``"user/model"``.
            device: As for the constructor.
            precision: As for the constructor.
            revision: A branch, tag or commit of the repository.

        Raises:
            MissingFileError: A file is not there, or the hub does not provide it.
            ConfigError: ``config.json`` is not that of an mmiln model.
            WeightsError: ``model.safetensors`` is damaged or does not fit.
        """
        directory = pretrained.find(directory, revision)
        saved = pretrained.read_config(directory)
        encoder = None if saved["text_encoder"] is None else directory
        weights = read_safetensors(directory / "model.safetensors")
        model = cls._of(saved, encoder, weights, device, precision)
        model.trained = pretrained.Trained.of(saved, directory / "config.json")
        return model

    @classmethod
    def _of(
        cls,
        saved: Mapping[str, Any],
        encoder: str | Path | None,
        weights: Mapping[str, Tensor],
        device: str | torch.device,
        precision: str,
    ) -> Self:
        """The model that the content of a ``config.json`` describes."""
        fields = saved["model"] | saved["train"]
        Config.resolve(saved["preset"], fields)  # refuses this class's arguments, which are no fields
        own: dict[str, Any] = {"device": device, "dtype": saved["dtype"], "precision": precision}
        model = cls(saved["preset"], text_encoder=encoder, **own, **fields)
        model._followed = LabelRange.checked(saved.get("label_range", model._usual_range()))
        model._build({name: saved["model"][f"{name}_dim"] for name in MODALITIES}, weights=weights)
        model._weights_change()
        if saved.get("residuals") is not None:
            model.calibration_ = Calibration.read(saved["residuals"])
        return model

    # Plain PyTorch

    def to_torch(self) -> MMILN:
        """A copy in plain PyTorch, in evaluation mode: see :class:`mmiln.pytorch.MMILN`.

        Raises:
            StateError: The model has no weights yet.
        """
        weights, encoder = self.state_dict(), self.encoder
        text: dict[str, Any] = {"text_encoder": None}
        if encoder is not None:
            text = {"text_encoder": encoder.config, "tokenizer": str(encoder.directory)}
        module = MMILN(self._described() | text).to(self.device, getattr(torch, self.dtype))
        module.load_state_dict(weights)
        return module.eval()

    @classmethod
    def from_torch(
        cls,
        module: nn.Module,
        *,
        text_encoder: str | Path | None = None,
        device: str | torch.device = "cpu",
        precision: str = "float32",
    ) -> Self:
        """A model with the configuration and the weights of a module that :meth:`to_torch` returned.

        Args:
            module: Weights in float32 or float64.
            text_encoder: Where the tokenizer is, by directory or hub name, if the model has a text encoder.
                The default is where it was for the model of :meth:`to_torch`.
            device: As for the constructor.
            precision: As for the constructor.

        Raises:
            ConfigError: It is another module, its weights have another type, or there is no tokenizer.
            WeightsError: Its weights do not fit its configuration.
            MissingFileError: The tokenizer's directory is not there.
        """
        if not isinstance(module, MMILN):
            raise ConfigError(
                f"expected the module that model.to_torch() returned, got {type(module).__name__}"
            )
        dtype = next(module.parameters()).dtype
        if dtype not in (torch.float32, torch.float64):
            raise ConfigError(
                f"expected weights of float32 or float64, got {dtype}: convert it, module.float()"
            )
        saved = {**module.config, "dtype": str(dtype).removeprefix("torch.")}
        encoder = None if saved.get("text_encoder") is None else text_encoder or saved.get("tokenizer")
        if encoder is None and saved.get("text_encoder") is not None:
            raise ConfigError("the model has a text encoder: give its directory as text_encoder=")
        weights = {name: batches.tensor(name, weight) for name, weight in module.state_dict().items()}
        return cls._of(saved, encoder, weights, device, precision)

    # The core

    @property
    def core(self) -> Core:
        """The Rust core, which trains and scores.

        Raises:
            StateError: The widths are not known before the first batch.
        """
        return cast(Core, super().core)

    def pack(self, batch: object) -> Batch:
        """A batch as the core reads it: ragged, on the model's device.

        Raises:
            BatchError: The batch can't be used.
        """
        return self._packed(batch, self.device)

    def packed_ahead(self, source: Iterable[Any]) -> Iterator[Batch]:
        """Batches packed for training, each a step before it is needed."""
        return packed_ahead(source, self.pack, self.device)

    def new_step(self) -> Callable[[Batch], Tensor]:
        """The step of a run: trains on one packed batch and returns its losses; on a card by CUDA graphs."""
        return self.core.train_step if self.device == "cpu" else Steps(self.core, cuda_capture(self.device))

    def where_not_finite(self, batch: Mapping[str, Any]) -> str:
        """The utterances of a batch, and where its values stop being finite."""
        return nonfinite.where_not_finite(self.core, self.pack(batch), batch)

    def _widths_with(self, batch: object) -> dict[str, int]:
        widths = super()._widths_with(batch)
        if widths["text"] == 0 and self.text_dim is None:
            raise BatchError(f"the batch has no text features, and {_needs_text()}")
        return widths

    def _made(self, config: Config, widths: dict[str, int], weights: Mapping[str, Tensor] | None) -> Core:
        encoder, whole = self.encoder, weights is not None
        if encoder is not None and weights is None:
            weights = encoder.weights()
        if weights is not None:
            claimed = least_weights(config.model) if whole else 0
            claimed += 0 if encoder is None else least_encoder_weights(encoder.config)
            held = sum(tensor.numel() for tensor in weights.values())
            # Checked before memory is allocated; the core reports smaller misfits, with the tensors' names.
            if claimed > 2 * held + 10**6:
                raise WeightsError(
                    f"config.json describes {claimed:,} weights or more, but model.safetensors holds {held:,}"
                )
        core = Core(
            json.dumps(config.model),
            None if encoder is None else json.dumps(encoder.config),
            seed=config.train["seed"],
            device=self.device,
            dtype=self.dtype,
            precision=self.precision,
        )
        if weights is not None:
            core.load_state_dict(dict(weights), "" if whole else "text.bert.")
        return core


def _needs_text() -> str:
    from .baselines import NETWORKS  # these import what this module is imported by

    others = ", ".join(name for name, network in NETWORKS.items() if "text" not in network.NEEDS)
    return (
        "MMILN needs text: give text_encoder= to read text_bert or raw_text; the control without text, "
        "text_dim=0, needs exactly one of audio_dim and vision_dim above 0; of mmiln.baselines, "
        f"{others} do without text"
    )
