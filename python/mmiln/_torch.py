"""What the Rust core needs of torch: the version that it was compiled against, and a neutral state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .errors import VersionError

BUILT_FOR = "2.11.0"


def check() -> None:
    """Raises :class:`VersionError` unless the installed torch is the one that mmiln was built for."""
    installed = torch.__version__.split("+")[0]
    if installed != BUILT_FOR:
        raise VersionError(
            f"this mmiln was built for torch {BUILT_FOR} and can't run with torch {installed}: "
            f"install it with `pip install torch=={BUILT_FOR}`, or an mmiln built for yours"
        )


@contextmanager
def neutral() -> Iterator[None]:
    """The state that the core computes in, whatever the caller's thread is set to.

    Under a caller's ``inference_mode`` weights could not be trained, under ``autocast`` numbers would
    change. The core enters this around every call.
    """
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        torch.autocast("cpu", enabled=False),
        torch.autocast("cuda", enabled=False),
    ):
        yield
