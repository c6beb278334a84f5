"""Equations (24) and (25): central moment discrepancy of two sets of control vectors."""

import torch

from benchmarks import peer
from benchmarks.common import WIDTH, Bench, backward_of, main
from mmiln import functional


def bench(lengths: list[int]) -> Bench:
    controls = [torch.rand(len(lengths), WIDTH).mul(2).sub(1).requires_grad_() for _ in range(2)]
    return Bench(
        "cmd",
        backward_of(lambda: functional.cmd(*controls), controls),
        {"PyTorch": backward_of(lambda: peer.cmd(*controls), controls)},
        flops=3
        * 2
        * 10
        * len(lengths)
        * WIDTH,  # mean, centring, four powers and their means; backward twice
        numbers=6 * len(lengths) * WIDTH,
    )


if __name__ == "__main__":
    main(bench, __doc__)
