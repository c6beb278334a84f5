"""Equation (35): squared error of the score, weighted absolute errors of audio and vision."""

import torch

from benchmarks.common import Bench, backward_of, main
from mmiln import functional


def bench(lengths: list[int]) -> Bench:
    batch = len(lengths)
    score, audio, vision = scores = [torch.randn(batch, requires_grad=True) for _ in range(3)]
    label, *pseudo = torch.rand(3, batch).mul(6).sub(3).unbind()

    def peer() -> torch.Tensor:
        loss = (score - label).square()
        for s, y in zip((audio, vision), pseudo, strict=True):
            loss = loss + (y - label).abs().tanh() * (s - y).abs()
        return loss.mean()

    return Bench(
        "task_loss",
        backward_of(lambda: functional.task_loss(score, label, (audio, vision), pseudo), scores),
        {"PyTorch": backward_of(peer, scores)},
        flops=40 * batch,  # about 25 an utterance forward (a tanh as 5), 15 backward
        numbers=15 * batch,  # six read; back those, and three written
    )


if __name__ == "__main__":
    main(bench, __doc__)
