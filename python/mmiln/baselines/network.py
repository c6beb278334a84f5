"""The base class of baselines: a PyTorch module that scores utterances and defines its losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import pydantic
import torch
from torch import Tensor, nn

from ..config import is_rate
from ..data.names import MODALITIES
from ..plain import Plain
from .inputs import Inputs, Sequence

Outputs = dict[str, Tensor]
Widths = Mapping[str, int]  # width of each modality's frames, 0 where it is absent

# Types of hyper-parameters: a number of features, a dropout rate, the weight of a loss.
Width = Annotated[int, pydantic.Field(ge=1)]
Rate = Annotated[float, pydantic.Field(ge=0, lt=1)]
Weight = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]


class Settings(Plain):
    """Hyper-parameters that every baseline has; a network's own class adds its own.

    Attributes:
        batch_size: Utterances a step.
        lr, decay: Learning rate and weight decay of all parameters outside the text encoder.
        lr_text, decay_text: Learning rate and weight decay of a fine-tuned text encoder.
        optimizer: ``"adam"`` (decay as an L2 penalty) or ``"adamw"`` (decoupled).
        accumulate: Batches whose gradients are summed before a step, also where the last ones are fewer.
        clip: Largest norm of the gradient, which is scaled down to it; 0 for no limit.
        clip_value: Largest absolute value of a gradient's entries; 0 for no limit.
        freeze_text: The part of a text encoder that is not trained, as in :class:`mmiln.Model`:
            ``"embeddings"``, a number of first layers (with the embeddings), or ``True`` for all. Frozen
            parts run without dropout.
        patience: Training stops after this many epochs without a lower validation MAE.
        seed: Seed of initial weights, dropout and the order of a shuffled split.
    """

    batch_size: int = pydantic.Field(32, ge=1)
    lr: float = pydantic.Field(1e-3, ge=0, allow_inf_nan=False)
    decay: float = pydantic.Field(0.0, ge=0, allow_inf_nan=False)
    lr_text: float = pydantic.Field(5e-5, ge=0, allow_inf_nan=False)
    decay_text: float = pydantic.Field(0.0, ge=0, allow_inf_nan=False)
    optimizer: Literal["adam", "adamw"] = "adam"
    accumulate: int = pydantic.Field(1, ge=1)
    clip: float = pydantic.Field(0.0, ge=0, allow_inf_nan=False)
    clip_value: float = pydantic.Field(0.0, ge=0, allow_inf_nan=False)
    freeze_text: bool | Annotated[int, pydantic.Field(ge=0)] | Literal["embeddings"] = False
    patience: int = pydantic.Field(8, ge=1)
    seed: int = pydantic.Field(1111, ge=0, lt=2**63)

    @pydantic.model_validator(mode="after")
    def _bounded(self) -> Self:
        """Refuses rates below 0, and huge sizes, as a damaged file may claim, before anything is built."""
        for name, value in self:
            if is_rate(name) and not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be finite and at least 0, got {value}")
            if isinstance(value, int) and value > 100_000 and name != "seed":
                raise ValueError(f"{name} must be at most 100000, got {value}")
        return self


class Network(nn.Module):
    """Base class of the baselines; a subclass has ``forward`` and, unless it minimises L1, ``losses``.

    Its constructor takes its settings, the modalities' widths (0 where one is absent) and a text encoder or
    ``None``, and passes them on; it reads text by :meth:`read_text`.
    """

    #: The class of the network's hyper-parameters.
    Settings: ClassVar[type[Settings]] = Settings
    #: Hyper-parameters by data set, with their source in a comment.
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mosi": {}, "mosei": {}}
    #: Modalities that the network needs.
    NEEDS: ClassVar[tuple[str, ...]] = MODALITIES
    #: The smallest number of modalities that it reads, whichever they are.
    FEWEST: ClassVar[int] = 0
    #: Whether text, audio and vision must each have one frame a word.
    ALIGNED: ClassVar[bool] = False
    #: Names of what ``losses`` returns, in order; the last one is minimised.
    LOSSES: ClassVar[tuple[str, ...]] = ("total",)
    #: Whether the network keeps state for each training utterance, by ``Inputs.index``.
    KEEPS_LABELS: ClassVar[bool] = False
    #: Losses that each step minimises, each over parameters of its own.
    STAGES: ClassVar[tuple[str, ...]] = ("total",)

    def __init__(self, settings: Any, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.modalities = [m for m in MODALITIES if widths.get(m)]
        self.bert = bert
        self._frozen = [] if bert is None else _first(bert, settings.freeze_text)
        for module in self._frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        """Sets the mode of all modules; frozen ones stay in evaluation mode, without dropout."""
        super().train(mode)
        for module in self._frozen:
            module.eval()
        return self

    def read_text(self, x: Inputs) -> Sequence:
        """Features of each token: the text encoder's last layer (frame 0 is [CLS]), or those given."""
        if self.bert is None:
            assert x.text is not None
            return x.text
        assert x.tokens is not None
        ids, segments = x.tokens.frames.unbind(-1)
        mask = x.tokens.mask
        hidden = self.bert(
            input_ids=ids, attention_mask=mask.long(), token_type_ids=segments
        ).last_hidden_state
        return x.tokens.map(hidden)

    def read_all(self, x: Inputs) -> dict[str, Sequence]:
        """The frames of each modality by name; text as from :meth:`read_text`."""
        text = self.read_text(x) if "text" in self.modalities else None
        read = {"text": text, "audio": x.audio, "vision": x.vision}
        return {name: sequence for name, sequence in read.items() if sequence is not None}

    def forward(self, x: Inputs) -> Outputs:
        """The score ``"M"`` (B,), and whatever else the losses need, by name."""
        raise NotImplementedError

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """Scalars by name, in the order of ``LOSSES``; by default the L1 loss of the score."""
        assert x.labels is not None
        return {"total": x.mean((outputs["M"] - x.labels).abs())}

    def learning_rates(self) -> dict[str, tuple[float, float]]:
        """Learning rate and weight decay of each group of parameters, by the group's name."""
        s = self.settings
        return {"bert": (s.lr_text, s.decay_text), "other": (s.lr, s.decay)}

    def group_of(self, parameter: str) -> str:
        """The group of a parameter by its name: its top-level module's, or ``"other"``."""
        top = parameter.partition(".")[0]
        return top if top in self.learning_rates() else "other"

    def groups(self) -> list[dict[str, Any]]:
        """Groups of parameters for the optimiser, in the order of :meth:`learning_rates`."""
        rates = self.learning_rates()
        found: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
        for name, parameter in self.named_parameters():
            found[self.group_of(name)].append(parameter)
        return [{"params": found[n], "lr": lr, "weight_decay": decay} for n, (lr, decay) in rates.items()]

    def stage_of(self, parameter: str) -> str:
        """Which of ``STAGES`` trains a parameter, by its name."""
        return self.STAGES[-1]

    def begin_training(self, samples: int | None) -> None:
        """Called before a run on so many utterances; registers the run's state as non-persistent buffers."""

    def begin_epoch(self, epoch: int) -> None:
        """Called before each epoch, numbered from 1."""

    def kept_labels(self) -> Mapping[str, Tensor]:
        """Pseudo-labels of the last run by modality, (N,) by ``Inputs.index``, NaN for unseen utterances."""
        return {}

    @torch.no_grad()
    def after_step(self, outputs: Outputs, x: Inputs) -> None:
        """Called after each training batch with the outputs of ``forward``."""


def _first(bert: Any, freeze: bool | int | str) -> list[nn.Module]:
    """The parts of a BERT that ``freeze_text`` names."""
    if freeze is False:
        return []
    layers = list(bert.encoder.layer)
    count = 0 if freeze == "embeddings" else len(layers) if freeze is True else int(freeze)
    return [bert.embeddings, *layers[:count]]
