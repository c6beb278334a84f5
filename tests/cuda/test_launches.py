"""Launches of any size: what a grid misses is NaN here, what it asks for is held to what cards can do."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cuda import shim
from mmiln import _core
from mmiln import functional as F
from support.functional_cases import HEADS, OPS, WITH_KERNELS, Case, Op, assert_near, gradients


@pytest.fixture(scope="module")
def folder() -> Iterator[object]:
    yield shim.build()
    _core.emulate_kernels(None)


def both(folder: object, op: Op, case: Case) -> None:
    """The kernels for CUDA against those of the CPU."""
    inputs = op.draw(case)
    _core.emulate_kernels(None)
    right = gradients(op, F, inputs, case)
    _core.emulate_kernels(folder)
    found = gradients(op, F, inputs, case)
    _core.emulate_kernels(None)
    for actual, expected in zip(found, right, strict=True):
        assert_near(actual, expected, 1e-9)


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=70)


@pytest.mark.parametrize("name", WITH_KERNELS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(width=st.sampled_from(sorted(HEADS)), lengths=lengths, noisy=st.booleans())
@example(width=50, lengths=[700], noisy=True)
@example(width=64, lengths=[1] * 130, noisy=True)
@example(width=7, lengths=[129, 1, 64, 63, 65, 32, 31, 33], noisy=False)
def test_any_size(folder: object, name: str, width: int, lengths: list[int], noisy: bool):
    op = OPS[name]
    extra = {"dropout": 0.3, "seed": 5} if op.has_dropout and noisy else {}
    both(folder, op, Case(width, tuple(lengths), extra))


def test_a_launch_beyond_the_limits_is_refused(folder: object):
    """One row of a million channels does not fit into the shared memory of a block."""
    _core.emulate_kernels(folder)
    r, x, weight = torch.ones(1, 10**6), torch.ones(1, 10**6), torch.ones(10**6)
    with pytest.raises(Exception, match="beyond what cards can do"):
        F.gated_norm(r, x, weight, weight, [1])
    _core.emulate_kernels(None)
