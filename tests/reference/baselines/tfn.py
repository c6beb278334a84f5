"""TFN of one utterance (Zadeh et al., 2017)."""

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear, lstm


def mean_net(p: Params, name: str, frames: Tensor) -> Tensor:
    x = sum(frames) / len(frames)  # mean of true frames
    x = (x - p[f"{name}.norm.running_mean"]) / torch.sqrt(p[f"{name}.norm.running_var"] + 1e-5)
    x = x * p[f"{name}.norm.weight"] + p[f"{name}.norm.bias"]
    for i in range(3):
        x = linear(p, f"{name}.layers.{i}", x).clamp(min=0)  # ReLU
    return x


def text_net(p: Params, name: str, words: Tensor) -> Tensor:
    return linear(p, f"{name}.linear", lstm(p, f"{name}.lstm.rnn", words)[-1])  # z_l = W h_T + b


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    nets = {"text": text_net, "vision": mean_net, "audio": mean_net}
    parts = [[*net(p, m, u[m]), 1.0] for m, net in nets.items() if m in u]
    products = [math.prod(each) for each in itertools.product(*parts)]
    z = torch.stack([torch.as_tensor(each, dtype=torch.float64) for each in products])
    h = linear(p, "post1", z).clamp(min=0)
    h = linear(p, "post2", h).clamp(min=0)
    return {"M": 6 / (1 + torch.exp(-linear(p, "out", h)[0])) - 3}
