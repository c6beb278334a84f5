"""Equations (7) and (16): a BiGRU's hidden states, averaged over time and directions."""

import torch

from benchmarks import peer
from benchmarks.common import WIDTH, Bench, Frames, backward_of, count, main
from mmiln import functional


def bench(lengths: list[int]) -> Bench:
    frames = Frames(lengths)
    gru = torch.nn.GRU(WIDTH, WIDTH, bidirectional=True, batch_first=True)
    x, weights = frames.x, list(gru.parameters())
    padded = frames.pad(x)
    layout = peer.Layout.of(frames.lengths_on_cpu, padded.shape[1], x.detach(), pack_bigrus=True)
    if x.is_cuda:
        layout.packing = peer.packing(frames.lengths_on_cpu, padded.shape[1], x.device)

    def packed() -> torch.Tensor:
        return layout.mean(layout.recur(gru, padded)).view(-1, 2, WIDTH).mean(dim=1)

    return Bench(
        "bigru_control",
        backward_of(lambda: functional.bigru_control(x, weights, frames.lengths), [x, *weights]),
        {"PyTorch, packed": backward_of(packed, [padded, *weights])},
        # two directions, three products, input and state times the weights of three gates
        flops=2 * 3 * 2 * frames.total * 3 * WIDTH * 2 * WIDTH,
        numbers=3 * (frames.total * WIDTH + count(weights)),
        frames=frames,
    )


if __name__ == "__main__":
    main(bench, __doc__)
