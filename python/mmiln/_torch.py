"""Chooses the core that fits the installed torch, or says what to install.

The core calls torch's C++ library, whose interface changes with each minor version: a core beside another
torch crashes. One that is built from source lies in this folder, and its file says which torch it is for; the
published wheel has one for each minor version, such as ``_cores/2.15/_core.abi3.so``. All of this is read
from files, as importing torch takes seconds.
"""

from __future__ import annotations

import re
import runpy
import struct
import sys
import warnings
from importlib import import_module
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec, spec_from_file_location
from itertools import pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from .errors import VersionError, VersionWarning

# The published wheel has a core for each minor version of torch from the one to the other.
OLDEST, NEWEST = (2, 11), (2, 15)
INSTALL = f'`pip install "torch>={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}"`'
# pip's cache may hold an mmiln that was built for another torch.
BUILD = "`pip install --force-reinstall --no-deps --no-cache-dir --no-binary mmiln mmiln`"
CLONE_BUILD = "`pip install --no-deps --editable {0}`"
FOLDER = Path(__file__).parent


class Torch(NamedTuple):
    """The torch that Python imports."""

    folder: Path
    version: str
    minor: tuple[int, int]
    debug: bool

    def __str__(self) -> str:
        return f"torch {self.version} in {self.folder}"


def check() -> None:
    """Raises :class:`VersionError` unless a core fits torch; the command prints its text alone."""
    try:
        torch = installed()
        _compare_metadata(torch)
        core(torch)
    except VersionError as error:
        if _is_command():
            sys.exit(f"error: VersionError: {error}")
        raise


def installed() -> Torch:
    """The torch that Python imports, or has imported.

    Raises:
        VersionError: There is none, or what bears its name is something else.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        raise VersionError(
            f"mmiln needs torch {_dotted(OLDEST)} to {_dotted(NEWEST)}, there is none: {INSTALL}"
        )
    folder = Path(spec.origin).parent
    imported = sys.modules.get("torch.version")
    try:
        facts = vars(imported) if imported else runpy.run_path(str(folder / "version.py"))
        version = str(facts["__version__"])
        major, minor = re.findall(r"\d+", version)[:2]
    except Exception as error:
        raise VersionError(
            f"{spec.origin} is not PyTorch, or damaged, as version.py beside it does not say which version "
            f"it is ({type(error).__name__}: {error}): remove it, then {INSTALL}"
        ) from error
    return Torch(folder, version, (int(major), int(minor)), bool(facts.get("debug")))


def core(torch: Torch) -> Path:
    """The file of the core that fits a torch.

    Raises:
        VersionError: There is none; what to install, or how to build one.
    """
    if torch.minor < OLDEST:
        raise VersionError(f"{torch} is too old, mmiln needs {_dotted(OLDEST)} or later: {INSTALL}")
    own = FOLDER / "_core.abi3.so"
    if own.exists():
        built_for = _built_for(own)
        if built_for != torch.minor:
            raise VersionError(
                f"the core of this mmiln was built for torch {_dotted(built_for)}, Python imports {torch}: "
                f"build it anew with {_build()}, or install the former torch with "
                f'`pip install "torch=={_dotted(built_for)}.*"`'
            )
        return own
    cores = {path.parent.name: path for path in FOLDER.glob("_cores/*/_core.abi3.so")}
    if not cores:
        raise VersionError(f"{FOLDER} lacks its compiled core: build it with {_build()}")
    versions = ", ".join(sorted(cores, key=lambda version: int(version.partition(".")[2])))
    choice = f"build one for it with {_build()}, or install a torch that has one with {INSTALL}"
    if _dotted(torch.minor) not in cores:
        choice = choice if torch.minor[0] == OLDEST[0] else INSTALL
        raise VersionError(f"this mmiln has cores for torch {versions}, none for {torch}: {choice}")
    if torch.debug or not re.fullmatch(r"\d+(\.\d+)*(\.post\d+)?", _public(torch.version)):
        kind = "a debug build" if torch.debug else "no release"
        raise VersionError(
            f"{torch} is {kind}, and the cores of this mmiln are for releases of torch {versions}: {choice}"
        )
    return cores[_dotted(torch.minor)]


def _built_for(core: Path) -> tuple[int, int]:
    """The version of torch that a core says in its file (``csrc/version.cpp``)."""
    built_for = None
    if core.stat().st_size:
        with core.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            if words := re.search(rb"mmiln core for torch (\d+)\.(\d+)", content):
                built_for = int(words[1]), int(words[2])
    if built_for is None:
        raise VersionError(
            f"{core} is damaged, or of an older mmiln, as it does not say which torch it was built for: "
            f"build it anew with {_build()}"
        )
    return built_for


def _check_whole(core: Path) -> None:
    """Raises ``ImportError`` if a core was cut: loading it would end the process by a signal."""
    with core.open("rb") as file:
        header = file.read(64)
    if len(header) == 64:
        offset, size, count = struct.unpack("<40xQ10xHH2x", header)  # the table at the end of an ELF file
    if len(header) < 64 or core.stat().st_size < offset + size * count:
        raise ImportError(f"{core} ends too early")


def _compare_metadata(torch: Torch) -> None:
    """Warns if pip knows another torch than the one that Python imports."""
    try:
        known = distribution("torch")
    except PackageNotFoundError:
        return
    folder = Path(str(known.locate_file("torch")))
    another = (folder / "version.py").exists() and folder.resolve() != torch.folder.resolve()
    if another or _public(known.version) != _public(torch.version):
        warnings.warn(
            f"Python imports {torch}, but pip knows and would change torch {known.version} in {folder}: "
            "remove one of them, or install torch anew",
            VersionWarning,
            stacklevel=4,
        )


def _build() -> str:
    """The command that builds a core for the installed torch, in a clone from its sources."""
    clone = FOLDER.parents[1]
    return CLONE_BUILD.format(clone) if (clone / "Cargo.toml").exists() else BUILD


def _dotted(minor: tuple[int, int]) -> str:
    return f"{minor[0]}.{minor[1]}"


def _public(version: str) -> str:
    """A version without its local part, such as ``+cpu``."""
    return version.partition("+")[0]


def _is_command() -> bool:
    """Whether this process is the command ``mmiln``, as a script or as ``python -m mmiln``."""
    by_module = sys.argv[:1] == ["-m"] and ("-m", "mmiln") in pairwise(sys.orig_argv)
    return by_module or [Path(name).name for name in sys.argv[:1]] == ["mmiln"]


class _Loader(ExtensionFileLoader):
    """Imports torch before it loads the core, which links against torch's libraries."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        import_module("torch")
        try:
            _check_whole(Path(self.path))
            return super().create_module(spec)
        except ImportError as error:
            raise VersionError(
                f"the core can't be loaded, it is damaged or does not fit {installed()} ({error}): "
                f"build it anew with {_build()}"
            ) from error


class _Finder:
    """Finds the core that fits, under the one name ``mmiln._core``."""

    @staticmethod
    def find_spec(fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        if fullname != f"{__package__}._core":
            return None
        file = str(core(installed()))
        return spec_from_file_location(fullname, file, loader=_Loader(fullname, file))


sys.meta_path.insert(0, _Finder)
