"""Compares an epoch with random batches and one with batches of utterances of about one length.

python -m benchmarks.order
"""

from __future__ import annotations

import numpy as np

import mmiln
from benchmarks.common import BATCH, arguments, counted, duration, mosei_like, parse, ratio, seconds, table

ORDERS = ("faithful", "window", "buckets")


def main() -> None:
    args = parse(arguments(__doc__))
    split = mosei_like(128 if args.quick else 960)
    longest = np.max([split.lengths(name) for name in split.sequences], axis=0)

    def epoch(order: str) -> None:
        model = mmiln.Model("mosei", order=order)
        model.fit(split, epochs=1, progress=False)

    took = seconds(
        {order: lambda order=order: epoch(order) for order in ORDERS}, quick=args.quick, shortest=0
    )
    rows = []
    for order in ORDERS:
        loader = split.loader(BATCH, shuffle=True, order=order, window=4)
        steps = sum(int(longest[batch["index"]].max()) for batch in loader)
        rows.append([order, duration(took[order]), ratio(took[order], took["faithful"]), f"{steps:,}"])
    print(f"{len(split)} utterances of CMU-MOSEI's lengths, text features given.\n")
    print(table([counted(args.threads), "an epoch", "/ faithful", "steps of recurrent layers"], rows))


if __name__ == "__main__":
    main()
