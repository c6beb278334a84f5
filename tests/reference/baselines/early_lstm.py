"""Early fusion of one utterance."""

from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear, lstm


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    words = [torch.cat(frames) for frames in zip(*u.values(), strict=True)]  # x_t = [l_t; a_t; v_t]
    h = lstm(p, "lstm.rnn", torch.stack(words))[-1]
    return {"M": linear(p, "head.3", linear(p, "head.0", h).clamp(min=0))[0]}
