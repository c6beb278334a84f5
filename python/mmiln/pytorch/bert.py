"""BERT (Devlin et al. 2019) and RoBERTa (Liu et al. 2019) in plain PyTorch: Hugging Face's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "relu": torch.relu,
}


class Bert(nn.Module):
    """The last hidden states of true tokens, (3).

    Args:
        config: The ``config.json`` of a ``BertModel`` or a ``RobertaModel``.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        layers = (Layer(config) for _ in range(config["num_hidden_layers"]))
        self.encoder: Any = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, ids: Tensor, segments: Tensor, true: Tensor) -> Tensor:
        """``(B, T)`` each, ``true`` marking the tokens that are no padding, to ``(B, T, width)``."""
        x = self.embeddings(ids, segments)
        for layer in self.encoder["layer"]:
            x = layer(x, true)
        return x


class Embeddings(nn.Module):
    """The sum of a token's embedding, its position's and its segment's, normalised."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.word_embeddings = nn.Embedding(config["vocab_size"], width)
        self.position_embeddings = nn.Embedding(config["max_position_embeddings"], width)
        self.token_type_embeddings = nn.Embedding(config["type_vocab_size"], width)
        self.LayerNorm = nn.LayerNorm(width, config["layer_norm_eps"])
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])
        # In RoBERTa's family positions count from the one after the padding's.
        self.first = 0 if config.get("model_type", "bert") == "bert" else config["pad_token_id"] + 1

    def forward(self, ids: Tensor, segments: Tensor) -> Tensor:
        positions = self.first + torch.arange(ids.shape[1], device=ids.device)
        x = self.word_embeddings(ids) + self.position_embeddings(positions)
        return self.dropout(self.LayerNorm(x + self.token_type_embeddings(segments)))


class Layer(nn.Module):
    """Self-attention and a feed-forward network, each with a residual and a norm after it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        width, inner, eps = config["hidden_size"], config["intermediate_size"], config["layer_norm_eps"]
        names = ("query", "key", "value")
        own = nn.ModuleDict({name: nn.Linear(width, width) for name in names})
        out = nn.ModuleDict({"dense": nn.Linear(width, width), "LayerNorm": nn.LayerNorm(width, eps)})
        self.attention: Any = nn.ModuleDict({"self": own, "output": out})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(width, inner)})
        out = nn.ModuleDict({"dense": nn.Linear(inner, width), "LayerNorm": nn.LayerNorm(width, eps)})
        self.output = out
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])
        self.attention_dropout = config["attention_probs_dropout_prob"]
        self.heads = config["num_attention_heads"]
        self.act = config["hidden_act"]

    def forward(self, x: Tensor, true: Tensor) -> Tensor:
        own, out = self.attention["self"], self.attention["output"]
        q, k, v = (
            own[name](x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, heads, T, width / heads)
            for name in ("query", "key", "value")
        )
        p = self.attention_dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=true[:, None, None], dropout_p=p)
        attended = out["dense"](attended.transpose(1, 2).flatten(2))
        y = out["LayerNorm"](x + self.dropout(attended))
        inner = ACTIVATIONS[self.act](self.intermediate["dense"](y))
        return self.output["LayerNorm"](y + self.dropout(self.output["dense"](inner)))
