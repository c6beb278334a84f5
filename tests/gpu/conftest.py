"""The device of these tests: a card or, under `--emulate-cuda`, the CPU that runs the kernels for CUDA."""

import os
import warnings
from collections.abc import Iterator

import pytest
import torch

from cuda import shim
from support import kernels


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    with warnings.catch_warnings(action="ignore"):
        if torch.cuda.is_available():
            return "cuda"
    if request.config.getoption("--emulate-cuda"):
        return "cpu"
    pytest.skip("needs a CUDA device; --emulate-cuda runs the kernels on the CPU")


@pytest.fixture
def card(device: str) -> str:
    """The CUDA device; skips a test that means nothing on the CPU."""
    if device == "cpu":
        pytest.skip("needs a CUDA device")
    return device


@pytest.fixture(autouse=True)
def whole(device: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Sets the kernels. Ends the run where a test has broken the card's context: nothing works after it."""
    if device == "cpu":
        kernels.emulate(shim.build())  # also where a test of another folder went back to the CPU's own
    yield
    if device == "cuda":
        try:
            torch.cuda.synchronize()
        except RuntimeError as error:
            _lost(f"{request.node.nodeid} broke the card's context: {error}")


def _lost(reason: str) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        os._exit(1)  # pytest-xdist starts another worker, which goes on with the next test
    pytest.exit(reason, returncode=1)
