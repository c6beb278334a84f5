"""Equations (17) and (18): S = sigmoid(W_s A + b_s) * A."""

import torch

from benchmarks.common import WIDTH, Bench, Frames, backward_of, count, main
from mmiln import functional


def bench(lengths: list[int]) -> Bench:
    frames = Frames(lengths)
    layer = torch.nn.Linear(WIDTH, WIDTH)
    a, weights = frames.x, list(layer.parameters())
    padded = frames.pad(a)
    return Bench(
        "source_gate",
        backward_of(lambda: functional.source_gate(a, *weights)[0], [a, *weights]),
        {
            "PyTorch, same rows": backward_of(lambda: layer(a).sigmoid() * a, [a, *weights]),
            "PyTorch, padded": backward_of(
                lambda: layer(padded).sigmoid() * padded, [padded, *weights], frames
            ),
        },
        flops=3 * 2 * frames.total * WIDTH * WIDTH,  # three products
        numbers=7 * frames.total * WIDTH + 3 * count(weights),
        frames=frames,
    )


if __name__ == "__main__":
    main(bench, __doc__)
