"""The public face of MMILN: build, fit, evaluate, predict, look inside, save."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from torch import Tensor

from . import pretrained
from ._core import Batch, Core
from .config import Config, least_weights
from .data import Dataset, Split
from .errors import BatchError, ConfigError, StateError, WeightsError
from .explain import Explanation, explain
from .files import read_safetensors
from .results.summary import Summary
from .text_encoder import find_text_encoder, least_encoder_weights
from .training import batches, nonfinite
from .training.device import check_device
from .training.estimator import Estimator
from .training.graphs import Steps, cuda_capture, packed_ahead
from .training.ranks import own_card

WIDTHS = ("text_dim", "audio_dim", "vision_dim")
ARGUMENTS = ("preset", "text_encoder", *WIDTHS, "device", "dtype", "precision", "seed")


class Model(Estimator):
    """MMILN (Xue et al., CCL 2023): text, audio and vision of an utterance in, a score in [-3, 3] out.

    Args:
        preset: ``"mosi"`` or ``"mosei"`` (Self-MM's repository), ``"mosi-mmsa"`` or ``"mosei-mmsa"``
            (MMSA's set).
        text_encoder: ``None`` to read text features; or a Hugging Face BERT, by directory or hub name, to
            read ``text_bert`` or ``raw_text`` and be fine-tuned, all of it or, with ``freeze_text``, in part.
        text_dim: Width of text features; 0 for the control of one other modality alone. The default is
            the encoder's width, or that of the first batch.
        audio_dim: Width of audio frames; 0 leaves audio out. The default is that of the first batch.
        vision_dim: The same for vision.
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:<n>"``, a card of compute capability 8.0 or later.
        dtype: ``"float32"``, or ``"float64"`` to check numbers.
        precision: ``"float32"``; or ``"bf16"``, in which a text encoder on a card computes its products.
            Weights, moments and all else stay float32.
        seed: Of initial weights, dropout and the order of a shuffled split; 1111 by default.
        **fields: Any other field of section 11 of the specification, such as ``num_layers``, ``variant``,
            ``alpha``, ``lr_text``, ``patience``. ``freeze_text``: how much of the text encoder is not
            trained, ``"embeddings"``, those and a number of first layers, or ``True`` for all. What is
            frozen runs without dropout, once for each sentence (up to 2 GiB of features are kept).
            ``order``: ``"faithful"``, or ``"window"`` or ``"buckets"`` for batches of utterances of about
            the same length (:class:`mmiln.data.order.LengthAware`). ``gather_losses``: with several
            processes, whether the losses of similarity and difference are of the batches of all together.

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

    LOSSES = ("task", "sim", "diff", "total")

    def __init__(
        self,
        preset: str = "mosi",
        *,
        text_encoder: str | Path | None = None,
        text_dim: int | None = None,
        audio_dim: int | None = None,
        vision_dim: int | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        precision: str = "float32",
        seed: int | None = None,
        **fields: Any,
    ) -> None:
        self.preset = preset
        self.text_encoder = text_encoder
        self.text_dim = text_dim
        self.audio_dim = audio_dim
        self.vision_dim = vision_dim
        self.device = own_card(device)
        self.dtype = dtype
        self.precision = precision
        self.seed = seed
        self.fields = fields
        self._encoder = None if text_encoder is None else find_text_encoder(text_encoder)
        self._built: Core | None = None
        self._final_widths: dict[str, int] = {}
        self._make_locks()
        self._check()

    # Parameters, as scikit-learn has them

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments as they were given."""
        return {name: getattr(self, name) for name in ARGUMENTS} | self.fields

    def set_params(self, **params: Any) -> Self:
        """Changes arguments. Once there are weights, only settings of training can change.

        Raises:
            StateError: The change would need other weights.
            ConfigError: Unknown field, wrong type or out of range.
        """
        before = self.get_params()
        if self._built is None:
            vars(self).update(vars(type(self)(**(before | params))))  # refuses what a constructor refuses
            return self
        config = self.config
        fields = {name: value for name, value in params.items() if name not in ARGUMENTS or name == "seed"}
        Config.resolve(self.preset, config.to_dict() | fields)
        fixed = [n for n, v in params.items() if n not in config.train and before.get(n) != v]
        if fixed:
            raise StateError(
                f"this model has weights already, which {', '.join(fixed)} can't change under: build "
                "another with mmiln.Model(**(model.get_params() | {...}))"
            )
        self.seed = fields.pop("seed", self.seed)
        self.fields = self.fields | fields
        return self

    def _check(self) -> None:
        if self.dtype not in ("float32", "float64"):
            raise ConfigError(f'dtype must be "float32" or "float64", got {self.dtype!r}')
        if self.precision not in ("float32", "bf16"):
            raise ConfigError(f'precision must be "float32" or "bf16", got {self.precision!r}')
        check_device(self.device)
        if self.precision == "bf16" and (self.device == "cpu" or self.dtype != "float32"):
            raise ConfigError(
                'precision="bf16" needs device="cuda" and dtype="float32", '
                f"got {self.device!r} and {self.dtype!r}"
            )
        if self._encoder is not None and self.text_dim not in (None, self._encoder.width):
            raise ConfigError(
                f"text_dim must be the text encoder's width, {self._encoder.width}, got {self.text_dim}"
            )
        freeze = self.config.model["freeze_text"]
        if freeze is not False and self._encoder is None:
            raise ConfigError(f"freeze_text={freeze!r} needs a text encoder to freeze: give text_encoder=")
        if self._encoder is not None and type(freeze) is int and freeze > self._encoder.layers:
            raise ConfigError(
                f"freeze_text must be at most the text encoder's {self._encoder.layers} layers, got {freeze}"
            )

    @property
    def config(self) -> Config:
        """Every field of model and training, resolved; widths that are not known yet are the preset's."""
        widths = self._final_widths or self._widths()
        return Config.resolve(self.preset, {**self.fields, **widths, "seed": self.seed})

    def text_encoder_fingerprint(self) -> str | None:
        """SHA-256 (hex) of the file of weights that the text encoder began with; ``None`` without one."""
        return None if self._encoder is None else self._encoder.fingerprint()

    def __repr__(self) -> str:
        default = Config.resolve(self.preset, {}).to_dict() | {
            "text_encoder": None, "device": "cpu", "dtype": "float32", "precision": "float32",
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
        return Summary.of(self.state_dict(), self._core.frozen())

    # What is inside

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
        packed = self._pack(batch)
        return self._core.forward(packed, intermediates)

    def attention_maps(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]:
        """Where the text looks in audio and vision: probabilities of the cross attention (21), no dropout.

        Returns:
            By ``fusion.<i>.text_audio`` and ``fusion.<i>.text_vision``, one ``(h, T_t, T_n)`` tensor an
            utterance: for each head and text position a distribution over that modality's true frames. Empty
            for a model without SAG-Transformers (``no_gate_fusion``, a single modality).

        Raises:
            BatchError: The batch can't be used.
        """
        packed = self._pack(batch)
        return self._core.attention_maps(packed)

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
            ConfigError: No utterance, or more than one, is called so; or there is none to compare it with.
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
        packed = self._pack(batch)
        return self._core.losses(packed)

    def gradients(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Gradients of the total loss of a batch by parameter name, without dropout; nothing is changed.

        Raises:
            BatchError: The batch can't be used or has no labels.
        """
        packed = self._pack(batch)
        return self._core.gradients(packed)

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
        self._core.load_state_dict(tensors, "")

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes ``config.json``, ``model.safetensors``, a model card and the tokenizer to a directory.

        Each file is written whole or not at all; files of the same names are replaced.

        Raises:
            StateError: The model has no weights yet.
        """
        config, weights = self.config, self.state_dict()
        used = [name.removesuffix("_dim") for name in WIDTHS if config.model[name]]
        pretrained.save(
            Path(directory),
            config={
                "preset": self.preset,
                "dtype": self.dtype,
                "model": config.model,
                "train": config.train,
                "text_encoder": None if self._encoder is None else self._encoder.config,
            },
            weights=weights,
            card=pretrained.card(repr(self), used, config.model, weights),
            tokenizer=[] if self._encoder is None else self._encoder.tokenizer_files(),
        )

    @classmethod
    def from_pretrained(
        cls, directory: str | Path, *, device: str = "cpu", precision: str = "float32"
    ) -> Model:
        """A model as :meth:`save_pretrained` left it.

        Raises:
            MissingFileError: A file is not there.
            ConfigError: ``config.json`` is not that of an mmiln model.
            WeightsError: ``model.safetensors`` is damaged or does not fit.
        """
        directory = Path(directory)
        saved = pretrained.read_config(directory)
        fields = saved["model"] | saved["train"]
        Config.resolve(saved["preset"], fields)  # refuses what is no field, but an argument of this class
        encoder = None if saved["text_encoder"] is None else directory
        own = {"device": device, "dtype": saved["dtype"], "precision": precision}
        model = cls(saved["preset"], text_encoder=encoder, **own, **fields)
        weights = read_safetensors(directory / "model.safetensors")
        model._build({name: saved["model"][name] for name in WIDTHS}, weights=weights)
        return model

    # Copies: pickle, deepcopy, joblib

    def __getstate__(self) -> dict[str, Any]:
        """Arguments, weights and ``history_``; what a run keeps beside them (pseudo-labels) stays behind."""
        # As arrays: torch hands tensors to another process by file descriptors, too many of them.
        weights = None if self._built is None else {n: t.cpu().numpy() for n, t in self.state_dict().items()}
        locks = ("_training", "_building")
        return {n: v for n, v in vars(self).items() if n not in locks} | {"_built": weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weights = state["_built"]
        vars(self).update(state | {"_built": None})
        self._make_locks()
        if weights is not None:
            tensors = {name: batches.tensor(name, weight) for name, weight in weights.items()}
            self._build(self._final_widths, weights=tensors)

    # The core

    @property
    def built(self) -> bool:
        """Whether the model has weights: it gets them once all widths are known."""
        return self._built is not None

    @property
    def _core(self) -> Core:
        if self._built is None:
            unknown = [name for name in WIDTHS if name not in self._widths()]
            if unknown:
                raise StateError(
                    f"the model has no weights yet: give {', '.join(unknown)}, or let it see a batch"
                )
            return self._build(self._widths())
        return self._built

    def _packed(self, source: Iterable[Any]) -> Iterator[Batch]:
        return packed_ahead(source, self._pack, self.device)

    def _step(self) -> Callable[[Batch], Tensor]:
        if self.device == "cpu":
            return self._core.train_step
        return Steps(self._core, cuda_capture(self.device))

    def _explain(self, batch: Mapping[str, Any]) -> str:
        return nonfinite.explain(self, batch)

    def _pack(self, batch: object) -> Batch:
        widths = self._final_widths or self._widths_with(batch)
        packed = batches.pack(
            batch,
            encoder=self._encoder,
            uses=[name.removesuffix("_dim") for name in WIDTHS if widths[name]],
            device=self.device,
            dtype=self.dtype,
        )
        if self._built is None:
            self._build(widths)
        return packed

    def _widths_with(self, batch: object) -> dict[str, int]:
        """All widths, those that are not known yet read off a batch."""
        seen = batches.widths(batches.check_keys(batch))
        widths = {f"{name}_dim": width for name, width in seen.items()} | self._widths()
        if widths["text_dim"] == 0 and self.text_dim is None:
            raise BatchError(
                "the batch has no text features, and text is the centre of the model: give text_encoder= to "
                "read text_bert or raw_text, or text_dim=0 for the control of one other modality alone"
            )
        return widths

    def _widths(self) -> dict[str, int]:
        """The widths that are known, from the arguments or the text encoder."""
        widths = {name: value for name in WIDTHS if (value := getattr(self, name)) is not None}
        if self._encoder is not None:
            widths["text_dim"] = self._encoder.width
        return widths

    def _build(self, widths: dict[str, int], *, weights: Mapping[str, Tensor] | None = None) -> Core:
        """Creates the core, once; a text encoder's weights come with ``weights``, else from its directory."""
        with self._building:
            if self._built is not None:  # another thread came first
                return self._built
            config = Config.resolve(self.preset, {**self.fields, **widths, "seed": self.seed})
            encoder = self._encoder
            whole = weights is not None
            if encoder is not None and weights is None:
                weights = encoder.weights()
            if weights is not None:
                claimed = least_weights(config.model) if whole else 0
                claimed += 0 if encoder is None else least_encoder_weights(encoder.config)
                held = sum(tensor.numel() for tensor in weights.values())
                # Before memory is asked for; the core, which names all that does not fit, gets what is small.
                if claimed > 2 * held + 10**6:
                    raise WeightsError(
                        f"config.json describes {claimed:,} weights or more, but model.safetensors "
                        f"holds {held:,}"
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
            self._built, self._final_widths = core, widths
            return core
