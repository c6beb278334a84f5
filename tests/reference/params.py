"""Names, shapes and random values of the parameters."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .model import gated, sources, text_streams

Shapes = dict[str, tuple[int, ...]]


def linear_shapes(name: str, fan_in: int, fan_out: int) -> Shapes:
    return {f"{name}.weight": (fan_out, fan_in), f"{name}.bias": (fan_out,)}


def norm_shapes(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def recurrent_shapes(name: str, fan_in: int, hidden: int, gates: int, suffix: str = "") -> Shapes:
    return {
        f"{name}.weight_ih_l0{suffix}": (gates * hidden, fan_in),
        f"{name}.weight_hh_l0{suffix}": (gates * hidden, hidden),
        f"{name}.bias_ih_l0{suffix}": (gates * hidden,),
        f"{name}.bias_hh_l0{suffix}": (gates * hidden,),
    }


def attention_shapes(name: str, d: int) -> Shapes:
    in_proj = {f"{name}.in_proj_weight": (3 * d, d), f"{name}.in_proj_bias": (3 * d,)}
    return in_proj | linear_shapes(f"{name}.out_proj", d, d)


def bert_shapes(config: Mapping[str, Any], prefix: str = "text.bert") -> Shapes:
    width, inner = config["hidden_size"], config["intermediate_size"]
    name = f"{prefix}.embeddings"
    shapes: Shapes = {
        f"{name}.word_embeddings.weight": (config["vocab_size"], width),
        f"{name}.position_embeddings.weight": (config["max_position_embeddings"], width),
        f"{name}.token_type_embeddings.weight": (config["type_vocab_size"], width),
        **norm_shapes(f"{name}.LayerNorm", width),
    }
    for j in range(config["num_hidden_layers"]):
        name = f"{prefix}.encoder.layer.{j}"
        for part in ("query", "key", "value"):
            shapes |= linear_shapes(f"{name}.attention.self.{part}", width, width)
        shapes |= linear_shapes(f"{name}.attention.output.dense", width, width)
        shapes |= norm_shapes(f"{name}.attention.output.LayerNorm", width)
        shapes |= linear_shapes(f"{name}.intermediate.dense", width, inner)
        shapes |= linear_shapes(f"{name}.output.dense", inner, width)
        shapes |= norm_shapes(f"{name}.output.LayerNorm", width)
    return shapes


def stream_shapes(name: str, config: Mapping[str, Any], text_led: bool) -> Shapes:
    d = config["d_model"]
    shapes: Shapes = {}
    if text_led:
        shapes |= attention_shapes(f"{name}.self_attention", d)
    if text_led and gated(config):
        shapes |= linear_shapes(f"{name}.source", d, d)
    if gated(config):
        shapes |= recurrent_shapes(f"{name}.gru", d, d, 3)
        shapes |= recurrent_shapes(f"{name}.gru", d, d, 3, "_reverse")
        shapes |= linear_shapes(f"{name}.retain", d, d)
        shapes |= linear_shapes(f"{name}.compound", d, d)
    shapes |= attention_shapes(f"{name}.attention", d)
    shapes |= norm_shapes(f"{name}.norm1", d)
    shapes |= norm_shapes(f"{name}.norm2", d)
    shapes |= linear_shapes(f"{name}.ffn.linear1", d, 4 * d)
    shapes |= linear_shapes(f"{name}.ffn.linear2", 4 * d, d)
    return shapes


def head_shapes(name: str, fan_in: int, features: int) -> Shapes:
    return (
        linear_shapes(f"{name}.linear1", fan_in, features)
        | linear_shapes(f"{name}.linear2", features, features)
        | linear_shapes(f"{name}.linear3", features, 1)
    )


def parameter_shapes(config: Mapping[str, Any], bert_config: Mapping[str, Any] | None = None) -> Shapes:
    """Every parameter's name and shape, in the order of the contract."""
    d = config["d_model"]
    shapes: Shapes = bert_shapes(bert_config) if bert_config else {}
    text_width = bert_config["hidden_size"] if bert_config else config["text_dim"]
    shapes["text.conv.weight"] = (d, text_width, config["text_kernel"])
    shapes["text.conv.bias"] = (d,)
    for n in sources(config):
        hidden = config[f"{n}_hidden"]
        shapes |= recurrent_shapes(f"{n}.lstm", config[f"{n}_dim"], hidden, 4)
        shapes[f"{n}.conv.weight"] = (d, hidden, config[f"{n}_kernel"])
        shapes[f"{n}.conv.bias"] = (d,)
    for i in range(config["num_layers"]):
        for n in sources(config):
            shapes |= stream_shapes(f"fusion.{i}.{n}", config, text_led=False)
        for f in text_streams(config):
            shapes |= stream_shapes(f"fusion.{i}.{f}", config, text_led=True)
    # z of the multimodal head: the text-led streams, or else X_t^0 and the sources
    pooled = len(text_streams(config)) or 1 + len(sources(config))
    shapes |= head_shapes("heads.multimodal", pooled * d, config["multimodal_features"])
    for n in sources(config):
        shapes |= head_shapes(f"heads.{n}", d, config[f"{n}_features"])
    return shapes


def init(
    config: Mapping[str, Any], seed: int, bert_config: Mapping[str, Any] | None = None
) -> dict[str, Tensor]:
    """Random float64 parameters in PyTorch's default distributions; BERT's are normal(0, 0.02)."""
    generator = torch.Generator().manual_seed(seed)
    shapes = parameter_shapes(config, bert_config)

    def uniform(shape: tuple[int, ...], bound: float) -> Tensor:
        return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound

    params = {}
    for name, shape in shapes.items():
        owner, _, kind = name.rpartition(".")
        if "norm" in owner or "LayerNorm" in owner:
            fill = torch.ones if kind == "weight" else torch.zeros
            params[name] = fill(shape, dtype=torch.float64)
        elif name.startswith("text.bert."):
            if kind == "weight":
                params[name] = torch.randn(shape, generator=generator, dtype=torch.float64) * 0.02
            else:
                params[name] = torch.zeros(shape, dtype=torch.float64)
        elif owner.endswith((".lstm", ".gru")):
            hidden = shapes[f"{owner}.weight_hh_l0"][1]
            params[name] = uniform(shape, hidden**-0.5)
        elif kind == "in_proj_weight":  # Xavier
            params[name] = uniform(shape, (6 / (shape[0] + shape[1])) ** 0.5)
        elif kind == "in_proj_bias" or name.endswith("out_proj.bias"):
            params[name] = torch.zeros(shape, dtype=torch.float64)
        else:  # Linear, Conv1d
            fan_in = torch.Size(shapes[f"{owner}.weight"][1:]).numel()
            params[name] = uniform(shape, fan_in**-0.5)
    return params


def perturb(params: Mapping[str, Tensor], seed: int, scale: float = 0.1) -> dict[str, Tensor]:
    """A copy with noise on every entry, so that no bias is zero and no LayerNorm the identity."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: p + scale * torch.randn(p.shape, generator=generator, dtype=torch.float64)
        for name, p in params.items()
    }
