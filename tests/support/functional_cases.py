"""The table of the ops of `mmiln.functional` that the tests go through, and how they are called."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

Inputs = Mapping[str, Tensor]
HEADS = {1: 1, 4: 2, 7: 7, 50: 5, 64: 4, 128: 8}


@dataclass(frozen=True)
class Case:
    """The sizes of a call; `extra` goes to the ops with dropout: `dropout` and `seed`, or `keep`."""

    width: int
    lengths: tuple[int, ...]
    extra: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def frames(self) -> int:
        return sum(self.lengths)

    @property
    def batch(self) -> int:
        return len(self.lengths)

    @property
    def heads(self) -> int:
        return HEADS[self.width]


TINY = Case(4, (2, 1, 3))
RAGGED = (3, 1, 500, 17, 2)


class Draw:
    """Random float32 tensors, to be used in either dtype: the same numbers then."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=self.generator) * scale

    def weight(self, *shape: int) -> Tensor:
        return self(*shape, scale=shape[1] ** -0.5)

    def on_grid(self, x: Tensor, step: float, offset: float = 0.0) -> Tensor:
        return (x / step).round() * step + offset

    def before_relu(self, rows: int, wide: int, out: int) -> tuple[Tensor, Tensor, Tensor]:
        """x, weight, bias with x W^T + b exact in float32 and never 0: rounding can't decide on which side
        of the kink of ReLU an element lies."""
        x = self.on_grid(self(rows, wide).clamp(-4, 4), 2**-4)
        weight = self.on_grid(self.weight(out, wide).clamp(-1, 1), 2**-9)
        return x, weight, self.on_grid(self(out, scale=0.5), 2**-13, offset=2**-14)


@dataclass(frozen=True)
class Op:
    """An op: its inputs, and the call of it in a module, `mmiln.functional` or its oracle."""

    inputs: Callable[[Draw, Case], dict[str, Tensor]]
    call: Callable[[Any, Inputs, Case], Any]
    constants: tuple[str, ...] = ()  # inputs that are no variables
    exact_gradient: bool = True  # False: parts of the gradient are left out by definition
    has_dropout: bool = False

    def draw(
        self, case: Case, dtype: torch.dtype = torch.float64, seed: int = 0, device: str = "cpu"
    ) -> dict[str, Tensor]:
        return {name: x.to(device, dtype) for name, x in self.inputs(Draw(seed), case).items()}

    def variables(self, inputs: Inputs) -> list[str]:
        return [name for name in inputs if name not in self.constants]

    def run(self, module: ModuleType, inputs: Inputs, case: Case) -> tuple[Tensor, ...]:
        results = self.call(module, inputs, case)
        return results if isinstance(results, tuple) else (results,)


def _frames(draw: Draw, c: Case, *names: str) -> dict[str, Tensor]:
    return {name: draw(c.frames, c.width) for name in names}


def _linear(activation: str | None) -> Op:
    def inputs(draw: Draw, c: Case) -> dict[str, Tensor]:
        x, weight, bias = draw.before_relu(c.frames, c.width + 2, c.width)
        return {"x": x, "weight": weight, "bias": bias}

    return Op(inputs, lambda f, t, c: f.linear(t["x"], t["weight"], t["bias"], activation))


def _conv1d(kernel: int) -> Op:
    def inputs(draw: Draw, c: Case) -> dict[str, Tensor]:
        weight = draw(c.width, c.width + 2, kernel, scale=(c.width * kernel) ** -0.5)
        return {"x": draw(c.frames, c.width + 2), "weight": weight, "bias": draw(c.width)}

    return Op(inputs, lambda f, t, c: f.conv1d(t["x"], t["weight"], t["bias"], c.lengths))


def _recurrent(draw: Draw, gates: int, wide: int, hidden: int, suffix: str = "") -> dict[str, Tensor]:
    return {
        f"weight_ih{suffix}": draw.weight(gates * hidden, wide),
        f"weight_hh{suffix}": draw.weight(gates * hidden, hidden),
        f"bias_ih{suffix}": draw(gates * hidden, scale=0.5),
        f"bias_hh{suffix}": draw(gates * hidden, scale=0.5),
    }


def _weights(t: Inputs) -> list[Tensor]:
    return [weight for name, weight in t.items() if name != "x"]


def _lstm(draw: Draw, c: Case) -> dict[str, Tensor]:
    return {"x": draw(c.frames, c.width + 2), **_recurrent(draw, 4, c.width + 2, c.width)}


def _gru(draw: Draw, c: Case) -> dict[str, Tensor]:
    weights = [_recurrent(draw, 3, c.width, c.width, suffix) for suffix in ("", "_reverse")]
    return {"x": draw(c.frames, c.width), **weights[0], **weights[1]}


def _self_attention(f: Any, t: Inputs, c: Case) -> Tensor:
    return f.attention(t["query"], t["key"], t["value"], c.lengths, num_heads=c.heads, **c.extra)


def _cross_attention(f: Any, t: Inputs, c: Case) -> Tensor:
    """Keys of other lengths than the queries."""
    lengths = c.lengths, c.lengths[::-1]
    return f.attention(t["query"], t["key"], t["value"], *lengths, num_heads=c.heads, **c.extra)


def _source_gate(draw: Draw, c: Case) -> dict[str, Tensor]:
    return {"a": draw(c.frames, c.width), "weight": draw.weight(c.width, c.width), "bias": draw(c.width)}


def _norm(draw: Draw, c: Case, *gates: str) -> dict[str, Tensor]:
    return {
        **_frames(draw, c, "r", "x"),
        "weight": draw(c.width),
        "bias": draw(c.width),
        **{gate: draw(c.batch, c.width).sigmoid() for gate in gates},
    }


def _gated_norm(f: Any, t: Inputs, c: Case) -> Tensor:
    gates = {gate: t[gate] for gate in ("compound", "retain") if gate in t}
    return f.gated_norm(t["r"], t["x"], t["weight"], t["bias"], c.lengths, **gates, **c.extra)


def _feed_forward(draw: Draw, c: Case) -> dict[str, Tensor]:
    y, weight1, bias1 = draw.before_relu(c.frames, c.width, 4 * c.width)
    weight2, bias2 = draw.weight(c.width, 4 * c.width), draw(c.width)
    first = {"y": y, "weight1": weight1, "bias1": bias1, "weight2": weight2, "bias2": bias2}
    return {**first, "norm_weight": draw(c.width), "norm_bias": draw(c.width)}


def _controls(draw: Draw, c: Case) -> dict[str, Tensor]:
    return {"p": draw(c.batch, c.width).tanh(), "q": draw(c.batch, c.width, scale=0.5).tanh()}


def _scores(draw: Draw, c: Case) -> dict[str, Tensor]:
    names = ("score", "label", "audio", "vision", "pseudo_audio", "pseudo_vision")
    return {name: draw(c.frames) for name in names}


def _task_loss(f: Any, t: Inputs, c: Case) -> Tensor:
    pseudo = [t["pseudo_audio"], t["pseudo_vision"]]
    return f.task_loss(t["score"], t["label"], [t["audio"], t["vision"]], pseudo)


OPS: dict[str, Op] = {
    "linear": _linear(None),
    "linear relu": _linear("relu"),
    "linear sigmoid": _linear("sigmoid"),
    "linear gelu": _linear("gelu"),
    "conv1d of 1": _conv1d(1),
    "conv1d of 3": _conv1d(3),
    "conv1d of 5": _conv1d(5),
    "lstm": Op(_lstm, lambda f, t, c: f.lstm(t["x"], _weights(t), c.lengths)),
    "bigru_control": Op(_gru, lambda f, t, c: f.bigru_control(t["x"], _weights(t), c.lengths)),
    "self attention": Op(
        lambda draw, c: _frames(draw, c, "query", "key", "value"), _self_attention, has_dropout=True
    ),
    "cross attention": Op(
        lambda draw, c: _frames(draw, c, "query", "key", "value"), _cross_attention, has_dropout=True
    ),
    "source_gate": Op(_source_gate, lambda f, t, c: f.source_gate(t["a"], t["weight"], t["bias"])),
    "gated_norm": Op(
        lambda draw, c: _norm(draw, c, "compound", "retain"), _gated_norm, has_dropout=True
    ),
    "gated_norm without gates": Op(_norm, _gated_norm, has_dropout=True),
    "feed_forward_norm": Op(
        _feed_forward, lambda f, t, c: f.feed_forward_norm(*t.values(), **c.extra), has_dropout=True
    ),
    "mean_pool": Op(
        lambda draw, c: _frames(draw, c, "x"), lambda f, t, c: f.mean_pool(t["x"], c.lengths)
    ),
    "cmd": Op(_controls, lambda f, t, c: f.cmd(t["p"], t["q"])),
    "orthogonality": Op(
        _controls, lambda f, t, c: f.orthogonality(t["p"], t["q"]), exact_gradient=False
    ),
    "orthogonality raw": Op(
        _controls, lambda f, t, c: f.orthogonality(t["p"], t["q"], normalize=False)
    ),
    "task_loss": Op(_scores, _task_loss, constants=("label", "pseudo_audio", "pseudo_vision")),
    "task_loss of text": Op(
        lambda draw, c: {"score": draw(c.frames), "label": draw(c.frames)},
        lambda f, t, c: f.task_loss(t["score"], t["label"]),
        constants=("label",),
    ),
}  # fmt: skip


# Operations with kernels of their own; the others are made of torch's operations.
WITH_KERNELS = [name for name in OPS if not name.startswith("task_loss")]


def asking(inputs: Inputs, names: list[str]) -> dict[str, Tensor]:
    """New leaves of the same memory layout, those of these names require a gradient."""
    return {name: x.detach().requires_grad_(name in names) for name, x in inputs.items()}


def weighted(results: tuple[Tensor, ...]) -> Tensor:
    """A random weighted sum of all elements, the same for the same shapes."""
    draw = Draw(99)
    return torch.stack([(y * draw(*y.shape).to(y)).sum() for y in results]).sum()


def gradients(
    op: Op, module: ModuleType, inputs: Inputs, case: Case, names: list[str] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Results and the gradients of their weighted sum, by name."""
    names = op.variables(inputs) if names is None else names
    leaves = asking(inputs, names)
    results = op.run(module, leaves, case)
    found = torch.autograd.grad(weighted(results), [leaves[name] for name in names])
    return {str(i): y.detach() for i, y in enumerate(results)}, dict(zip(names, found, strict=True))


def assert_near(
    actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float, floor: float = 1e-2
) -> None:
    """Asserts equal names and shapes, and numbers near relative to the norm (or to `floor`, if larger)."""
    assert actual.keys() == expected.keys()
    for name, right in expected.items():
        assert actual[name].shape == right.shape, name
        error = ((actual[name].cpu().double() - right).norm() / right.norm().clamp(min=floor)).item()
        assert error <= tolerance, f"{name}: error {error:.1e} of the norm"


def same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
