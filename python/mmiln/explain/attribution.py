"""How far each modality and each word moved a score, and how far the gates were open."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..config import Config
from ..data import Split
from ..data.names import FIELDS, MODALITIES
from ..labels import LabelRange
from ..results.predictions import Predictions
from ..text_encoder import TextEncoder

BACKGROUND: Final = 32  # utterances of train that stand in for a modality
TEXT_FIELDS: Final = ("text", "text_bert", "raw_text")

Doubles = npt.NDArray[np.float64]
Gates = dict[str, dict[str, float]]  # by stream and gate


class Explained(Protocol):
    """The part of :class:`mmiln.Model` that explanations use."""

    encoder: TextEncoder | None

    @property
    def config(self) -> Config: ...  # noqa: D102
    @property
    def label_range_(self) -> LabelRange: ...  # noqa: D102
    def predict(self, loader: Split) -> Predictions: ...  # noqa: D102
    def forward(  # noqa: D102
        self, batch: Mapping[str, Any], intermediates: bool = False
    ) -> dict[str, Tensor | list[Tensor]]: ...
    def attention_maps(self, batch: Mapping[str, Any]) -> dict[str, list[Tensor]]: ...  # noqa: D102


def modalities_of(model: Explained) -> list[str]:
    """Which of text, audio and vision a model reads."""
    return [name for name in MODALITIES if model.config.model[f"{name}_dim"]]


def contributions(model: Explained, some: Split, background: Split) -> dict[str, Doubles]:
    """How far each modality moved each score ``(N,)``, by modality.

    The score minus the mean score when the modality is replaced by that of 32 utterances, evenly spaced in
    ``background`` (the interventional expectation of Janzing et al. 2020). Real utterances stand in rather
    than a blank input, which does not occur in data.

    Raises:
        BatchError: The model does not fit the data.
    """
    count = min(BACKGROUND, len(background))
    stand_ins = background.subset(np.linspace(0, len(background) - 1, count).astype(int).tolist())
    scores = model.predict(some).score.astype(np.float64)
    result = {}
    for name in modalities_of(model):
        replaced = TEXT_FIELDS if name == "text" else (name,)
        fields = {
            field: [
                (getattr(stand_ins, field)[k] if field in replaced else getattr(some, field)[i])
                for i in range(len(some))
                for k in range(count)
            ]
            for field in FIELDS
            if field in some.fields
        }
        without = model.predict(_unlabelled(len(some) * count, fields)).score
        result[name] = scores - without.astype(np.float64).reshape(len(some), count).mean(axis=1)
    return result


def occlusion(model: Explained, one: Split, field: str, places: list[list[int]]) -> Doubles:
    """How far each word moved the score of one utterance: the score minus the score without the word.

    Args:
        model: Reads ``field``.
        one: The utterance.
        field: ``text``, features of each token ``(T, w)``, or ``text_bert`` ``(3, T)``.
        places: For each word the places of its tokens among T, never all of them.
    """
    if not places:
        return np.zeros(0)
    axis = 1 if field == "text_bert" else 0
    whole = getattr(one, field)[0]
    fields = {name: list(getattr(one, name)) * len(places) for name in one.fields if name not in TEXT_FIELDS}
    fields[field] = [np.delete(whole, at, axis) for at in places]
    scores = model.predict(_unlabelled(len(places), fields)).score
    return float(model.predict(one).score[0]) - scores.astype(np.float64)


def mean_gates(inside: Mapping[str, Tensor | list[Tensor]], i: int) -> list[Gates]:
    """By layer, stream and gate: the mean over channels and time for utterance ``i`` of a forward pass."""
    layers: list[Gates] = []
    for key, value in inside.items():
        names = key.split(".")
        if names[0] != "fusion" or names[-1] not in ("retain", "compound", "source"):
            continue
        _, layer, stream, gate = names
        while len(layers) <= int(layer):
            layers.append({})
        layers[int(layer)].setdefault(stream, {})[gate] = float(value[i].mean())
    return layers


def _unlabelled(count: int, fields: Mapping[Any, Any]) -> Split:
    return Split([str(i) for i in range(count)], **fields)
