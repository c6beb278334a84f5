"""Equation (26): how far two sets of control vectors are from orthogonal."""

import torch

from benchmarks import peer
from benchmarks.common import WIDTH, Bench, backward_of, main
from mmiln import functional


def bench(lengths: list[int]) -> Bench:
    controls = [torch.rand(len(lengths), WIDTH).mul(2).sub(1).requires_grad_() for _ in range(2)]
    return Bench(
        "orthogonality",
        backward_of(lambda: functional.orthogonality(*controls), controls),
        {"PyTorch": backward_of(lambda: peer.orthogonality(*controls), controls)},
        flops=3 * 2 * len(lengths) * WIDTH * WIDTH,  # three products
        numbers=6 * len(lengths) * WIDTH,
    )


if __name__ == "__main__":
    main(bench, __doc__)
