"""Equations (1) and (2): an LSTM over the audio frames, 5 to 32 wide as in the preset."""

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.common import Bench, Frames, backward_of, count, main
from mmiln import functional

INPUT, HIDDEN = 5, 32


def bench(lengths: list[int]) -> Bench:
    frames = Frames(lengths, INPUT)
    lstm = torch.nn.LSTM(INPUT, HIDDEN, batch_first=True)
    x, weights = frames.x, list(lstm.parameters())
    padded = frames.pad(x)

    def packed() -> torch.Tensor:
        packing = pack_padded_sequence(padded, frames.lengths_on_cpu, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(lstm(packing)[0], batch_first=True)[0]

    return Bench(
        "lstm",
        backward_of(lambda: functional.lstm(x, weights, frames.lengths), [x, *weights]),
        {
            "PyTorch, packed": backward_of(packed, [padded, *weights], frames),
            "PyTorch, padded": backward_of(lambda: lstm(padded)[0], [padded, *weights], frames),
        },
        flops=3 * 2 * frames.total * 4 * HIDDEN * (INPUT + HIDDEN),  # three products
        numbers=3 * (frames.total * (INPUT + HIDDEN) + count(weights)),
        frames=frames,
    )


if __name__ == "__main__":
    main(bench, __doc__)
