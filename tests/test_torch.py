"""Which torch is installed, and which core fits it, with stand-ins of torch, its metadata and the cores."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from mmiln import _core, _torch

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "python" / "mmiln"
BUILD = "pip install --force-reinstall --no-deps --no-cache-dir --no-binary mmiln mmiln`"
INSTALL = '`pip install "torch>=2.11,<2.16"`'
WHEEL = ["2.11", "2.12", "2.13", "2.14", "2.15"]
FIND = "import mmiln, importlib.util; print(importlib.util.find_spec('mmiln._core').origin)"
IMPORT_CORE = "import mmiln._core"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An installed mmiln that has no core, nor torch beside it."""
    package = tmp_path / "mmiln"
    package.mkdir()
    for path in PACKAGE.iterdir():
        if not path.name.startswith(("_core", "__pycache__")):
            (package / path.name).symlink_to(path)
    return tmp_path


def torch_in(
    folder: Path, version: str, *, metadata: str | None = None, source: str = "", **facts: object
) -> None:
    (folder / "torch").mkdir(parents=True)
    (folder / "torch" / "__init__.py").write_text(source)
    facts = {"__version__": version, "debug": False, "cuda": "13.0", "hip": None} | facts
    (folder / "torch" / "version.py").write_text("".join(f"{k} = {v!r}\n" for k, v in facts.items()))
    known = metadata or version
    about = folder / f"torch-{known}.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text(f"Metadata-Version: 2.1\nName: torch\nVersion: {known}\n")


def wheel_of_cores(folder: Path, versions: list[str] = WHEEL) -> None:
    for version in versions:
        core = folder / "mmiln" / "_cores" / version / "_core.abi3.so"
        core.parent.mkdir(parents=True)
        core.write_bytes(f"\0mmiln core for torch {version}.0\0".encode())


def own_core(folder: Path, content: str) -> None:
    (folder / "mmiln" / "_core.abi3.so").write_bytes(content.encode())


def python(
    *arguments: str, paths: list[Path], options: tuple[str, ...] = ("-W", "error")
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), "COLUMNS": "1000"}
    command = [sys.executable, *options, *arguments]
    return subprocess.run(command, env=environment, cwd=paths[0], capture_output=True, text=True, check=False)


def refused(*paths: Path, code: str = "import mmiln") -> str:
    """The sentence that the import raises, the command's too: that one comes alone."""
    result = python("-c", code, paths=[*paths])
    assert result.returncode == 1
    name, _, sentence = result.stderr.strip().splitlines()[-1].partition(": ")
    assert name == "mmiln.errors.VersionError", result.stderr
    if code == "import mmiln":
        script = paths[0] / "bin" / "mmiln"
        script.parent.mkdir(exist_ok=True)
        script.write_text("from mmiln.cli import main\nmain()\n")
        for command in (["-m", "mmiln", "--help"], [str(script), "inspect", "x"]):
            assert python(*command, paths=[*paths]).stderr == f"error: VersionError: {sentence}\n"
    return sentence


def found(*paths: Path) -> str:
    """The core's place in the package."""
    result = python("-c", FIND, paths=[*paths])
    assert result.returncode == 0, result.stderr
    return Path(result.stdout.strip()).relative_to(paths[0] / "mmiln").as_posix()


@pytest.mark.parametrize(
    "version", ["2.11.0", "2.11.2+cu130", "2.13.0+cpu", "2.15.0", "2.15.1.post1", "2.15.0+git1"]
)
def test_the_core_for_the_minor_version_is_chosen(folder: Path, version: str) -> None:
    torch_in(folder, version)
    wheel_of_cores(folder)
    minor = ".".join(version.split(".")[:2])
    assert found(folder) == f"_cores/{minor}/_core.abi3.so"
    shown = python("-m", "mmiln", "--help", paths=[folder], options=())
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize(
    "facts", [{}, {"cuda": None}, {"cuda": None, "hip": "7.1"}], ids=["cuda", "cpu", "rocm"]
)
def test_every_kind_of_release_has_a_core(folder: Path, facts: dict[str, object]) -> None:
    torch_in(folder, "2.14.0", **facts)
    wheel_of_cores(folder)
    assert found(folder) == "_cores/2.14/_core.abi3.so"


@pytest.mark.parametrize("leftover", [False, True])
def test_no_torch(folder: Path, leftover: bool) -> None:
    wheel_of_cores(folder)
    if leftover:  # as pip leaves a folder that holds other files
        (folder / "torch").mkdir()
    # Python would take the torch that runs these tests.
    hide = "import importlib.machinery as m, sys\nfind = m.PathFinder.find_spec\n"
    hide += "def without(name, *rest):\n    return None if name == 'torch' else find(name, *rest)\n"
    hide += "m.PathFinder.find_spec = without\n"
    (folder / "sitecustomize.py").write_text(hide)
    assert refused(folder) == f"mmiln needs torch 2.11 to 2.15, there is none: {INSTALL}"


@pytest.mark.parametrize("own", [False, True])
def test_too_old(folder: Path, own: bool) -> None:
    torch_in(folder, "2.10.1+cu130")
    if own:
        own_core(folder, "mmiln core for torch 2.15.0\0")
    else:
        wheel_of_cores(folder)
    sentence = f"torch 2.10.1+cu130 in {folder / 'torch'} is too old, mmiln needs 2.11 or later: {INSTALL}"
    assert refused(folder) == sentence


def test_too_new_for_the_wheel(folder: Path) -> None:
    torch_in(folder, "2.16.0")
    wheel_of_cores(folder)
    sentence = refused(folder)
    assert "has cores for torch 2.11, 2.12, 2.13, 2.14, 2.15, none for torch 2.16.0 in" in sentence
    assert BUILD in sentence
    assert INSTALL in sentence


def test_no_core_can_be_built_for_torch_3(folder: Path) -> None:
    torch_in(folder, "3.0.0")
    wheel_of_cores(folder)
    sentence = refused(folder)
    assert sentence.endswith(f"none for torch 3.0.0 in {folder / 'torch'}: {INSTALL}")


def test_a_wheel_that_lacks_a_version(folder: Path) -> None:
    torch_in(folder, "2.12.0")
    wheel_of_cores(folder, ["2.9", "2.11", "2.13"])
    assert "has cores for torch 2.9, 2.11, 2.13, none for torch 2.12.0" in refused(folder)


def test_an_own_core_after_an_upgrade_of_torch(folder: Path) -> None:
    torch_in(folder, "2.15.0+cu132")
    own_core(folder, "\0mmiln core for torch 2.13.0\0")
    sentence = refused(folder)
    assert sentence.startswith(
        "the core of this mmiln was built for torch 2.13, Python imports torch 2.15.0+cu132"
    )
    assert BUILD in sentence
    assert '`pip install "torch==2.13.*"`' in sentence


def test_a_clone_is_built_from_its_sources(folder: Path) -> None:
    clone = folder / "clone"
    (clone / "python").mkdir(parents=True)
    (folder / "mmiln").rename(clone / "python" / "mmiln")
    (clone / "Cargo.toml").touch()
    torch_in(clone / "python", "2.15.0")
    sentence = refused(clone / "python")
    assert sentence.startswith(f"{clone / 'python' / 'mmiln'} lacks its compiled core: build it with ")
    assert f"pip install --no-deps --editable {clone}`" in sentence


@pytest.mark.parametrize(
    ("version", "debug", "kind"),
    [
        ("2.15.0.dev20261120+cu132", False, "no release"),
        ("2.15.0a0+git123", False, "no release"),
        ("2.15.0rc1", False, "no release"),
        ("2.15.1.dev1", False, "no release"),
        ("2.15.0", True, "a debug build"),
    ],
)
def test_what_is_no_release_needs_an_own_core(folder: Path, version: str, debug: bool, kind: str) -> None:
    torch_in(folder, version, debug=debug)
    wheel_of_cores(folder)
    sentence = refused(folder)
    assert sentence.startswith(f"torch {version} in {folder / 'torch'} is {kind}")
    assert BUILD in sentence
    own_core(folder, "\0mmiln core for torch 2.15.0\0")
    assert found(folder) == "_core.abi3.so"


def test_a_prerelease_of_a_version_without_a_core(folder: Path) -> None:
    torch_in(folder, "2.16.0a0+git123")
    wheel_of_cores(folder)
    assert "none for torch 2.16.0a0+git123" in refused(folder)
    own_core(folder, "\0mmiln core for torch 2.16.0\0")
    assert found(folder) == "_core.abi3.so"


def test_the_imported_one_of_two_torches_decides(folder: Path) -> None:
    wheel_of_cores(folder)
    torch_in(folder, "2.12.0")
    torch_in(folder / "second", "2.15.0")
    assert found(folder, folder / "second") == "_cores/2.12/_core.abi3.so"
    shutil.rmtree(folder / "torch-2.12.0.dist-info")
    options = ("-W", "always")
    result = python("-c", "import mmiln", paths=[folder, folder / "second"], options=options)
    assert result.returncode == 0
    assert (
        f"VersionWarning: Python imports torch 2.12.0 in {folder / 'torch'}, but pip knows and would change "
        f"torch 2.15.0 in {folder / 'second' / 'torch'}: remove one of them, or install torch anew\n"
    ) in result.stderr
    assert result.stderr.startswith("<string>:1: ")  # it points at the import


def test_two_torches_of_one_version(folder: Path) -> None:
    wheel_of_cores(folder)
    torch_in(folder, "2.15.0+cu130")
    torch_in(folder / "second", "2.15.0+cu132")
    shutil.rmtree(folder / "torch-2.15.0+cu130.dist-info")
    result = python("-c", "import mmiln", paths=[folder, folder / "second"])
    assert "mmiln.errors.VersionWarning: Python imports torch 2.15.0+cu130 in" in result.stderr


def test_metadata_of_another_version(folder: Path) -> None:
    wheel_of_cores(folder)
    torch_in(folder, "2.14.0", metadata="2.15.0")
    result = python("-c", "import mmiln", paths=[folder])
    assert "mmiln.errors.VersionWarning: Python imports torch 2.14.0 in" in result.stderr


def test_metadata_apart_from_an_editable_torch(folder: Path) -> None:
    wheel_of_cores(folder)
    torch_in(folder, "2.15.0+git1", metadata="2.15.0+git2")
    (folder / "site").mkdir()
    (folder / "torch-2.15.0+git2.dist-info").rename(folder / "site" / "torch-2.15.0+git2.dist-info")
    assert found(folder, folder / "site") == "_cores/2.15/_core.abi3.so"


def test_a_torch_in_memory_counts_though_it_was_upgraded_on_disk(folder: Path) -> None:
    wheel_of_cores(folder)
    torch_in(folder, "2.13.0", source="from . import version")
    upgrade = "import torch; open('torch/version.py', 'w').write('__version__ = \"2.15.0\"'); "
    result = python("-c", upgrade + FIND, paths=[folder])
    assert result.stdout.strip().endswith("_cores/2.13/_core.abi3.so"), result.stderr


@pytest.mark.parametrize("content", [None, "", "__version__ = 'unknown'", "cuda = None", "def"])
def test_what_only_bears_the_name_of_torch(folder: Path, content: str | None) -> None:
    wheel_of_cores(folder)
    (folder / "torch.py").write_text("my_own = True")
    if content is not None:
        (folder / "version.py").write_text(content)
    assert refused(folder).startswith(
        f"{folder / 'torch.py'} is not PyTorch, or damaged, as version.py beside it"
    )


def test_a_torch_that_cannot_be_imported_says_why(folder: Path) -> None:
    torch_in(folder, "2.15.0", source="raise ImportError('libcudart.so.13: cannot open shared object file')")
    wheel_of_cores(folder)
    result = python("-c", IMPORT_CORE, paths=[folder])
    assert result.stderr.endswith("\nImportError: libcudart.so.13: cannot open shared object file\n")


def test_no_core(folder: Path) -> None:
    torch_in(folder, "2.15.0")
    assert refused(folder).startswith(f"{folder / 'mmiln'} lacks its compiled core: build it with ")


@pytest.mark.parametrize("content", ["", "\x7fELF and no words about torch"])
def test_an_own_core_that_does_not_say_its_torch(folder: Path, content: str) -> None:
    torch_in(folder, "2.15.0")
    own_core(folder, content)
    sentence = refused(folder)
    assert sentence.startswith(f"{folder / 'mmiln' / '_core.abi3.so'} is damaged, or of an older mmiln")
    assert BUILD in sentence


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_a_damaged_core(folder: Path, own: bool, short: bool) -> None:
    torch_in(folder, "2.15.0")
    wheel_of_cores(folder)
    content = "" if short else "\0" * 64
    if own:
        own_core(folder, content + "\0mmiln core for torch 2.15.0\0")
    elif not short:
        (folder / "mmiln" / "_cores" / "2.15" / "_core.abi3.so").write_text("\0" * 64)
    sentence = refused(folder, code=IMPORT_CORE)
    assert sentence.startswith("the core can't be loaded, it is damaged or does not fit torch 2.15.0 in")
    assert "_core.abi3.so ends too early" in sentence if short else "invalid ELF header" in sentence
    assert BUILD in sentence


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99999])
def test_a_core_that_was_cut(folder: Path, share: float) -> None:
    content = Path(_core.__file__).read_bytes()
    cut = folder / "mmiln" / "_cores" / ".".join(torch.__version__.split(".")[:2]) / "_core.abi3.so"
    cut.parent.mkdir(parents=True)
    cut.write_bytes(content[: int(len(content) * share)])
    sentence = refused(folder, code=IMPORT_CORE)
    assert sentence.startswith("the core can't be loaded, it is damaged")
    assert "_core.abi3.so ends too early" in sentence


def test_the_range_is_the_same_everywhere() -> None:
    oldest, newest = _torch.OLDEST, _torch.NEWEST
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"torch>={oldest[0]}.{oldest[1]},<{newest[0] + 1}" in project["dependencies"]
    assert f"\ntorch=={oldest[0]}.{oldest[1]}.0" in (ROOT / "requirements.lowest").read_text()
    header = (ROOT / "csrc" / "torch" / "mmiln_torch.h").read_text()
    stated = re.search(r"TORCH_VERSION_MAJOR == (\d+) && TORCH_VERSION_MINOR >= (\d+)", header)
    assert stated is not None
    assert tuple(map(int, stated.groups())) == oldest
    assert f"{newest[0]}.{newest[1] + 1}" in _torch.INSTALL
    manual = " ".join((ROOT / "docs" / "torch.md").read_text(encoding="utf-8").replace("\\\n", " ").split())
    assert _torch.INSTALL in manual
    assert _torch.BUILD.strip("`") in manual


def test_the_core_is_for_the_torch_that_runs_here() -> None:
    installed = _torch.installed()
    assert installed.version == torch.__version__
    assert installed.minor >= _torch.OLDEST
    assert _core.__file__ == str(_torch.core(installed))
    assert tuple(map(int, _core.TORCH_VERSION.split(".")[:2])) == installed.minor
    assert f"mmiln core for torch {_core.TORCH_VERSION}\0".encode() in Path(_core.__file__).read_bytes()
