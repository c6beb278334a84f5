"""Checks torch's version against the one that the Rust core was built for; imports torch before the core."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from .errors import VersionError

BUILT_FOR = "2.11.0"


def check() -> None:
    """Raises :class:`VersionError` unless the installed torch is the one that mmiln was built for.

    Reads the package's metadata: importing torch takes seconds, too long for the command's help.
    """
    try:
        installed = version("torch").split("+")[0]
    except PackageNotFoundError:
        installed = None
    if installed != BUILT_FOR:
        found = "there is none" if installed is None else f"can't run with torch {installed}"
        raise VersionError(
            f"this mmiln was built for torch {BUILT_FOR} and {found}: "
            f"install it with `pip install torch=={BUILT_FOR}`, or an mmiln built for yours"
        )


class _TorchFirst:
    """Imports torch before Python loads the core, which links against torch's libraries; finds no module."""

    @staticmethod
    def find_spec(fullname: str, path: object, target: object = None) -> None:
        if fullname == f"{__package__}._core":
            import_module("torch")


sys.meta_path.insert(0, _TorchFirst)
