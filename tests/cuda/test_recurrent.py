"""Scans of GRU and LSTM that the table of ops does not reach: each way of holding weights at its limits, none
held, and many utterances."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cuda import shim
from mmiln import _core
from mmiln import functional as F
from support.functional_cases import OPS, Case, assert_near, gradients

MIXED = tuple(1 + (7 * b) % 12 for b in range(33))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    yield shim.build()
    _core.emulate_kernels(None)


def check(folder: Path, name: str, case: Case, dtype: torch.dtype) -> None:
    """The kernels for CUDA against those of the CPU in double precision."""
    op = OPS[name]
    right = gradients(op, F, op.draw(case), case)
    _core.emulate_kernels(folder)
    found = gradients(op, F, op.draw(case, dtype), case)
    _core.emulate_kernels(None)
    for actual, expected in zip(found, right, strict=True):
        assert_near(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", ["lstm", "bigru_control"])
class TestScans:
    @pytest.mark.parametrize("width", [15, 16, 17, 32, 33, 65, 127, 129, 200])
    def test_widths(self, folder: Path, name: str, width: int, dtype: torch.dtype) -> None:
        check(folder, name, Case(width, (5, 1, 9, 2, 8, 3)), dtype)

    @pytest.mark.parametrize("width", [20, 130])
    def test_33_utterances(self, folder: Path, name: str, width: int, dtype: torch.dtype) -> None:
        check(folder, name, Case(width, MIXED), dtype)

    def test_more_units_than_threads(self, folder: Path, name: str, dtype: torch.dtype) -> None:
        check(folder, name, Case(520, (2, 1)), dtype)


@pytest.mark.parametrize("name", ["lstm", "bigru_control"])
def test_without_gradients_nothing_is_kept(folder: Path, name: str) -> None:
    """Without gradients the results are the same."""
    op = OPS[name]
    _core.emulate_kernels(folder)
    for width in (20, 130):
        case = Case(width, (5, 1, 9))
        inputs = op.draw(case)
        results, _ = gradients(op, F, inputs, case)
        assert torch.equal(op.run(F, inputs, case)[0], results["0"])
    _core.emulate_kernels(None)
