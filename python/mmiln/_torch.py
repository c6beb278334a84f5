"""What the Rust core needs of torch: the version that it was compiled against, imported before the core."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from .errors import VersionError

BUILT_FOR = "2.11.0"


def check() -> None:
    """Raises :class:`VersionError` unless the installed torch is the one that mmiln was built for.

    Reads what is installed: importing torch takes seconds, and the command's help has no need of it.
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
    """Imports torch when the core, which links against its libraries, is looked for; finds nothing itself."""

    @staticmethod
    def find_spec(fullname: str, path: object, target: object = None) -> None:
        if fullname == f"{__package__}._core":
            import_module("torch")


sys.meta_path.insert(0, _TorchFirst)
