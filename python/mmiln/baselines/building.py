"""Builds a network from settings and widths, with new weights or those of a file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..errors import ConfigError, WeightsError
from ..text_encoder import TextEncoder
from .engine import seeded
from .network import Network, Settings, Widths
from .run_state import differences


def build(
    kind: type[Network],
    settings: Settings,
    widths: Widths,
    encoder: TextEncoder | None,
    dtype: torch.dtype,
    weights: Mapping[str, Tensor] | None,
) -> Network:
    """A network with these weights; without any, drawn by its seed, a text encoder's read from its file.

    Raises:
        ConfigError: A text encoder needs the package ``transformers``.
        WeightsError: Lists what is missing, unexpected or misshapen.
    """
    if encoder is not None and getattr(settings, "unknown", 0) is None and encoder.tokenizer.files():
        settings = settings.model_copy(update={"unknown": encoder.tokenizer.unknown})

    def make() -> Network:
        return kind(settings, widths, None if encoder is None else bert_of(encoder))

    if weights is not None:  # checks what a file claims before allocating memory
        with torch.device("meta"):
            expected = make().to(dtype).state_dict()
        if faults := differences(expected, dict(weights)):
            raise WeightsError(
                f"these weights do not fit {kind.__name__} of these settings: {'; '.join(faults[:8])}"
            )
    with seeded(settings.seed, "cpu"):
        network = make()
    if weights is not None:
        network.to(dtype).load_state_dict(dict(weights))
    elif encoder is not None and network.bert is not None:
        own = {name.removeprefix("text.bert."): tensor for name, tensor in encoder.weights().items()}
        if faults := differences(network.bert.state_dict(), own):
            raise WeightsError(f"the text encoder's weights do not fit: {'; '.join(faults[:8])}")
        network.bert.load_state_dict(own)
    return network


def bert_of(encoder: TextEncoder) -> nn.Module:
    """A PyTorch BERT or RoBERTa of an encoder's sizes, with random weights.

    Raises:
        ConfigError: The package ``transformers`` is not installed.
    """
    try:
        from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel
    except ImportError:
        raise ConfigError(
            'a baseline with text_encoder= needs the package transformers: pip install "mmiln[baselines]"'
        ) from None
    if encoder.is_roberta:
        return RobertaModel(RobertaConfig(**encoder.config), add_pooling_layer=False)
    return BertModel(BertConfig(**encoder.config), add_pooling_layer=False)
