"""LMF of one utterance (Liu et al., 2018), by the full weight tensor that its factors stand for."""

import functools
from typing import Any

import torch
from torch import Tensor

from reference.baselines.tfn import mean_net, text_net
from reference.layers import Params


def outer(vectors: list[Tensor]) -> Tensor:
    return functools.reduce(lambda tensor, vector: tensor[..., None] * vector, vectors)


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    one = torch.ones(1, dtype=torch.float64)
    nets = {"text": text_net, "vision": mean_net, "audio": mean_net}
    there = [m for m in nets if m in u]
    z = outer([torch.cat([nets[m](p, m, u[m]), one]) for m in there])  # Z, TFN's tensor
    weight = torch.zeros_like(z)
    for i in range(settings.rank):  # W = sum_i c_i w_l^i x w_v^i x w_a^i
        weight += p["weights"][i] * outer([p[f"factors.{m}"][i] for m in there])
    return {"M": (weight * z).sum() + p["bias"]}  # y = W . Z + b
