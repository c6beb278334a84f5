"""What importing the package does, and what it must not do."""

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import mmiln
from mmiln import _core

ROOT = Path(__file__).parents[1]

IMPORT_AND_LOOK = """
import logging, os, sys, pathlib
def files():
    return {str(p) for root in (os.environ["HOME"], ".") for p in pathlib.Path(root).rglob("*")}
before = files()
import mmiln
heavy = {"torch", "numpy", "mmiln._core", "typer", "rich", "pydantic"} & set(sys.modules)
assert not heavy, f"imported before anything was asked for: {heavy}"
rooms = mmiln.Model, mmiln.Metrics, mmiln.baselines, mmiln.callbacks, mmiln.data, mmiln.functional
import torch
ours = [name for name in logging.root.manager.loggerDict if name.startswith("mmiln")]
assert not any(logging.getLogger(name).handlers for name in [None, *ours]), "a logger was configured"
assert not torch.cuda.is_initialized(), "a CUDA context was started"
heavy = {"pandas", "matplotlib.pyplot", "sklearn", "huggingface_hub", "transformers"} & set(sys.modules)
assert not heavy, f"imported without need: {heavy}"
assert files() == before, files() - before
"""

EACH_NAME_FIRST = """
import os, torch, mmiln
for name in mmiln.__all__:
    child = os.fork()
    if not child:
        getattr(mmiln, name)
        os._exit(0)  # not reached where that raised, which ends the child with 1
    assert os.waitpid(child, 0)[1] == 0, name
"""


def run(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        "HOME": str(cwd),
        "PATH": "/usr/bin:/bin",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPATH": str(Path(mmiln.__file__).parents[1]),
    }
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_import_has_no_side_effect(tmp_path):
    result = run(IMPORT_AND_LOOK, tmp_path)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("code", ["from mmiln._core import Core", EACH_NAME_FIRST])
def test_nothing_has_to_be_imported_before(code, tmp_path):
    result = run(code, tmp_path)
    assert result.returncode == 0, result.stderr


def test_core_needs_no_cuda_library_and_no_build_path():
    header = subprocess.run(
        ["readelf", "-d", _core.__file__], capture_output=True, text=True, check=True
    ).stdout
    needed = [line for line in header.splitlines() if "NEEDED" in line]
    assert any("libtorch_cpu" in line for line in needed)
    assert not any("cuda" in line for line in needed)
    assert "RPATH" not in header
    assert "RUNPATH" not in header


def test_core_needs_no_function_that_some_python_lacks():
    """torch's headers call private functions of Python; these exist in CPython 3.11 to 3.14."""
    lines = subprocess.run(
        ["readelf", "--dyn-syms", "--wide", _core.__file__], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    needed = {line.split()[7] for line in lines if " GLOBAL " in line and " UND " in line}
    private = {name for name in needed if re.match("_Py[^_]", name)}
    assert private <= {"_PyObject_GetDictPtr", "_PyObject_New", "_PyType_Lookup"}
    assert any(name.startswith("PyObject_") for name in needed)


@pytest.mark.slow
def test_source_distribution_holds_every_crate(tmp_path):
    maturin = ["maturin", "sdist", "--manifest-path", str(ROOT / "Cargo.toml"), "--out", str(tmp_path)]
    subprocess.run(maturin, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # from 3.11.4 on
        archive.extractall(tmp_path, **safe)
    folder = next(path for path in tmp_path.iterdir() if path.is_dir())
    for room in ("src", "csrc", "crates/numeric/src"):
        sources = {path.relative_to(ROOT) for path in (ROOT / room).rglob("*") if path.is_file()}
        assert sources and all((folder / path).is_file() for path in sources), room
    # Cargo.lock must fit the crates in the archive.
    metadata = ["cargo", "metadata", "--locked", "--offline", "--format-version", "1"]
    subprocess.run(metadata, cwd=folder, check=True, capture_output=True)


def test_public_names_exist_and_are_documented():
    for name in mmiln.__all__:
        assert getattr(mmiln, name).__doc__, name
    assert set(dir(mmiln)) == {"__version__", *mmiln.__all__}
    assert mmiln.config.Config is mmiln.model.Config  # modules that are not listed are found, too


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'mmiln' has no attribute 'Modell'"):
        mmiln.Modell  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Modell' from 'mmiln'"):
        from mmiln import Modell  # noqa: F401


def test_every_error_is_ours_and_a_builtin():
    warnings = "DataWarning", "StateWarning", "VersionWarning"
    for name, error in vars(mmiln.errors).items():
        if isinstance(error, type) and name not in ("MmilnError", *warnings):
            assert issubclass(error, mmiln.errors.MmilnError), name
            assert len(error.__mro__) > 4, f"{name} should also be a built-in exception"
