"""What the Rust core needs of torch: the version that it was compiled against."""

from __future__ import annotations

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
