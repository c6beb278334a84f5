"""MAG-BERT on the true word pieces of one utterance, in elementary tensor operations."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from reference.bert import gelu
from reference.layers import Params, layer_norm, linear, scaled_attention


def norm(x: Tensor) -> float:
    return float(sum(number**2 for number in x) ** 0.5)


def gate(p: Params, z: Tensor, a: Tensor, v: Tensor, beta: float) -> Tensor:
    """The shifted embedding of one word piece."""
    g_a = torch.relu(linear(p, "gate.gate_audio", torch.cat([z, a])))
    g_v = torch.relu(linear(p, "gate.gate_vision", torch.cat([z, v])))
    w_a, w_v = p["gate.shift_audio.weight"], p["gate.shift_vision.weight"]
    h = g_a * (w_a @ a) + g_v * (w_v @ v) + p["gate.bias"]
    alpha = min(beta * norm(z) / (norm(h) + 1e-6), 1.0)
    return layer_norm(p, "gate.norm", z + alpha * h)


def forward(
    p: Params, settings: Any, utterance: dict[str, Tensor], config: Mapping[str, Any]
) -> dict[str, Tensor]:
    """``text`` has the rows (id, segment) of each word piece; ``config`` is that of the BERT."""
    tokens, eps = utterance["text"], config["layer_norm_eps"]
    shifted = []
    for t, (token, segment) in enumerate(tokens.tolist()):
        # Z = LN(word + position + segment)
        z = (
            p["bert.embeddings.word_embeddings.weight"][token]
            + p["bert.embeddings.position_embeddings.weight"][t]
            + p["bert.embeddings.token_type_embeddings.weight"][segment]
        )
        z = layer_norm(p, "bert.embeddings.LayerNorm", z, eps)
        frames = []
        for name in ("audio", "vision"):
            x = utterance[name]
            before = (len(tokens) - len(x)) // 2  # none or one: [CLS]
            inside = before <= t < before + len(x)
            frames.append(x[t - before] if inside else torch.zeros_like(x[0]))
        shifted.append(gate(p, z, *frames, settings.beta))
    x = torch.stack(shifted)  # (T, w)
    for j in range(config["num_hidden_layers"]):
        at = f"bert.encoder.layer.{j}"
        q, k, v = (linear(p, f"{at}.attention.self.{part}", x) for part in ("query", "key", "value"))
        mixed = scaled_attention(q, k, v, config["num_attention_heads"])
        mixed = linear(p, f"{at}.attention.output.dense", mixed)
        x = layer_norm(p, f"{at}.attention.output.LayerNorm", x + mixed, eps)
        hidden = gelu(linear(p, f"{at}.intermediate.dense", x))
        x = layer_norm(p, f"{at}.output.LayerNorm", x + linear(p, f"{at}.output.dense", hidden), eps)
    pooler = "bert.pooler.dense" if "bert.pooler.dense.weight" in p else "pooler"
    return {"M": linear(p, "head", torch.tanh(linear(p, pooler, x[0])))[0]}
