"""Equation (4): a convolution along time, kernel 3, from vision's LSTM (64 wide) to d."""

import torch

from benchmarks.common import WIDTH, Frames, arguments, backward_of, parse, report
from mmiln import functional

HIDDEN, KERNEL = 64, 3


def main() -> None:
    args = parse(arguments(__doc__))
    frames = Frames(width=HIDDEN)
    conv = torch.nn.Conv1d(HIDDEN, WIDTH, KERNEL, padding=KERNEL // 2)
    x, weights = frames.x, list(conv.parameters())
    padded = frames.pad(x)
    report(
        "conv1d",
        backward_of(lambda: functional.conv1d(x, *weights, frames.lengths), [x, *weights]),
        {
            "PyTorch, padded": backward_of(
                lambda: conv(padded.transpose(1, 2)).transpose(1, 2), [padded, *weights], frames
            )
        },
        flops=3 * 2 * frames.total * KERNEL * HIDDEN * WIDTH,  # three products
        frames=frames,
        args=args,
    )


if __name__ == "__main__":
    main()
