"""Equations (11) and (22): LN(g_c * R + g_r * X), with gates for each utterance."""

import torch

from benchmarks.common import WIDTH, Bench, Frames, backward_of, main
from mmiln import functional


def bench(lengths: list[int]) -> Bench:
    frames = Frames(lengths)
    norm = torch.nn.LayerNorm(WIDTH)
    x, r = frames.x, torch.randn(frames.total, WIDTH, requires_grad=True)
    gates = [torch.rand(len(lengths), WIDTH, requires_grad=True) for _ in range(2)]
    weights = list(norm.parameters())
    padded = [frames.pad(r), frames.pad(x)]

    def ours() -> torch.Tensor:
        return functional.gated_norm(r, x, *weights, frames.lengths, compound=gates[0], retain=gates[1])

    def same_rows() -> torch.Tensor:
        compound, retain = (
            g.repeat_interleave(frames.lengths_tensor, dim=0, output_size=frames.total) for g in gates
        )
        return norm(torch.addcmul(compound * r, retain, x))

    def over_padding() -> torch.Tensor:
        compound, retain = (g[:, None] for g in gates)
        return norm(torch.addcmul(compound * padded[0], retain, padded[1]))

    return Bench(
        "gated_norm",
        backward_of(ours, [r, x, *gates, *weights]),
        {
            "PyTorch, same rows": backward_of(same_rows, [r, x, *gates, *weights]),
            "PyTorch, padded": backward_of(over_padding, [*padded, *gates, *weights], frames),
        },
        flops=30 * frames.total * WIDTH,  # for each entry about 10 in forward, 20 in backward
        numbers=8 * frames.total * WIDTH + 6 * len(lengths) * WIDTH,  # gates have one row for each utterance
        frames=frames,
    )


if __name__ == "__main__":
    main(bench, __doc__)
