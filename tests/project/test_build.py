"""The build backend finds the torch that mmiln will run beside, though pip hides it."""

import os
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The backend in an environment that says nothing of torch."""
    for name in ("LIBTORCH", "LIBTORCH_USE_PYTORCH", "LIBTORCH_BYPASS_VERSION_CHECK", "VIRTUAL_ENV"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", os.environ["PATH"])
    loader = SourceFileLoader("mmiln_build", str(ROOT / "build_backend" / "mmiln_build.py"))
    module = module_from_spec(spec_from_loader("mmiln_build", loader))
    loader.exec_module(module)
    return module


def with_torch(folder: Path, version: str) -> Path:
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "version.py").write_text(f"__version__ = {version!r}\n")
    return folder


@pytest.fixture
def isolated(backend: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """As pip builds: Python finds no torch, and its packages are in this folder."""
    monkeypatch.setattr(backend, "find_spec", lambda _: None)
    monkeypatch.setattr(backend.site, "getsitepackages", lambda: [str(tmp_path / "packages")])
    monkeypatch.setattr(backend.site, "getusersitepackages", lambda: str(tmp_path / "none"))
    return tmp_path / "packages"


def test_the_torch_that_pip_hides_is_found(
    backend: ModuleType, isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_torch(isolated, "2.13.0+cu130")
    assert not any(name.startswith("torch") for name in backend.get_requires_for_build_wheel())
    backend.choose_torch()
    assert os.environ["LIBTORCH"] == str(isolated / "torch")
    assert os.environ["LIBTORCH_BYPASS_VERSION_CHECK"] == "2.13.0+cu130"
    assert os.environ["PATH"].startswith(str(Path(sys.executable).parent))
    assert capsys.readouterr().err == f"building against torch 2.13.0+cu130 of {isolated}\n"


def test_without_torch_the_build_needs_one(backend: ModuleType, isolated: Path) -> None:
    assert backend.TORCH in backend.get_requires_for_build_wheel()
    assert backend.TORCH in backend.get_requires_for_build_editable()
    with pytest.raises(SystemExit, match="mmiln is built against torch, and there is none: pip install"):
        backend.choose_torch()


def test_a_torch_that_is_too_old_is_refused(backend: ModuleType, isolated: Path) -> None:
    with_torch(isolated, "2.9.1")
    with pytest.raises(
        SystemExit, match=r"against torch>=2\.11,<3, and .* is 2\.9\.1: pip install --upgrade"
    ):
        backend.choose_torch()


def test_missing_headers_are_named(
    backend: ModuleType, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_torch(isolated, "2.15.0")
    monkeypatch.setattr(backend.sysconfig, "get_path", lambda _: "/usr/include/python9")
    with pytest.raises(SystemExit, match=r"/usr/include/python9 has no Python\.h: install Python"):
        backend.choose_torch()


@pytest.mark.parametrize("name", ["LIBTORCH", "LIBTORCH_USE_PYTORCH"])
def test_what_the_caller_chose_is_kept(
    backend: ModuleType, isolated: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_torch(isolated, "2.9.1")
    monkeypatch.setenv(name, "chosen")
    backend.choose_torch()
    assert os.environ[name] == "chosen"
