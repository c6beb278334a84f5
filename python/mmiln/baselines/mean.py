"""A control: predicts the mean of the training labels for every utterance.

    y = m,  m = argmin sum_i (m - y_i)^2 = mean of y_i

A model that is not better than this has learnt nothing. Metrics of a constant are degenerate: the correlation
with labels is undefined, and accuracy and F1 are those of a single predicted class.

An optimiser would leave m near the mean only, and early stopping by MAE would choose the m nearest to the
median of the validation labels. So after each step m is set to the mean of all labels that the run has seen,
which at the end of an epoch is the mean of the training labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .inputs import Inputs
from .network import Network, Outputs, Settings, Widths


class MeanSettings(Settings):
    """The control adds no hyper-parameters, and of the common ones uses ``batch_size`` alone."""


class Mean(Network):
    """The mean of the training labels. A control; metrics of a constant are degenerate.

    It reads nothing of an utterance, and does not keep a text encoder.
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
        return {"total": x.mean((outputs["M"] - x.labels) ** 2)}

    def begin_training(self, samples: int | None) -> None:
        """Resets the sum and the number of labels seen."""
        # float64, as the sum runs over a whole run
        zero = torch.zeros((), dtype=torch.float64, device=self.mean.device)
        self.register_buffer("sum_of_labels", zero, persistent=False)
        self.register_buffer("seen_labels", zero.clone(), persistent=False)

    @torch.no_grad()
    def after_step(self, outputs: Outputs, x: Inputs) -> None:
        """Sets the score to the mean of the labels so far, which replaces the optimiser's step."""
        assert x.labels is not None
        weights = torch.ones_like(x.labels) if x.weights is None else x.weights
        self.sum_of_labels += (weights * x.labels).sum()
        self.seen_labels += weights.sum()
        self.mean.copy_(self.sum_of_labels / self.seen_labels)
