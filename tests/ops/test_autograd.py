"""`mmiln.functional` as a part of autograd: numerical gradients, partial graphs, and what must be refused."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from mmiln import functional as F
from reference import functional as oracle
from support.functional_cases import (
    OPS,
    TINY,
    WITH_KERNELS,
    Case,
    asking,
    assert_near,
    gradients,
    same_bits,
    weighted,
)
from support.functional_checks import (
    check_backward_twice,
    check_inputs_alone,
    check_one_result,
    check_several_places,
    started,
)

EACH_OP = pytest.mark.parametrize("name", OPS)
NOISE = {"dropout": 0.4, "seed": 11}
# Operations whose backward reads no tensor that the caller can change.
READS_COPIES = ("mean_pool", "orthogonality", "task_loss", "task_loss of text")


@pytest.mark.parametrize(
    ("name", "extra"),
    [(name, {}) for name, op in OPS.items() if op.exact_gradient]
    + [(name, NOISE) for name, op in OPS.items() if op.has_dropout],
    ids=str,
)
@pytest.mark.parametrize("lengths", [(2, 1, 3), (1,)], ids=str)
def test_gradcheck(name: str, extra: dict[str, Any], lengths: tuple[int, ...]) -> None:
    op, case = OPS[name], Case(4, lengths, extra)
    leaves = asking(op.draw(case, seed=1), op.variables(op.draw(case)))

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return op.run(F, dict(zip(leaves, tensors, strict=True)), case)

    assert torch.autograd.gradcheck(call, tuple(leaves.values()), atol=1e-6, rtol=1e-4)


@EACH_OP
def test_each_input_alone_can_ask_for_a_gradient(name: str) -> None:
    check_inputs_alone(name)


@EACH_OP
def test_no_graph_where_none_is_wanted(name: str) -> None:
    op, inputs = OPS[name], OPS[name].draw(TINY)
    leaves = asking(inputs, op.variables(inputs))
    results = op.run(F, leaves, TINY)
    assert all(y.requires_grad and y.grad_fn is not None for y in results)
    without = [op.run(F, inputs, TINY)]
    with torch.no_grad():
        without.append(op.run(F, leaves, TINY))
    with torch.inference_mode():
        without.append(op.run(F, leaves, TINY))
    for plain in without:
        for y, right in zip(plain, results, strict=True):
            assert not y.requires_grad and y.grad_fn is None
            assert torch.equal(y, right)


@EACH_OP
def test_gradients_of_all_strides(name: str) -> None:
    """`sum()` passes back a gradient of stride 0, a transposed result a transposed gradient."""
    _, asked, results = started(OPS[name])
    for y in results:
        ones = torch.ones_like(y)
        right = torch.autograd.grad(y, asked, ones, retain_graph=True)
        for total in (y.sum(), y.t().contiguous().sum(), torch.stack([y, y], dim=-1).sum() / 2):
            actual = torch.autograd.grad(total, asked, retain_graph=True)
            assert all(torch.equal(a, b) for a, b in zip(actual, right, strict=True))


@pytest.mark.parametrize("part", [0, 1])
def test_one_result_of_two(part: int) -> None:
    check_one_result(part)


def test_one_tensor_in_several_places() -> None:
    check_several_places()


@EACH_OP
def test_backward_twice(name: str) -> None:
    check_backward_twice(name)


def penalty(results: tuple[Tensor, ...], asked: list[Tensor]) -> tuple[Tensor, ...]:
    """Second derivatives: the gradient of a function of the gradients and of the inputs."""
    found = torch.autograd.grad(weighted(results), asked, create_graph=True)
    total = sum((g.square().sum() for g in found), torch.zeros((), dtype=torch.float64))
    return torch.autograd.grad(total + sum(x.square().sum() for x in asked), asked)


@pytest.mark.parametrize("name", WITH_KERNELS)
def test_a_second_derivative_is_refused(name: str) -> None:
    """Also if the loss depends on the inputs in another way, so that a missing term would go unnoticed."""
    _, asked, results = started(OPS[name])
    with pytest.raises(RuntimeError):
        penalty(results, asked)


@pytest.mark.parametrize("name", sorted(OPS.keys() - WITH_KERNELS))
def test_a_second_derivative(name: str) -> None:
    op = OPS[name]
    leaves, asked, results = started(op)
    right = asking(op.draw(TINY), op.variables(op.draw(TINY)))
    expected = penalty(op.run(oracle, right, TINY), [x for x in right.values() if x.requires_grad])
    names = op.variables(leaves)
    found = dict(zip(names, penalty(results, asked), strict=True))
    assert_near(found, dict(zip(names, expected, strict=True)), 1e-9)


@EACH_OP
def test_changes_in_place_never_give_a_wrong_gradient(name: str) -> None:
    """A change before backward is refused, or has no effect if backward doesn't read the tensor."""
    op = OPS[name]
    right = gradients(op, F, op.draw(TINY), TINY)[1]
    changes = [*op.draw(TINY), "results"]
    refused = []
    for change in changes:
        leaves, asked, results = started(op)
        total = weighted(results)
        if change == "results":
            for y in results:
                y.mul_(1).add_(1)
        else:
            with torch.no_grad():
                leaves[change].add_(1)
        try:
            found = torch.autograd.grad(total, asked)
        except RuntimeError:
            refused.append(change)
        else:
            assert same_bits(dict(zip(right, found, strict=True)), right), change
    assert refused or name in READS_COPIES


@EACH_OP
def test_an_optimiser_step_between_forward_and_backward_is_seen(name: str) -> None:
    op = OPS[name]
    right = gradients(op, F, op.draw(TINY), TINY)[1]
    leaves, asked, results = started(op)
    flat = leaves[next(iter(leaves))].detach().view(-1)
    F.adam_(flat, torch.ones_like(flat), *torch.zeros(2, flat.numel(), dtype=flat.dtype), step=1, lr=1.0)
    try:
        found = torch.autograd.grad(weighted(results), asked)
    except RuntimeError:
        return
    assert same_bits(dict(zip(right, found, strict=True)), right)


@EACH_OP
@pytest.mark.parametrize("through", ["forward", "backward", "retained", "refused"])
def test_a_graph_that_is_let_go_frees_its_memory(name: str, through: str) -> None:
    leaves, asked, results = started(OPS[name])
    held = [StorageWeakRef(x.untyped_storage()) for x in (*leaves.values(), *results)]
    if through in ("backward", "retained"):
        torch.autograd.grad(weighted(results), asked, retain_graph=through == "retained")
    elif through == "refused":
        with pytest.raises(RuntimeError):
            torch.autograd.grad(weighted(results), asked, torch.ones(2, dtype=torch.float64))
    del leaves, asked, results
    assert all(storage.expired() for storage in held)
