"""Equations (10), (15) and (21), between their projections: attention over true keys, without dropout.

`--dropout 0.1` times training's; draws differ then, so that results are not compared.
"""

from torch.nn import functional as F

from benchmarks.common import HEADS, WIDTH, Frames, arguments, backward_of, parse, report
from mmiln import functional


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--dropout", type=float, default=0.0, help="on the attention probabilities")
    args = parse(parser)
    frames = Frames()
    inputs = [frames.x.detach().clone().requires_grad_() for _ in range(3)]
    padded = [frames.pad(x) for x in inputs]
    mask = frames.mask[:, None, None]

    def masked() -> object:
        heads = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in padded)
        mixed = F.scaled_dot_product_attention(*heads, attn_mask=mask, dropout_p=args.dropout)
        return mixed.transpose(1, 2).flatten(2)

    report(
        "attention",
        backward_of(
            lambda: functional.attention(
                *inputs, frames.lengths, num_heads=HEADS, dropout=args.dropout, seed=1
            ),
            inputs,
        ),
        {"PyTorch, masked": backward_of(masked, padded, frames)},
        flops=3 * 2 * 2 * sum(t * t for t in frames.lengths) * WIDTH,  # six products of T x T x d
        frames=frames,
        args=args,
        compare=args.dropout == 0,
    )


if __name__ == "__main__":
    main()
