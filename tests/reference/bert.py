"""BertModel or RobertaModel without pooler, in evaluation mode, on the true tokens of one utterance."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .layers import Params, layer_norm, linear, scaled_attention


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / 2**0.5))


def bert(params: Params, config: Mapping[str, Any], tokens: Tensor, prefix: str = "text.bert") -> Tensor:
    """Rows of `tokens` (3, T): ids, mask (all ones: true tokens only), segments. -> (T, hidden)."""
    if config.get("hidden_act", "gelu") != "gelu":
        raise ValueError(f"hidden_act must be gelu, got {config['hidden_act']}")
    ids, mask, segments = tokens
    if not bool((mask == 1).all()):
        raise ValueError("text_bert must hold true tokens only: the mask has a zero")
    eps = config["layer_norm_eps"]
    roberta = config.get("model_type", "bert") in ("roberta", "xlm-roberta", "camembert")
    first = config["pad_token_id"] + 1 if roberta else 0

    name = f"{prefix}.embeddings"
    x = (
        params[f"{name}.word_embeddings.weight"][ids]
        + params[f"{name}.position_embeddings.weight"][first : first + len(ids)]
        + params[f"{name}.token_type_embeddings.weight"][segments]
    )
    x = layer_norm(params, f"{name}.LayerNorm", x, eps)

    for j in range(config["num_hidden_layers"]):
        name = f"{prefix}.encoder.layer.{j}"
        q, k, v = (linear(params, f"{name}.attention.self.{part}", x) for part in ("query", "key", "value"))
        mixed = scaled_attention(q, k, v, config["num_attention_heads"])
        mixed = linear(params, f"{name}.attention.output.dense", mixed)
        x = layer_norm(params, f"{name}.attention.output.LayerNorm", x + mixed, eps)
        hidden = gelu(linear(params, f"{name}.intermediate.dense", x))
        hidden = linear(params, f"{name}.output.dense", hidden)
        x = layer_norm(params, f"{name}.output.LayerNorm", x + hidden, eps)
    return x
