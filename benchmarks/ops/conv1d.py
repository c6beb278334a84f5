"""Equation (4): a convolution along time, kernel 3, from vision's LSTM (64 wide) to d."""

import torch

from benchmarks.common import WIDTH, Bench, Frames, backward_of, count, main
from mmiln import functional

HIDDEN, KERNEL = 64, 3


def bench(lengths: list[int]) -> Bench:
    frames = Frames(lengths, HIDDEN)
    conv = torch.nn.Conv1d(HIDDEN, WIDTH, KERNEL, padding=KERNEL // 2)
    x, weights = frames.x, list(conv.parameters())
    padded = frames.pad(x)
    return Bench(
        "conv1d",
        backward_of(lambda: functional.conv1d(x, *weights, frames.lengths), [x, *weights]),
        {
            "PyTorch, padded": backward_of(
                lambda: conv(padded.transpose(1, 2)).transpose(1, 2), [padded, *weights], frames
            )
        },
        flops=3 * 2 * frames.total * KERNEL * HIDDEN * WIDTH,  # three products
        numbers=frames.total * (3 * HIDDEN + 2 * WIDTH) + 3 * count(weights),
        frames=frames,
    )


if __name__ == "__main__":
    main(bench, __doc__)
