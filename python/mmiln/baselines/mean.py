"""A control: the mean of the training labels, whatever is said.

    y = m,  m = argmin sum_i (m - y_i)^2 = mean of y_i

What a model must beat to have learnt anything. Metrics of a constant are degenerate: the correlation with
labels is undefined, and accuracy and F1 are those of naming one class for all.

Steps of an optimiser would leave m about the mean, and early stopping by MAE would take whichever step's m is
nearest to the validation's median. So m is set, after each step, to the mean of all labels that the run has
seen, which at the end of each epoch is that of the training labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .inputs import Inputs
from .network import Network, Outputs, Settings, Widths


class MeanSettings(Settings):
    """It has no hyper-parameters, and uses none but ``batch_size``."""


class Mean(Network):
    """The mean of the training labels. A control; metrics of a constant are degenerate.

    Nothing of an utterance is read, and a text encoder is not kept.
    """

    Settings = MeanSettings
    NEEDS = ()
    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {"mosi": {}, "mosei": {}}

    sum_of_labels: Tensor
    seen_labels: Tensor

    def __init__(self, settings: MeanSettings, widths: Widths, bert: nn.Module | None = None) -> None:
        super().__init__(settings, widths)
        self.mean = nn.Parameter(torch.zeros(()))

    def forward(self, x: Inputs) -> Outputs:
        """``M`` (B,), all equal."""
        return {"M": self.mean.repeat(len(x))}

    def losses(self, outputs: Outputs, x: Inputs) -> Outputs:
        """The mean square error, which is least at the mean."""
        assert x.labels is not None
        return {"total": ((outputs["M"] - x.labels) ** 2).mean()}

    def begin_training(self, samples: int | None) -> None:
        """A new run has seen no labels."""
        # float64, for a sum over a whole run
        zero = torch.zeros((), dtype=torch.float64, device=self.mean.device)
        self.register_buffer("sum_of_labels", zero, persistent=False)
        self.register_buffer("seen_labels", zero.clone(), persistent=False)

    @torch.no_grad()
    def after_step(self, outputs: Outputs, x: Inputs) -> None:
        """The mean of the labels so far, in place of the optimiser's step."""
        assert x.labels is not None
        self.sum_of_labels += x.labels.sum()
        self.seen_labels += len(x.labels)
        self.mean.copy_(self.sum_of_labels / self.seen_labels)
