"""Equations (31) to (34): new pseudo-labels of a batch from its distances to the centres."""

import torch

from benchmarks import peer
from benchmarks.common import Bench, main
from mmiln import functional

MULTIMODAL, AUDIO = 128, 16  # widths of F_m and F_a in the preset


def bench(lengths: list[int]) -> Bench:
    batch = len(lengths)
    old, label = torch.rand(2, batch).mul(6).sub(3).unbind()
    features, features_m = torch.rand(batch, AUDIO), torch.rand(batch, MULTIMODAL)
    centres, centres_m = torch.rand(2, AUDIO).unbind(), torch.rand(2, MULTIMODAL).unbind()

    def ours() -> list[torch.Tensor]:
        new = functional.ulgm_labels(
            old=old, label=label, epoch=2, bound=3.0,
            features=features, positive=centres[0], negative=centres[1],
            features_m=features_m, positive_m=centres_m[0], negative_m=centres_m[1],
        )  # fmt: skip
        return [new]

    def theirs() -> list[torch.Tensor]:
        alpha, alpha_m = peer.polarity(features, *centres), peer.polarity(features_m, *centres_m)
        return [peer.relabel(old, label, alpha, alpha_m, 2, 3.0)]

    return Bench(
        "ulgm_labels",
        ours,
        {"PyTorch": theirs},
        flops=batch * (2 * 3 * (MULTIMODAL + AUDIO) + 20),  # two distances each; some 20 a label
        numbers=(batch + 2) * (MULTIMODAL + AUDIO) + 3 * batch,
    )


if __name__ == "__main__":
    main(bench, __doc__)
