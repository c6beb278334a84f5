"""Text alone over given features, of one utterance."""

from typing import Any

from torch import Tensor

from reference.layers import Params, linear, lstm


def forward(p: Params, settings: Any, u: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"M": linear(p, "head", lstm(p, "lstm.rnn", u["text"])[-1])[0]}  # y = w . h_T + b
