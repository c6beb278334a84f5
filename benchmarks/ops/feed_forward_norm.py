"""Equations (12) and (23): LN(Y + W2 relu(W1 Y + b1) + b2)."""

import torch

from benchmarks.common import WIDTH, Bench, Frames, backward_of, count, main
from mmiln import functional


def bench(lengths: list[int]) -> Bench:
    frames = Frames(lengths)
    first, second = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)
    norm = torch.nn.LayerNorm(WIDTH)
    y, weights = frames.x, [p for part in (first, second, norm) for p in part.parameters()]
    padded = frames.pad(y)

    def peer(y: torch.Tensor) -> torch.Tensor:
        return norm(y + second(first(y).relu()))

    return Bench(
        "feed_forward_norm",
        backward_of(lambda: functional.feed_forward_norm(y, *weights), [y, *weights]),
        {
            "PyTorch, same rows": backward_of(lambda: peer(y), [y, *weights]),
            "PyTorch, padded": backward_of(lambda: peer(padded), [padded, *weights], frames),
        },
        flops=3 * 2 * frames.total * 2 * WIDTH * 4 * WIDTH,  # three products of each layer
        numbers=5 * frames.total * WIDTH + 3 * count(weights),
        frames=frames,
    )


if __name__ == "__main__":
    main(bench, __doc__)
