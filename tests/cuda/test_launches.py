"""Launches of any size: what a grid misses is NaN here, what it asks for is held to what cards can do."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
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


def noise_of(op: Op, noisy: bool) -> dict[str, float]:
    return {"dropout": 0.3, "seed": 5} if op.has_dropout and noisy else {}


@pytest.mark.parametrize("name", WITH_KERNELS)
@pytest.mark.parametrize(
    ("width", "lengths", "noisy"),
    [
        (50, [700], True),
        (64, [1] * 130, True),
        (7, [129, 1, 64, 63, 65, 32, 31, 33], False),
    ],
    ids=["long", "many", "around a warp"],
)
def test_sizes_at_the_edges(folder: object, name: str, width: int, lengths: list[int], noisy: bool):
    both(folder, OPS[name], Case(width, tuple(lengths), noise_of(OPS[name], noisy)))


lengths = st.lists(st.integers(1, 40), min_size=1, max_size=70)


@pytest.mark.kernels
@pytest.mark.parametrize("name", WITH_KERNELS)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(width=st.sampled_from(sorted(HEADS)), lengths=lengths, noisy=st.booleans())
def test_any_size(folder: object, name: str, width: int, lengths: list[int], noisy: bool):
    both(folder, OPS[name], Case(width, tuple(lengths), noise_of(OPS[name], noisy)))


def test_a_launch_beyond_the_limits_is_refused(folder: object):
    """One row of a million channels does not fit into the shared memory of a block."""
    _core.emulate_kernels(folder)
    r, x, weight = torch.ones(1, 10**6), torch.ones(1, 10**6), torch.ones(10**6)
    with pytest.raises(Exception, match="beyond what cards can do"):
        F.gated_norm(r, x, weight, weight, [1])
    _core.emulate_kernels(None)
