"""Equation (35): squared error of the score, weighted absolute errors of audio and vision."""

import torch

from benchmarks.common import BATCH, arguments, backward_of, parse, report
from mmiln import functional


def main() -> None:
    args = parse(arguments(__doc__))
    score, audio, vision = scores = [torch.randn(BATCH, requires_grad=True) for _ in range(3)]
    label, *pseudo = torch.rand(3, BATCH).mul(6).sub(3).unbind()

    def peer() -> torch.Tensor:
        loss = (score - label).square()
        for s, y in zip((audio, vision), pseudo, strict=True):
            loss = loss + (y - label).abs().tanh() * (s - y).abs()
        return loss.mean()

    report(
        "task_loss",
        backward_of(lambda: functional.task_loss(score, label, (audio, vision), pseudo), scores),
        {"PyTorch": backward_of(peer, scores)},
        flops=40 * BATCH,  # about 25 an utterance forward (a tanh as 5), 15 backward
        frames=None,
        args=args,
    )


if __name__ == "__main__":
    main()
