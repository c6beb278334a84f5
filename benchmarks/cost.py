"""The cost of a training step by formula: multiply-adds, bytes of memory, bytes between processes.

The formulas are those of docs/scale.md; `python -m benchmarks.parallel` compares them with measured times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Forward, backward to the inputs, backward to the weights.
PASSES = 3
#: Adam reads weights, gradients and two moments, writes weights and moments, and clears the gradients.
ADAM_TRAFFIC = 8


@dataclass(frozen=True)
class Lengths:
    """Mean true lengths of an utterance; attention, which grows with their squares, costs a little more."""

    text: float
    audio: float
    vision: float


def multiply_adds(config: Mapping[str, Any], of: Lengths, bert: Mapping[str, int] | None = None) -> float:
    """Multiply-adds of a training step of the full variant, for each utterance."""
    d, layers = config["d_model"], config["num_layers"]
    text, audio, vision = of.text, of.audio, of.vision
    total = text * config["text_kernel"] * config["text_dim"] * d
    for frames, name in ((audio, "audio"), (vision, "vision")):
        width, hidden, kernel = config[f"{name}_dim"], config[f"{name}_hidden"], config[f"{name}_kernel"]
        total += frames * (4 * hidden * (width + hidden) + kernel * hidden * d)
        # For each frame, in d^2: both directions of the GRU 12, attention's projections 4, FFN 8.
        total += layers * (24 * frames * d**2 + 2 * frames**2 * d)
        # For each token: GRU 12, projections of self-attention 4 and of cross-attention 2, FFN 8. For each
        # frame: source gate 1, keys and values 2.
        total += layers * ((26 * text + 3 * frames) * d**2 + 2 * (text**2 + text * frames) * d)
    if bert is not None:
        w, inner = bert["hidden_size"], bert["intermediate_size"]
        total += bert["num_hidden_layers"] * (text * (4 * w**2 + 2 * w * inner) + 2 * text**2 * w)
    return PASSES * total


def optimiser_bytes(parameters: int) -> int:
    """Memory traffic of a step of Adam in float32."""
    return ADAM_TRAFFIC * 4 * parameters


def gradient_bytes(parameters: int, processes: int) -> float:
    """Bytes that each process sends in an optimiser step: a ring all-reduce in float32."""
    return 2 * (processes - 1) / processes * 4 * parameters


def label_bytes(config: Mapping[str, Any], batch: int, processes: int) -> int:
    """Bytes of labels and features that each process sends in a round to update pseudo-labels everywhere."""
    features = sum(config[f"{name}_features"] for name in ("multimodal", "audio", "vision"))
    return (processes - 1) * batch * 4 * (1 + features)
