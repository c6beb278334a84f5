"""Equations (1) and (2): an LSTM over the audio frames, 5 to 32 wide as in the preset."""

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.common import Frames, arguments, backward_of, parse, report
from mmiln import functional

INPUT, HIDDEN = 5, 32


def main() -> None:
    args = parse(arguments(__doc__))
    frames = Frames(width=INPUT)
    lstm = torch.nn.LSTM(INPUT, HIDDEN, batch_first=True)
    x, weights = frames.x, list(lstm.parameters())
    padded = frames.pad(x)

    def packed() -> torch.Tensor:
        packing = pack_padded_sequence(padded, frames.lengths_tensor, batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(lstm(packing)[0], batch_first=True)[0]

    report(
        "lstm",
        backward_of(lambda: functional.lstm(x, weights, frames.lengths), [x, *weights]),
        {
            "PyTorch, packed": backward_of(packed, [padded, *weights], frames),
            "PyTorch, padded": backward_of(lambda: lstm(padded)[0], [padded, *weights], frames),
        },
        flops=3 * 2 * frames.total * 4 * HIDDEN * (INPUT + HIDDEN),  # three products
        frames=frames,
        args=args,
    )


if __name__ == "__main__":
    main()
