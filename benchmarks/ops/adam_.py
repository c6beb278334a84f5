"""One step of Adam with coupled decay over all weights of the preset's model without its BERT."""

import itertools

import torch

import mmiln
from benchmarks.common import Bench, Call, main
from mmiln import functional

LR, DECAY = 1e-3, 1e-3


def bench(lengths: list[int]) -> Bench:
    model = mmiln.Model("mosi", text_dim=768, audio_dim=5, vision_dim=20)
    sizes = [weight.numel() for weight in model.state_dict().values()]
    grad, first, second = torch.randn(sum(sizes)), torch.zeros(sum(sizes)), torch.zeros(sum(sizes))
    weights = torch.zeros(sum(sizes))
    steps = itertools.count(1)

    def ours() -> list[torch.Tensor]:
        functional.adam_(weights, grad, first, second, step=next(steps), lr=LR, weight_decay=DECAY)
        return [weights]

    def fused(sizes: list[int]) -> Call:
        flat = torch.zeros(sum(sizes))
        parameters = [torch.nn.Parameter(part) for part in flat.split(sizes)]
        for parameter, part in zip(parameters, grad.split(sizes), strict=True):
            parameter.grad = part
        adam = torch.optim.Adam(parameters, lr=LR, weight_decay=DECAY, fused=True)

        def step() -> list[torch.Tensor]:
            adam.step()
            return [flat]

        return step

    return Bench(
        "adam_",
        ours,
        {"PyTorch, fused, one tensor": fused([sum(sizes)]), "PyTorch, fused, by name": fused(sizes)},
        flops=16 * sum(sizes),  # for each weight: decay 2, moments 7, the update 7
        numbers=7 * sum(sizes),  # weight, gradient and moments read, all but the gradient written
    )


if __name__ == "__main__":
    main(bench, __doc__)
