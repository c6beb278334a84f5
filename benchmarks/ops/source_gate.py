"""Equations (17) and (18): S = sigmoid(W_s A + b_s) * A."""

import torch

from benchmarks.common import WIDTH, Frames, arguments, backward_of, parse, report
from mmiln import functional


def main() -> None:
    args = parse(arguments(__doc__))
    frames = Frames()
    layer = torch.nn.Linear(WIDTH, WIDTH)
    a, weights = frames.x, list(layer.parameters())
    padded = frames.pad(a)
    report(
        "source_gate",
        backward_of(lambda: functional.source_gate(a, *weights)[0], [a, *weights]),
        {
            "PyTorch, same rows": backward_of(lambda: layer(a).sigmoid() * a, [a, *weights]),
            "PyTorch, padded": backward_of(
                lambda: layer(padded).sigmoid() * padded, [padded, *weights], frames
            ),
        },
        flops=3 * 2 * frames.total * WIDTH * WIDTH,  # three products
        frames=frames,
        args=args,
    )


if __name__ == "__main__":
    main()
