"""The Rust core. Not a public interface: use :class:`mmiln.Model` and :mod:`mmiln.functional`."""

from pathlib import Path
from typing import Final, final

import numpy as np
import numpy.typing as npt
from torch import Tensor

__all__ = [
    "PRESETS",
    "TORCH_VERSION",
    "Batch",
    "Core",
    "adam_",
    "attention",
    "bigru_control",
    "check_config",
    "cmd",
    "compile_kernels",
    "conv1d",
    "emulate_kernels",
    "feed_forward_norm",
    "gated_norm",
    "linear",
    "lstm",
    "mean_pool",
    "metrics_of",
    "orthogonality",
    "preset_json",
    "source_gate",
    "task_loss",
    "ulgm_labels",
]

TORCH_VERSION: Final[str]
PRESETS: Final[list[str]]

def preset_json(name: str) -> tuple[str, str]: ...
def check_config(model: str, train: str) -> None: ...
def metrics_of(
    truth: npt.NDArray[np.float64], prediction: npt.NDArray[np.float64]
) -> list[tuple[str, float]]: ...

@final
class Batch:
    def __new__(
        cls,
        *,
        device: str,
        dtype: str,
        padding_side: str = "right",
        text: Tensor | list[Tensor] | None = None,
        text_lengths: list[int] | None = None,
        text_bert: list[Tensor] | None = None,
        audio: Tensor | list[Tensor] | None = None,
        audio_lengths: list[int] | None = None,
        vision: Tensor | list[Tensor] | None = None,
        vision_lengths: list[int] | None = None,
        labels: Tensor | None = None,
        index: Tensor | None = None,
    ) -> Batch: ...
    def __len__(self) -> int: ...
    def parts(self) -> dict[str, Tensor]: ...
    def shapes(self) -> list[int]: ...
    def copy(self) -> Batch: ...
    def copy_from(self, other: Batch) -> None: ...
    def bytes(self) -> Tensor: ...

@final
class Core:
    def __new__(
        cls,
        model: str,
        text_encoder: str | None,
        *,
        seed: int,
        device: str,
        dtype: str,
        precision: str = "float32",
    ) -> Core: ...
    def scores(self, batch: Batch) -> Tensor: ...
    def forward(self, batch: Batch, intermediates: bool) -> dict[str, Tensor | list[Tensor]]: ...
    def attention_maps(self, batch: Batch) -> dict[str, list[Tensor]]: ...
    def losses(self, batch: Batch) -> dict[str, Tensor]: ...
    def gradients(self, batch: Batch) -> dict[str, Tensor]: ...
    def keeps_pseudo_labels(self) -> bool: ...
    def frozen(self) -> list[str]: ...
    def begin_training(self, samples: int | None, train: str) -> None: ...
    def begin_epoch(self, epoch: int) -> None: ...
    def train_step(self, batch: Batch) -> Tensor: ...
    def prepare_step(self, batch: Batch) -> None: ...
    def compute_step(self, batch: Batch) -> Tensor: ...
    def finish_step(self) -> None: ...
    def step_is_last_of_window(self) -> bool: ...
    def not_capturable(self) -> str | None: ...
    def undone_steps(self) -> int: ...
    def end_epoch(self) -> None: ...
    def keep_best(self) -> None: ...
    def restore_best(self) -> None: ...
    def training_state(self) -> tuple[dict[str, Tensor], str]: ...
    def load_training_state(self, state: dict[str, Tensor], counters: str) -> None: ...
    def pseudo_labels(self) -> dict[str, Tensor] | None: ...
    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor], prefix: str) -> None: ...

def linear(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor: ...
def conv1d(x: Tensor, weight: Tensor, bias: Tensor, lengths: list[int]) -> Tensor: ...
def lstm(x: Tensor, weights: list[Tensor], lengths: list[int]) -> Tensor: ...
def bigru_control(x: Tensor, weights: list[Tensor], lengths: list[int]) -> Tensor: ...
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_lengths: list[int],
    key_lengths: list[int],
    num_heads: int,
    dropout: float,
    seed: int,
) -> Tensor: ...
def source_gate(a: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]: ...
def gated_norm(
    r: Tensor,
    x: Tensor,
    compound: Tensor | None,
    retain: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    lengths: list[int],
    eps: float,
    dropout: float,
    seed: int,
) -> Tensor: ...
def feed_forward_norm(
    y: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    eps: float,
    dropout: float,
    seed: int,
) -> Tensor: ...
def mean_pool(x: Tensor, lengths: list[int]) -> Tensor: ...
def cmd(p: Tensor, q: Tensor) -> Tensor: ...
def orthogonality(p: Tensor, q: Tensor, normalize: bool) -> Tensor: ...
def task_loss(score: Tensor, label: Tensor, scores: list[Tensor], pseudo_labels: list[Tensor]) -> Tensor: ...
def ulgm_labels(
    old: Tensor,
    label: Tensor,
    features: Tensor,
    positive: Tensor,
    negative: Tensor,
    features_m: Tensor,
    positive_m: Tensor,
    negative_m: Tensor,
    epoch: int,
    bound: float,
) -> Tensor: ...
def adam_(
    weights: Tensor,
    grad: Tensor,
    first: Tensor,
    second: Tensor,
    step: int,
    lr: float,
    weight_decay: float,
    decoupled: bool,
) -> None: ...
def compile_kernels(capability: int, dtype: str) -> list[tuple[str, str]]: ...
def emulate_kernels(folder: Path | None) -> None: ...
