"""Equations (24) and (25): central moment discrepancy of two sets of control vectors."""

import torch

from benchmarks import peer
from benchmarks.common import BATCH, WIDTH, arguments, backward_of, parse, report
from mmiln import functional


def main() -> None:
    args = parse(arguments(__doc__))
    controls = [torch.rand(BATCH, WIDTH).mul(2).sub(1).requires_grad_() for _ in range(2)]
    report(
        "cmd",
        backward_of(lambda: functional.cmd(*controls), controls),
        {"PyTorch": backward_of(lambda: peer.cmd(*controls), controls)},
        flops=3 * 2 * 10 * BATCH * WIDTH,  # mean, centring, four powers and their means; backward twice
        frames=None,
        args=args,
    )


if __name__ == "__main__":
    main()
