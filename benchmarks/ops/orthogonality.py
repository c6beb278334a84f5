"""Equation (26): how far two sets of control vectors are from orthogonal."""

import torch

from benchmarks import peer
from benchmarks.common import BATCH, WIDTH, arguments, backward_of, parse, report
from mmiln import functional


def main() -> None:
    args = parse(arguments(__doc__))
    controls = [torch.rand(BATCH, WIDTH).mul(2).sub(1).requires_grad_() for _ in range(2)]
    report(
        "orthogonality",
        backward_of(lambda: functional.orthogonality(*controls), controls),
        {"PyTorch": backward_of(lambda: peer.orthogonality(*controls), controls)},
        flops=3 * 2 * BATCH * WIDTH * WIDTH,  # three products
        frames=None,
        args=args,
    )


if __name__ == "__main__":
    main()
