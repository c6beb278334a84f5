"""LMF of one utterance (Liu et al., 2018), by the full weight tensor that its factors stand for."""

from typing import Any

import torch
from torch import Tensor

from reference.baselines.tfn import mean_net, text_net
from reference.layers import Params


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    one = torch.ones(1, dtype=torch.float64)
    z_l = torch.cat([text_net(p, "text", u["text"]), one])
    z_v = torch.cat([mean_net(p, "vision", u["vision"]), one])
    z_a = torch.cat([mean_net(p, "audio", u["audio"]), one])
    w_l, w_v, w_a = (p[f"factors.{m}"] for m in ("text", "vision", "audio"))  # (rank, width + 1)
    weight = torch.zeros(len(z_l), len(z_v), len(z_a), dtype=torch.float64)
    for i in range(settings.rank):  # W = sum_i c_i w_l^i x w_v^i x w_a^i
        weight += p["weights"][i] * w_l[i][:, None, None] * w_v[i][None, :, None] * w_a[i][None, None, :]
    z = z_l[:, None, None] * z_v[None, :, None] * z_a[None, None, :]  # Z, TFN's tensor
    return {"M": (weight * z).sum() + p["bias"]}  # y = W . Z + b
