"""How large a model would be, known before memory is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def least_weights(model: Mapping[str, Any]) -> int:
    """So many weights at least, and at most three times as many, has a model of these fields.

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
        # A layer's attention and feed-forward network, of the modality's own stream and of the text-led one.
        count += model["num_layers"] * 12 * width**2 * (2 if model["text_dim"] > 0 else 1)
    return count


def _head(width: int, features: int) -> int:
    return features * (width + features)


def least_encoder_weights(encoder: Mapping[str, Any]) -> int:
    """So many weights at least has a text encoder of this configuration."""
    width = encoder["hidden_size"]
    embedded = encoder["vocab_size"] + encoder["max_position_embeddings"] + encoder["type_vocab_size"]
    layer = 4 * width**2 + 2 * width * encoder["intermediate_size"]
    count: int = width * embedded + encoder["num_hidden_layers"] * layer
    return count
