"""Late fusion of one utterance."""

from typing import Any

import torch
from torch import Tensor

from reference.layers import Params, linear, lstm


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    h = torch.cat([lstm(p, f"lstms.{m}.rnn", u[m])[-1] for m in ("text", "audio", "vision") if m in u])
    return {"M": linear(p, "head.3", linear(p, "head.0", h).clamp(min=0))[0]}
