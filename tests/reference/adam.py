"""Adam with coupled L2 decay, AdamW, and the rates that belong to each parameter name."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def groups(names: Mapping[str, Any], train_config: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """(learning rate, decay) of every parameter name."""
    rates = {}
    for name in names:
        if name.startswith("text.bert."):
            undecayed = name.endswith(".bias") or "LayerNorm" in name
            rates[name] = (
                train_config["lr_text"],
                0.0 if undecayed else train_config["decay_text"],
            )
        elif name.startswith("audio."):
            rates[name] = (train_config["lr_audio"], train_config["decay_audio"])
        elif name.startswith("vision."):
            rates[name] = (train_config["lr_vision"], train_config["decay_vision"])
        else:
            rates[name] = (train_config["lr_other"], train_config["decay_other"])
    return rates


class Adam:
    """`optimizer`: "adam" adds the decay to the gradient, "adamw" applies it to the weight."""

    def __init__(
        self,
        params: Mapping[str, Tensor],
        rates: Mapping[str, tuple[float, float]],
        optimizer: str = "adam",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if optimizer not in ("adam", "adamw"):
            raise ValueError(f"optimizer must be adam or adamw, got {optimizer}")
        self.params, self.rates, self.optimizer = params, rates, optimizer
        self.betas, self.eps = betas, eps
        self.steps = dict.fromkeys(params, 0)
        self.mean = {name: torch.zeros_like(p) for name, p in params.items()}
        self.square = {name: torch.zeros_like(p) for name, p in params.items()}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor | None]) -> None:
        """Changes the parameters in place; one without a gradient is left alone."""
        beta1, beta2 = self.betas
        for name, p in self.params.items():
            g = gradients.get(name)
            if g is None:
                continue
            lr, decay = self.rates[name]
            if self.optimizer == "adam":
                g = g + decay * p
            else:
                p *= 1 - lr * decay
            self.steps[name] += 1
            t = self.steps[name]
            self.mean[name] = beta1 * self.mean[name] + (1 - beta1) * g
            self.square[name] = beta2 * self.square[name] + (1 - beta2) * g * g
            mean = self.mean[name] / (1 - beta1**t)
            square = self.square[name] / (1 - beta2**t)
            p -= lr * mean / (square.sqrt() + self.eps)
