"""What a training step costs, by formula: multiply-adds, bytes of memory, bytes between processes.

The formulas are those of docs/scale.md; `python -m benchmarks.parallel` holds them against measured times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

#: Forward, and backward to inputs and to weights.
PASSES = 3
#: Weights, gradients, two moments: read by Adam; all but the gradients written, those cleared.
ADAM_TRAFFIC = 8


@dataclass(frozen=True)
class Lengths:
    """Mean true lengths of an utterance; attention's share is a little higher than they say."""

    text: float
    audio: float
    vision: float


def multiply_adds(config: Mapping[str, Any], of: Lengths, bert: Mapping[str, int] | None = None) -> float:
    """Those of a training step, an utterance; of the full variant."""
    d, layers = config["d_model"], config["num_layers"]
    text, audio, vision = of.text, of.audio, of.vision
    total = text * config["text_kernel"] * config["text_dim"] * d
    for frames, name in ((audio, "audio"), (vision, "vision")):
        width, hidden, kernel = config[f"{name}_dim"], config[f"{name}_hidden"], config[f"{name}_kernel"]
        total += frames * (4 * hidden * (width + hidden) + kernel * hidden * d)
        # A frame: both directions of the GRU 12, attention's maps 4, FFN 8.
        total += layers * (24 * frames * d**2 + 2 * frames**2 * d)
        # A token: GRU 12, maps of self-attention 4 and of cross-attention 2, FFN 8. A frame: source gate 1,
        # keys and values 2.
        total += layers * ((26 * text + 3 * frames) * d**2 + 2 * (text**2 + text * frames) * d)
    if bert is not None:
        w, inner = bert["hidden_size"], bert["intermediate_size"]
        total += bert["num_hidden_layers"] * (text * (4 * w**2 + 2 * w * inner) + 2 * text**2 * w)
    return PASSES * total


def optimiser_bytes(parameters: int) -> int:
    """Memory traffic of a step of Adam in float32."""
    return ADAM_TRAFFIC * 4 * parameters


def gradient_bytes(parameters: int, processes: int) -> float:
    """What each process sends in a step of the optimiser: a ring's sum and its distribution, float32."""
    return 2 * (processes - 1) / processes * 4 * parameters


def label_bytes(config: Mapping[str, Any], batch: int, processes: int) -> int:
    """What each process sends in a round, so that all move the same pseudo-labels: labels and features."""
    features = sum(config[f"{name}_features"] for name in ("multimodal", "audio", "vision"))
    return (processes - 1) * batch * 4 * (1 + features)
