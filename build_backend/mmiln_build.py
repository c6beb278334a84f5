"""The build backend: maturin, against the torch that mmiln will run beside.

pip builds in an environment of its own, where the user's torch is hidden; without this, the core would be
compiled against whichever torch is newest. The user's torch is looked for among the packages of the
interpreter that runs pip. Where it has none, as with tools that give the build an interpreter of its own,
torch becomes a requirement of the build.
"""

from __future__ import annotations

import os
import re
import runpy
import site
import sys
import sysconfig
import tomllib
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import maturin
from maturin import build_sdist, get_requires_for_build_sdist, prepare_metadata_for_build_wheel

__all__ = [
    "build_editable", "build_sdist", "build_wheel", "get_requires_for_build_editable",
    "get_requires_for_build_sdist", "get_requires_for_build_wheel", "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]  # fmt: skip

PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
TORCH = next(name for name in PROJECT["dependencies"] if name.startswith("torch"))

Settings = Mapping[str, object] | None

prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What maturin needs, and torch if the interpreter has none."""
    return [*maturin.get_requires_for_build_wheel(config_settings), *([] if torch_folder() else [TORCH])]


get_requires_for_build_editable = get_requires_for_build_wheel


def build_wheel(wheel: str, config_settings: Settings = None, metadata: str | None = None) -> str:
    """Builds a wheel into the folder ``wheel``; returns its name."""
    choose_torch()
    return maturin.build_wheel(wheel, config_settings, metadata)


def build_editable(wheel: str, config_settings: Settings = None, metadata: str | None = None) -> str:
    """Builds the core into the source tree, and a wheel that refers to it."""
    choose_torch()
    return maturin.build_editable(wheel, config_settings, metadata)


def torch_folder() -> Path | None:
    """The torch of the interpreter that runs pip, else that of the environment of the build."""
    of_build = find_spec("torch")
    folders = [*site.getsitepackages(), site.getusersitepackages()]
    places = [Path(folder) / "torch" for folder in folders]
    if of_build and of_build.origin:
        places.append(Path(of_build.origin).parent)
    return next((place for place in places if (place / "version.py").is_file()), None)


def numbers(text: str) -> list[int]:
    """The first two numbers of a version or a requirement."""
    return [int(number) for number in re.findall(r"\d+", text)[:2]]


def choose_torch() -> None:
    """Tells torch-sys where torch and Python's headers are, unless the caller did."""
    if "LIBTORCH" in os.environ or "LIBTORCH_USE_PYTORCH" in os.environ:
        return
    folder = torch_folder()
    if folder is None:
        sys.exit(f"mmiln is built against torch, and there is none: pip install '{TORCH}'")
    version = runpy.run_path(str(folder / "version.py"))["__version__"]
    if numbers(version) < numbers(TORCH):
        sys.exit(
            f"mmiln is built against {TORCH}, and {folder} is {version}: pip install --upgrade '{TORCH}'"
        )
    headers = Path(sysconfig.get_path("include"))
    if not (headers / "Python.h").is_file():
        sys.exit(f"{headers} has no Python.h: install Python's headers, on Debian by apt install python3-dev")
    print(f"building against torch {version} of {folder.parent}", file=sys.stderr)
    os.environ["LIBTORCH"] = str(folder)
    os.environ["LIBTORCH_BYPASS_VERSION_CHECK"] = version  # torch-sys compiles again if it changes
    # torch-sys asks an interpreter for its headers: `python` if this variable is set, else `python3`.
    os.environ.pop("VIRTUAL_ENV", None)
    if sys.prefix != sys.base_prefix:
        os.environ["VIRTUAL_ENV"] = sys.prefix
    os.environ["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
