"""Equations (7) and (16): a BiGRU's hidden states, averaged over time and directions."""

import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.common import WIDTH, Frames, arguments, backward_of, parse, report
from mmiln import functional


def main() -> None:
    args = parse(arguments(__doc__))
    frames = Frames()
    gru = torch.nn.GRU(WIDTH, WIDTH, bidirectional=True, batch_first=True)
    x, weights = frames.x, list(gru.parameters())
    padded = frames.pad(x)
    averages = (frames.mask / frames.lengths_tensor[:, None])[:, None]

    def packed() -> torch.Tensor:
        packing = pack_padded_sequence(padded, frames.lengths_tensor, batch_first=True, enforce_sorted=False)
        states = pad_packed_sequence(gru(packing)[0], batch_first=True)[0]
        return torch.bmm(averages, states).view(-1, 2, WIDTH).mean(dim=1)

    report(
        "bigru_control",
        backward_of(lambda: functional.bigru_control(x, weights, frames.lengths), [x, *weights]),
        {"PyTorch, packed": backward_of(packed, [padded, *weights])},
        # two directions, three products, of input and state with three gates' weights
        flops=2 * 3 * 2 * frames.total * 3 * WIDTH * 2 * WIDTH,
        frames=frames,
        args=args,
    )


if __name__ == "__main__":
    main()
