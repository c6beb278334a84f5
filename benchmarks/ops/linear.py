"""act(x W^T + b) over packed frames: the first half of a feed-forward network."""

import torch
from torch.nn import functional as F

from benchmarks.common import WIDTH, Frames, arguments, backward_of, parse, report
from mmiln import functional


def main() -> None:
    args = parse(arguments(__doc__))
    frames = Frames()
    layer = torch.nn.Linear(WIDTH, 4 * WIDTH)
    x, weights = frames.x, list(layer.parameters())
    padded = frames.pad(x)
    report(
        "linear",
        backward_of(lambda: functional.linear(x, *weights, "relu"), [x, *weights]),
        {
            "PyTorch, same rows": backward_of(lambda: layer(x).relu(), [x, *weights]),
            "PyTorch, padded": backward_of(lambda: F.relu(layer(padded)), [padded, *weights], frames),
        },
        flops=3 * 2 * frames.total * WIDTH * 4 * WIDTH,  # three products
        frames=frames,
        args=args,
    )


if __name__ == "__main__":
    main()
