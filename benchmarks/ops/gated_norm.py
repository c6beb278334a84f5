"""Equations (11) and (22): LN(g_c * R + g_r * X), the gates an utterance's."""

import torch

from benchmarks.common import BATCH, WIDTH, Frames, arguments, backward_of, parse, report
from mmiln import functional


def main() -> None:
    args = parse(arguments(__doc__))
    frames = Frames()
    norm = torch.nn.LayerNorm(WIDTH)
    x, r = frames.x, torch.randn(frames.total, WIDTH, requires_grad=True)
    gates = [torch.rand(BATCH, WIDTH, requires_grad=True) for _ in range(2)]
    weights = list(norm.parameters())
    padded = [frames.pad(r), frames.pad(x)]

    def ours() -> torch.Tensor:
        return functional.gated_norm(r, x, *weights, frames.lengths, compound=gates[0], retain=gates[1])

    def same_rows() -> torch.Tensor:
        compound, retain = (g.repeat_interleave(frames.lengths_tensor, dim=0) for g in gates)
        return norm(torch.addcmul(compound * r, retain, x))

    def over_padding() -> torch.Tensor:
        compound, retain = (g[:, None] for g in gates)
        return norm(torch.addcmul(compound * padded[0], retain, padded[1]))

    report(
        "gated_norm",
        backward_of(ours, [r, x, *gates, *weights]),
        {
            "PyTorch, same rows": backward_of(same_rows, [r, x, *gates, *weights]),
            "PyTorch, padded": backward_of(over_padding, [*padded, *gates, *weights], frames),
        },
        flops=30 * frames.total * WIDTH,  # about 10 an entry forward, 20 backward
        frames=frames,
        args=args,
    )


if __name__ == "__main__":
    main()
