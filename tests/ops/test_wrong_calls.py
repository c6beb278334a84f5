"""Wrong calls of `mmiln.functional`: each has its exception and names the argument, and harms nothing."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmiln import functional as F
from mmiln.errors import BatchError, ConfigError, DeviceError, MmilnError
from support.functional_cases import Draw

Call = dict[str, Any]
EITHER = (BatchError, ConfigError)
LENGTHS = [2, 1, 3]
draw = Draw(0)
X, GATES, ROW, SQUARE = draw(6, 4), draw(3, 4), draw(4), draw(4, 4)
LSTM = [draw(20, 4), draw(20, 5), draw(20), draw(20)]
GRU = [draw(12, 4), draw(12, 4), draw(12), draw(12)] * 2
NORM = {"norm_weight": ROW, "norm_bias": ROW}

GOOD: dict[str, Call] = {
    "linear": {"x": X, "weight": draw(5, 4), "bias": draw(5)},
    "conv1d": {"x": X, "weight": draw(5, 4, 3), "bias": draw(5), "lengths": LENGTHS},
    "lstm": {"x": X, "weights": LSTM, "lengths": LENGTHS},
    "bigru_control": {"x": X, "weights": GRU, "lengths": LENGTHS},
    "attention": {
        "query": X, "key": draw(6, 4), "value": draw(6, 4),
        "query_lengths": LENGTHS, "key_lengths": [1, 3, 2], "num_heads": 2,
    },
    "source_gate": {"a": X, "weight": SQUARE, "bias": ROW},
    "gated_norm": {
        "r": X, "x": X, "weight": ROW, "bias": ROW, "lengths": LENGTHS, "compound": GATES, "retain": GATES,
    },
    "feed_forward_norm": {
        "y": X, "weight1": draw(16, 4), "bias1": draw(16), "weight2": draw(4, 16), "bias2": ROW, **NORM,
    },
    "mean_pool": {"x": X, "lengths": LENGTHS},
    "cmd": {"p": GATES, "q": GATES * 0.5},
    "orthogonality": {"p": GATES, "q": GATES * 0.5},
    "task_loss": {"score": ROW, "label": ROW + 1, "scores": [ROW], "pseudo_labels": [ROW - 1]},
    "ulgm_labels": {
        "old": draw(6), "label": draw(6), "features": X, "positive": ROW, "negative": -ROW,
        "features_m": draw(6, 3), "positive_m": draw(3), "negative_m": draw(3), "epoch": 2,
    },
    "adam_": {
        "weights": draw(6), "grad": draw(6), "first": torch.zeros(6), "second": torch.zeros(6), "step": 1,
        "lr": 0.1,
    },
}  # fmt: skip


def results(name: str, call: Call) -> list[Tensor]:
    """The results of an op, or what one that works in place has changed; the inputs are copied before."""
    own = {key: value.clone() if isinstance(value, Tensor) else value for key, value in call.items()}
    given = getattr(F, name)(**own)
    if name == "adam_":
        given = own["weights"], own["first"], own["second"]
    return results_of(given)


def results_of(given: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return list(given) if isinstance(given, tuple) else [given]


def askew(x: Tensor) -> Tensor:
    """The same numbers at an address that is no multiple of their size."""
    memory = bytearray(1) + bytearray(x.numpy().tobytes())
    return torch.frombuffer(memory, dtype=x.dtype, offset=1).view(x.shape)


def refused(name: str, change: Call, error: Any, message: str) -> None:
    """Raises, leaves every tensor as it was, and a right call gives what it gave."""
    before = results(name, GOOD[name])
    call = {**GOOD[name], **change}
    copies = {key: value.clone() for key, value in call.items() if isinstance(value, Tensor)}
    with pytest.raises(error, match=message):
        getattr(F, name)(**call)
    for key, copy in copies.items():
        if copy.device.type == "cpu" and copy.layout == torch.strided:
            assert torch.equal(call[key], copy)
    again = results(name, GOOD[name])
    assert all(y.isfinite().all() and torch.equal(y, z) for y, z in zip(again, before, strict=True))


BAD_LENGTHS: dict[str, Any] = {
    "too short": [2, 1, 2],
    "too long": [2, 1, 4],
    "a zero": [2, 0, 4],
    "negative": [2, -1, 5],
    "none": [],
    "floats": [2.0, 1.0, 3.0],
    "float array": np.array([2.0, 1.0, 3.0]),
    "float tensor": torch.tensor([2.0, 1.0, 3.0]),
    "bools": [True, True, True],
    "bool tensor": torch.ones(6, dtype=torch.bool),
    "two axes": np.array([[2, 1, 3]]),
    "two axes of a tensor": torch.tensor([[2, 1, 3]]),
    "no axis": torch.tensor(6),
    "nested": [[2], [1], [3]],
    "words": ["2", "1", "3"],
    "a string": "213",
    "an int": 6,
    "a generator": (n for n in LENGTHS),
    "past int64": [2**70, 1, 3],
    "a sum past int64": [2**62, 2**62, 2**62, 2**62, 2, 1, 3],
    "NaN": [math.nan, 1, 3],
}


@pytest.mark.parametrize("lengths", BAD_LENGTHS.values(), ids=BAD_LENGTHS)
@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, argument) for name, call in GOOD.items() for argument in call if argument.endswith("lengths")],
)
def test_lengths(name: str, argument: str, lengths: Any) -> None:
    refused(name, {argument: lengths}, BatchError, argument)


WRONG: dict[str, tuple[str, Call, Any, str]] = {
    "x too wide": ("linear", {"x": draw(6, 5)}, BatchError, "x|weight"),
    "x flat": ("linear", {"x": ROW}, BatchError, "x"),
    "x of three axes": ("linear", {"x": X[None]}, BatchError, "x"),
    "weight flat": ("linear", {"weight": ROW}, BatchError, "weight"),
    "bias too long": ("linear", {"bias": draw(6)}, BatchError, "bias"),
    "bias of two axes": ("linear", {"bias": draw(1, 5)}, BatchError, "bias"),
    "activation unknown": ("linear", {"activation": "tanh"}, ConfigError, "activation"),
    "an even kernel": ("conv1d", {"weight": draw(5, 4, 2)}, EITHER, "kernel"),
    "no kernel": ("conv1d", {"weight": draw(5, 4, 0)}, EITHER, "kernel|weight"),
    "a kernel without width": ("conv1d", {"weight": draw(5, 4)}, BatchError, "weight"),
    "conv1d too wide": ("conv1d", {"x": draw(6, 3)}, BatchError, "x|weight"),
    "conv1d bias": ("conv1d", {"bias": draw(4)}, BatchError, "bias"),
    "three weights": ("lstm", {"weights": LSTM[:3]}, BatchError, "weights"),
    "weights of a GRU": ("lstm", {"weights": GRU}, BatchError, "weights"),
    "lstm weight_ih": ("lstm", {"weights": [draw(20, 3), *LSTM[1:]]}, BatchError, "weight"),
    "lstm weight_hh": ("lstm", {"weights": [LSTM[0], draw(20, 4), *LSTM[2:]]}, BatchError, "weight"),
    "lstm bias": ("lstm", {"weights": [*LSTM[:3], draw(19)]}, BatchError, "bias|weight"),
    "one direction": ("bigru_control", {"weights": GRU[:4]}, BatchError, "weights"),
    "gru reverse": ("bigru_control", {"weights": [*GRU[:5], draw(12, 3), *GRU[6:]]}, BatchError, "weight"),
    "gru not as wide": (
        "bigru_control",
        {"x": draw(6, 3), "weights": [draw(12, 3), *GRU[1:4]] * 2},
        BatchError,
        "x|weight",
    ),
    "key too narrow": ("attention", {"key": draw(6, 3)}, BatchError, "key"),
    "value too narrow": ("attention", {"value": draw(6, 3)}, BatchError, "value"),
    "more values than keys": ("attention", {"value": draw(7, 4)}, BatchError, "value|key"),
    "more keys than values": ("attention", {"key": draw(7, 4)}, BatchError, "key|value"),
    "other utterances": ("attention", {"key_lengths": [4, 2]}, BatchError, "lengths"),
    "keys for queries": (
        "attention",
        {"query": draw(5, 4), "query_lengths": [2, 1, 2], "key_lengths": None},
        BatchError,
        "key",
    ),
    "3 heads of 4": ("attention", {"num_heads": 3}, EITHER, "num_heads"),
    "no head": ("attention", {"num_heads": 0}, EITHER, "num_heads"),
    "-1 heads": ("attention", {"num_heads": -1}, EITHER, "num_heads"),
    "source_gate weight": ("source_gate", {"weight": draw(5, 4)}, BatchError, "weight"),
    "source_gate bias": ("source_gate", {"bias": draw(5)}, BatchError, "bias"),
    "r and x": ("gated_norm", {"r": draw(5, 4)}, BatchError, "r|x"),
    "norm weight": ("gated_norm", {"weight": draw(5)}, BatchError, "weight"),
    "norm bias": ("gated_norm", {"bias": draw(5)}, BatchError, "bias"),
    "compound alone": ("gated_norm", {"retain": None}, EITHER, "compound|retain"),
    "retain alone": ("gated_norm", {"compound": None}, EITHER, "compound|retain"),
    "a gate a frame": ("gated_norm", {"compound": X}, BatchError, "compound"),
    "a gate for all": ("gated_norm", {"retain": ROW}, BatchError, "retain"),
    "weight1": ("feed_forward_norm", {"weight1": draw(16, 5)}, BatchError, "weight1"),
    "bias1": ("feed_forward_norm", {"bias1": draw(15)}, BatchError, "bias1"),
    "weight2": ("feed_forward_norm", {"weight2": draw(4, 15)}, BatchError, "weight2"),
    "bias2": ("feed_forward_norm", {"bias2": draw(5)}, BatchError, "bias2"),
    "norm_weight": ("feed_forward_norm", {"norm_weight": draw(5)}, BatchError, "norm_weight"),
    "norm_bias": ("feed_forward_norm", {"norm_bias": draw(5)}, BatchError, "norm_bias"),
    "pooling a row": ("mean_pool", {"x": draw(6)}, BatchError, "x"),
    "cmd of other widths": ("cmd", {"q": draw(3, 5)}, BatchError, "q"),
    "cmd of rows": ("cmd", {"p": ROW, "q": ROW}, BatchError, "p"),
    "cmd of nothing": ("cmd", {"p": draw(0, 4), "q": draw(0, 4)}, BatchError, "p"),
    "orthogonality of other batches": ("orthogonality", {"q": draw(2, 4)}, BatchError, "q"),
    "orthogonality of rows": ("orthogonality", {"p": ROW, "q": ROW}, BatchError, "p"),
    "labels too few": ("task_loss", {"label": draw(3)}, BatchError, "label"),
    "scores of two axes": ("task_loss", {"score": draw(4, 1)}, BatchError, "score"),
    "scores without labels": ("task_loss", {"pseudo_labels": []}, BatchError, "pseudo_labels"),
    "pseudo-labels too few": ("task_loss", {"pseudo_labels": [draw(3)]}, BatchError, "pseudo_labels"),
    "other scores too few": ("task_loss", {"scores": [draw(3)]}, BatchError, "scores"),
    "old labels": ("ulgm_labels", {"old": draw(5)}, BatchError, "old"),
    "labels": ("ulgm_labels", {"label": draw(5)}, BatchError, "label|old"),
    "features": ("ulgm_labels", {"features": draw(5, 4)}, BatchError, "features"),
    "features_m": ("ulgm_labels", {"features_m": draw(5, 3)}, BatchError, "features_m"),
    "a centre too long": ("ulgm_labels", {"positive": draw(5)}, BatchError, "positive"),
    "a centre too short": ("ulgm_labels", {"negative_m": draw(2)}, BatchError, "negative_m"),
    "grad too short": ("adam_", {"grad": draw(5)}, BatchError, "grad"),
    "first too long": ("adam_", {"first": draw(7)}, BatchError, "first"),
    "second too long": ("adam_", {"second": draw(7)}, BatchError, "second"),
    "weights with gaps": ("adam_", {"weights": draw(12)[::2]}, BatchError, "weights|contiguous"),
    "grad with gaps": ("adam_", {"grad": draw(12)[::2]}, BatchError, "grad|contiguous"),
    "weights askew": (
        "adam_",
        {"weights": askew(draw(6))},
        BatchError,
        "weights must be contiguous, at an addr",
    ),
    "memory shared": (
        "adam_",
        dict.fromkeys(["first", "second"], torch.zeros(6)),
        BatchError,
        "must not share",
    ),
    "numpy instead of a tensor": ("linear", {"x": X.numpy()}, TypeError, "."),
    "a list instead of a tensor": ("cmd", {"p": GATES.tolist()}, TypeError, "."),
    "a word for a seed": ("attention", {"seed": "one"}, TypeError, "."),
    "sparse": ("linear", {"x": X.to_sparse()}, (MmilnError, RuntimeError), "."),
}
for _name in ("attention", "gated_norm", "feed_forward_norm"):
    for _dropout in (1.0, 1.5, -0.1, math.nan):
        WRONG[f"{_name}: dropout {_dropout}"] = (_name, {"dropout": _dropout}, EITHER, "dropout")


@pytest.mark.parametrize(("name", "change", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_calls(name: str, change: Call, error: Any, message: str) -> None:
    refused(name, change, error, message)


@pytest.mark.parametrize("name", [name for name in GOOD if name != "adam_"])
def test_numbers_askew_in_memory(name: str) -> None:
    own = {key: askew(x) if isinstance(x, Tensor) else x for key, x in GOOD[name].items()}
    assert any(isinstance(x, Tensor) and x.data_ptr() % 4 for x in own.values())
    for y, z in zip(results(name, GOOD[name]), results_of(getattr(F, name)(**own)), strict=True):
        assert torch.equal(y, z)


TENSORS = [(name, key) for name, call in GOOD.items() for key, x in call.items() if isinstance(x, Tensor)]


@pytest.mark.parametrize(("name", "argument"), TENSORS)
def test_one_tensor_of_another_kind(name: str, argument: str) -> None:
    x = GOOD[name][argument]
    if name != "mean_pool":  # it has no other
        refused(name, {argument: x.double()}, BatchError, "(?i)dtype|float64")
    refused(name, {argument: x.long()}, BatchError, "(?i)dtype|int64")
    refused(name, {argument: x.to("meta")}, DeviceError, "CPU")


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.complex64], ids=str)
def test_all_tensors_of_another_dtype(name: str, dtype: torch.dtype) -> None:
    def converted(value: Any) -> Any:
        if isinstance(value, list):
            return [converted(x) for x in value]
        return value.to(dtype) if isinstance(value, Tensor) else value

    refused(name, {key: converted(x) for key, x in GOOD[name].items()}, BatchError, "(?i)dtype|float")


@pytest.mark.parametrize("name", ["lstm", "bigru_control", "task_loss"])
def test_one_tensor_of_a_list(name: str) -> None:
    key = "scores" if name == "task_loss" else "weights"
    *others, last = GOOD[name][key]
    refused(name, {key: [*others, last.double()]}, BatchError, "(?i)dtype|float64")
    refused(name, {key: [*others, last.to("meta")]}, DeviceError, "CPU")
