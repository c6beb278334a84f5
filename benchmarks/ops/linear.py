"""act(x W^T + b) over packed frames: the first half of a feed-forward network."""

import torch
from torch.nn import functional as F

from benchmarks.common import WIDTH, Bench, Frames, backward_of, count, main
from mmiln import functional


def bench(lengths: list[int]) -> Bench:
    frames = Frames(lengths)
    layer = torch.nn.Linear(WIDTH, 4 * WIDTH)
    x, weights = frames.x, list(layer.parameters())
    padded = frames.pad(x)
    return Bench(
        "linear",
        backward_of(lambda: functional.linear(x, *weights, "relu"), [x, *weights]),
        {
            "PyTorch, same rows": backward_of(lambda: layer(x).relu(), [x, *weights]),
            "PyTorch, padded": backward_of(lambda: F.relu(layer(padded)), [padded, *weights], frames),
        },
        flops=3 * 2 * frames.total * WIDTH * 4 * WIDTH,  # three products
        numbers=3 * (frames.total * 5 * WIDTH + count(weights)),
        frames=frames,
    )


if __name__ == "__main__":
    main(bench, __doc__)
