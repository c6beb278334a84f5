"""Ops against their oracle: what the tests on the CPU and on a card have in common."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmiln import functional as F
from reference import functional as oracle
from reference.ulgm import Ulgm
from support.functional_cases import (
    OPS,
    RAGGED,
    TINY,
    Case,
    Draw,
    Op,
    asking,
    assert_near,
    gradients,
    same_bits,
    weighted,
)

DOUBLE = torch.float64
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
EACH_OP = pytest.mark.parametrize("name", OPS)
DROPOUT = [name for name, op in OPS.items() if op.has_dropout]
NOISE = {"dropout": 0.3, "seed": 5}


def noisy(name: str, case: Case) -> Case:
    """The case, with dropout where the op has some."""
    return Case(case.width, case.lengths, NOISE if OPS[name].has_dropout else {})


@cache
def expected(name: str, case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return gradients(OPS[name], oracle, OPS[name].draw(case), case)


def check_values_and_gradients(name: str, case: Case, dtype: torch.dtype, device: str = "cpu") -> None:
    results, found = gradients(OPS[name], F, OPS[name].draw(case, dtype, device=device), case)
    for x in (*results.values(), *found.values()):
        assert x.dtype == dtype and x.device.type == device
    right = expected(name, case)
    assert_near(results, right[0], TOLERANCE[dtype])
    # LayerNorm of one channel: its gradients of 0 are differences of terms divided by the root of eps.
    floor = 1e-5**-0.5 if case.width == 1 and "norm" in name else 1e-2
    assert_near(found, right[1], TOLERANCE[dtype], floor)


OF_WIDTHS = pytest.mark.parametrize("width", [1, 7, 50, 64, 128])
OF_LENGTHS = pytest.mark.parametrize("lengths", [RAGGED, (1,)], ids=["ragged", "one frame"])
OVER_A_BATCH = ["cmd", "orthogonality", "orthogonality raw", "bigru_control", "mean_pool"]


BATCH_OF_32 = Case(50, tuple(1 + b % 5 for b in range(32)))


OVER_TIME = ["conv1d of 5", "lstm", "bigru_control", "self attention", "gated_norm", "mean_pool"]


def check_neighbours(name: str, device: str = "cpu") -> None:
    """Frames before and after an utterance, NaN included, change no bit of its results."""
    op, case = OPS[name], Case(7, (4, 5, 3))
    inputs = op.draw(case, device=device)
    right = op.run(F, inputs, case)[0]
    poisoned = {k: x.clone() for k, x in inputs.items()}
    for x in poisoned.values():
        if len(x) == case.frames:
            x[:4], x[9:] = torch.nan, torch.nan
    actual = op.run(F, poisoned, case)[0]
    rows = slice(4, 9) if len(right) == case.frames else slice(1, 2)
    assert torch.equal(actual[rows], right[rows])


def transposed(x: Tensor) -> Tensor:
    axes = list(range(x.ndim))[::-1]
    return x.permute(axes).contiguous().permute(axes)


def strided(x: Tensor) -> Tensor:
    wide = x.new_full([2 * size for size in x.shape], torch.nan)
    view = wide[tuple(slice(1, None, 2) for _ in x.shape)]
    return view.copy_(x)


def unaligned(x: Tensor) -> Tensor:
    return torch.cat([x.new_full((1,), torch.nan), x.flatten()])[1:].view(x.shape)


def check_strides(name: str, dtype: torch.dtype, device: str = "cpu") -> None:
    op, case = OPS[name], noisy(name, Case(50, (3, 1, 17)))
    inputs = op.draw(case, dtype, device=device)
    right = gradients(op, F, inputs, case)
    for layout in (transposed, strided, unaligned):
        given = {key: layout(x) for key, x in inputs.items()}
        before = {key: x.clone() for key, x in given.items()}
        for actual, contiguous in zip(gradients(op, F, given, case), right, strict=True):
            assert same_bits(actual, contiguous), layout.__name__
        assert same_bits(given, before)


def kept_in_attention(heads: int = 4, frames: int = 16, batch: int = 6, **noise: Any) -> Tensor:
    """The factors on attention probabilities, (B, heads, T_q, T_k): each key's value names the key."""
    dtype = noise.pop("dtype", DOUBLE)
    query = torch.zeros(batch * frames, heads * frames, dtype=dtype)
    value = torch.eye(frames, dtype=dtype).repeat(batch, heads)
    mixed = F.attention(query, query, value, [frames] * batch, num_heads=heads, **noise)
    return mixed.view(batch, frames, heads, frames).transpose(1, 2) * frames


def kept_in_norm(name: str, frames: int = 96, width: int = 64, **noise: Any) -> Tensor:
    """Which elements of dropout(1) were kept, (T, d), recovered from the LayerNorm of 0 + dropout(1)."""
    dtype = noise.pop("dtype", DOUBLE)
    zeros, ones = torch.zeros(frames, width, dtype=dtype), torch.ones(frames, width, dtype=dtype)
    if name == "feed_forward_norm":
        no_weight = [zeros.new_zeros(4 * width, width), zeros.new_zeros(4 * width)]
        second = [zeros.new_zeros(width, 4 * width), ones[0], ones[0], zeros[0]]
        normed = F.feed_forward_norm(zeros, *no_weight, *second, **noise)
    else:
        gates = {"compound": ones[:2], "retain": ones[:2]} if name == "gated_norm" else {}
        lengths = [frames // 2] * 2
        normed = F.gated_norm(ones, zeros, ones[0], zeros[0], lengths, **gates, **noise)
    return normed > 0


def kept(name: str, **noise: Any) -> Tensor:
    """Which elements dropout kept: a row for each utterance and head, or for each frame."""
    if "attention" in name:
        return kept_in_attention(**noise).flatten(0, 1).flatten(1) > 0
    return kept_in_norm(name, **noise)


PLACES = ["self attention", "gated_norm", "gated_norm without gates", "feed_forward_norm"]


def check_adam(decoupled: bool, decay: float, dtype: torch.dtype, device: str = "cpu") -> None:
    draw = Draw(0)
    start, grads = draw(1001).to(device, dtype), draw(20, 1001).to(device, dtype)
    grads[:, :5] = 0
    peer = nn.Parameter(start.clone())
    optimizer = (torch.optim.AdamW if decoupled else torch.optim.Adam)([peer], lr=0.01, weight_decay=decay)
    weights = nn.Parameter(start.clone())
    first, second = torch.zeros_like(start), torch.zeros_like(start)
    version = weights._version
    for step, grad in enumerate(grads, start=1):
        peer.grad, given = grad, grad.clone()
        optimizer.step()
        settings = {"step": step, "lr": 0.01, "weight_decay": decay, "decoupled": decoupled}
        F.adam_(weights, given, first, second, **settings)
        assert torch.equal(given, grad)
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-6}[dtype]
    state = optimizer.state[peer]
    right = {"weights": peer.detach(), "first": state["exp_avg"], "second": state["exp_avg_sq"]}
    assert_near(
        {"weights": weights.detach(), "first": first, "second": second},
        {name: x.cpu().double() for name, x in right.items()},
        tolerance,
    )
    assert weights._version > version  # or autograd could not know of the change


def check_ulgm_labels(rows: int, epoch: int, dtype: torch.dtype, device: str = "cpu") -> None:
    draw, dims = Draw(epoch), {"multimodal": 9, "audio": 4}
    state = Ulgm(rows, dims, label_bound=2.5)
    centres = {u: (draw(dim) + 1, draw(dim) - 1) for u, dim in dims.items()}
    features = {u: draw(rows, dim) + 0.5 for u, dim in dims.items()}
    label, old = draw(rows).clamp(-2.5, 2.5), draw(rows).clamp(-2.5, 2.5)
    state.centres = {u: (p.double().numpy(), n.double().numpy()) for u, (p, n) in centres.items()}
    state.labels = {"multimodal": label.double().numpy(), "audio": old.double().numpy().copy()}
    for row in range(rows):
        state._update_labels(epoch, row, {u: x[row].double().numpy() for u, x in features.items()})

    (positive, negative), (positive_m, negative_m) = centres["audio"], centres["multimodal"]
    given = {
        "old": old, "label": label,
        "features": features["audio"], "positive": positive, "negative": negative,
        "features_m": features["multimodal"], "positive_m": positive_m, "negative_m": negative_m,
    }  # fmt: skip
    given = {name: x.to(device, dtype).requires_grad_() for name, x in given.items()}
    actual = F.ulgm_labels(**given, epoch=epoch, bound=2.5)
    assert actual.dtype == dtype and not actual.requires_grad
    right = torch.from_numpy(state.labels["audio"])
    assert_near({"labels": actual}, {"labels": right}, TOLERANCE[dtype])
    assert torch.equal(given["old"].cpu(), old.to(dtype))


def started(
    op: Op, case: Case = TINY, device: str = "cpu"
) -> tuple[dict[str, Tensor], list[Tensor], tuple[Tensor, ...]]:
    """Fresh leaves, those that require a gradient, and the results."""
    leaves = asking(op.draw(case, device=device), op.variables(op.draw(case)))
    return leaves, [x for x in leaves.values() if x.requires_grad], op.run(F, leaves, case)


def check_inputs_alone(name: str, device: str = "cpu") -> None:
    op, inputs = OPS[name], OPS[name].draw(TINY)
    right = gradients(op, oracle, inputs, TINY)[1]
    inputs = op.draw(TINY, device=device)
    for asked in op.variables(inputs):
        leaves = asking(inputs, [asked])
        weighted(op.run(F, leaves, TINY)).backward()
        assert_near({asked: leaves[asked].grad}, {asked: right[asked]}, 1e-9)
        assert all(x.grad is None for key, x in leaves.items() if key != asked)


def check_one_result(part: int, device: str = "cpu") -> None:
    op = OPS["source_gate"]
    _, asked, results = started(op, device=device)
    actual = torch.autograd.grad(results[part].square().sum(), asked)
    leaves = asking(op.draw(TINY), op.variables(op.draw(TINY)))
    right = torch.autograd.grad(op.run(oracle, leaves, TINY)[part].square().sum(), list(leaves.values()))
    assert_near(dict(zip(leaves, actual, strict=True)), dict(zip(leaves, right, strict=True)), 1e-9)


def check_several_places(device: str = "cpu") -> None:
    x = OPS["self attention"].draw(TINY, device=device)["query"]
    found = []
    for f, place in ((F, device), (oracle, "cpu")):
        leaf = x.to(place, copy=True).requires_grad_()
        weights = list(OPS["feed_forward_norm"].draw(TINY, device=place).values())[1:]
        y = f.attention(leaf, leaf, leaf, TINY.lengths, num_heads=2)
        y = f.feed_forward_norm(y + leaf, *weights)
        found.append(torch.autograd.grad(weighted((y,)), leaf)[0])
    assert_near({"x": found[0]}, {"x": found[1]}, 1e-9)
    p = x.tanh().requires_grad_()
    for q in (p, p.detach().clone()):
        assert torch.equal(torch.autograd.grad(F.cmd(p, q), p)[0], torch.zeros_like(p))


def check_backward_twice(name: str, device: str = "cpu") -> None:
    _, asked, results = started(OPS[name], device=device)
    total = weighted(results)
    first = torch.autograd.grad(total, asked, retain_graph=True)
    second = torch.autograd.grad(total, asked)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(total, asked)
    # The same where the node of the op is asked by itself.
    _, asked, results = started(OPS[name], device=device)
    ones = [torch.ones_like(y) for y in results]
    torch.autograd.grad(results, asked, ones)
    if name != "mean_pool":  # whose backward may read no freed tensor
        with pytest.raises(RuntimeError):
            torch.autograd.grad(results, asked, ones)
