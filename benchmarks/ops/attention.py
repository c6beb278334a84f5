"""Equations (10), (15) and (21), between their projections: attention over true keys, without dropout.

`--dropout 0.1` times training's; draws differ then, so that results are not compared.
"""

from torch.nn import functional as F

from benchmarks.common import (
    HEADS,
    WIDTH,
    Bench,
    Frames,
    arguments,
    audio_lengths,
    backward_of,
    parse,
    report,
)
from mmiln import functional


def bench(lengths: list[int], dropout: float = 0.0) -> Bench:
    frames = Frames(lengths)
    inputs = [frames.x.detach().clone().requires_grad_() for _ in range(3)]
    padded = [frames.pad(x) for x in inputs]
    mask = frames.mask[:, None, None]

    def masked() -> object:
        heads = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in padded)
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=mask, dropout_p=dropout)
        return mixed.transpose(1, 2).flatten(2)

    return Bench(
        "attention",
        backward_of(
            lambda: functional.attention(*inputs, frames.lengths, num_heads=HEADS, dropout=dropout, seed=1),
            inputs,
        ),
        {"PyTorch, masked": backward_of(masked, padded, frames)},
        flops=3 * 2 * 2 * sum(t * t for t in frames.lengths) * WIDTH,  # six products of T x T x d
        numbers=12 * frames.total * WIDTH,  # forward: 4 arrays; backward: 5 read, 3 written
        frames=frames,
        compare=dropout == 0,
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--dropout", type=float, default=0.0, help="on the attention probabilities")
    args = parse(parser)
    report(bench(audio_lengths(), args.dropout), args)


if __name__ == "__main__":
    main()
