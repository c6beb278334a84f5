"""Settings of every test."""

import os
from pathlib import Path

import pytest
import torch

pytest_plugins = ["pytester"]
pytest.register_assert_rewrite("support")

# Compiled CUDA kernels, kept for the next run of the tests.
os.environ.setdefault("MMILN_CACHE", str(Path(__file__).parents[1] / "target" / "cache"))
# Tests are small: a second thread gains nothing and, beside another busy process, loses a lot.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--emulate-cuda",
        action="store_true",
        help="run every operation by the kernels for CUDA, compiled for the CPU (tests/cuda/shim.h)",
    )
    parser.addoption(
        "--fuzz",
        type=int,
        metavar="N",
        help="give each reader of tests/fuzz so many damaged files, others in every run",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--emulate-cuda"):
        from cuda import shim
        from mmiln import _core

        _core.emulate_kernels(shim.build())
