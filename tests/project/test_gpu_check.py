"""What `.ci/gpu-check` says where something is missing, and how it reads what tools report."""

import subprocess
import zipfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mmiln import _torch
from support.waiting import HANG_S, until

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / ".ci" / "gpu-check"
FACTS: dict[str, Any] = {
    "python": "3.12.3",
    "free_threaded": False,
    "torch": "2.11.0+cu130",
    "cuda": "13.0",
    "cards": [["NVIDIA H100", "9.0", 79.0]],
}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    loader = SourceFileLoader("gpu_check", str(SCRIPT))
    module = module_from_spec(spec_from_loader("gpu_check", loader))
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("torch", ["2.11.0+cu130", "2.13.1+cu130", "2.15.0+cu132"])
def test_nothing_is_missing(script: ModuleType, torch: str):
    script.check(FACTS | {"torch": torch}, "python3", needs_card=True)


def test_which_torch_is_supported(script: ModuleType):
    assert script.supported() == (_torch.OLDEST, _torch.NEWEST)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"python": "3.10.1"}, "for Python 3.11 or later"),
        ({"no_torch": "No module named 'torch'"}, "has no torch, 2.11 to 2.15 for CUDA 13 is needed"),
        ({"torch": "2.10.0"}, "has torch 2.10.0, 2.11 to 2.15 is needed"),
        ({"torch": "2.16.0"}, "has torch 2.16.0, 2.11 to 2.15 is needed"),
        ({"cuda": None}, "is built for CUDA None, not 13"),
        ({"cuda": "12.8"}, "is built for CUDA 12.8, not 13"),
        ({"cards": [], "why": "no driver"}, "no GPU that torch can use, .*: no driver$"),
        ({"cards": [["GTX 1080", "6.1", 8.0]]}, "8.0 or later, GTX 1080 has 6.1"),
    ],
)
def test_what_is_missing_is_said(script: ModuleType, changes: dict, sentence: str):
    with pytest.raises(script.Missing, match=sentence):
        script.check(FACTS | changes, "python3", needs_card=True)


def test_a_rehearsal_needs_no_card(script: ModuleType):
    script.check(FACTS | {"cards": [], "why": "no driver"}, "python3", needs_card=False)


@pytest.mark.parametrize(
    ("codes", "result"),
    [
        ((86, 0, 86, 0), "passed"),
        ((86, 86, 86, 0), "failed: memcheck has found something"),
        ((86, 0, 86, 1), "failed: racecheck ended with 1"),
        ((0, 0, 86, 0), r"failed: memcheck does not find the planted fault \(ended with 0\)"),
        ((86, 0), "failed"),
    ],
)
def test_what_the_sanitizer_has_found(script: ModuleType, codes: tuple[int, ...], result: str):
    output = "".join(f"words\nended with {code}\n" for code in codes)
    assert script.judge_sanitizer(0, output) == result.replace("\\", "")


def test_a_machine_without_the_sanitizer(script: ModuleType):
    assert script.judge_sanitizer(1, "Error: Device not supported\nended with 1\n").startswith("skipped")


KERNELS = b"\0".join(path.read_bytes() for path in (ROOT / "src").rglob("*.cu*"))


def write_wheel(wheel: Path, cores: dict[str, bytes], **changes: bytes) -> Path:
    """A wheel of the current Python sources, with stand-ins of cores."""
    python = {
        path.relative_to(ROOT / "python").as_posix(): path.read_bytes()
        for path in (ROOT / "python" / "mmiln").rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in (python | cores | changes).items():
            archive.writestr(name, text)
    return wheel


def core(version: str, kernels: bytes = KERNELS) -> bytes:
    return kernels + f"\0mmiln core for torch {version}.0\0".encode()


def several(*versions: str) -> dict[str, bytes]:
    return {f"mmiln/_cores/{version}/_core.abi3.so": core(version) for version in versions}


def test_a_wheel_of_other_sources(script: ModuleType, tmp_path: Path):
    """A single changed Python or kernel file is noticed, in any core."""

    def differing(cores: dict[str, bytes], **changes: bytes) -> str | None:
        return script.differing(write_wheel(tmp_path / "mmiln.whl", cores, **changes))

    one, two = {"mmiln/_core.abi3.so": core("2.15")}, several("2.14", "2.15")
    assert differing(one) is None
    assert differing(two) is None
    assert differing(one, **{"mmiln/model.py": b"other"}) == "python/mmiln/model.py"
    stale = core("2.15", KERNELS.replace(b"gated_norm_backward", b"x"))
    assert differing({"mmiln/_core.abi3.so": stale}).endswith(".cu in mmiln/_core.abi3.so")
    place = "mmiln/_cores/2.15/_core.abi3.so"
    assert differing(two, **{place: stale}).endswith(f".cu in {place}")


def test_a_wheel_for_another_torch(script: ModuleType, tmp_path: Path):
    wheel = write_wheel(tmp_path / "one.whl", {"mmiln/_core.abi3.so": core("2.13")})
    assert script.unfit(wheel, "2.13.1+cu130") is None
    said = "one.whl is for torch 2.13, and this python3 has torch 2.15.0+cu132"
    assert script.unfit(wheel, "2.15.0+cu132") == said
    wheel = write_wheel(tmp_path / "all.whl", several("2.11", "2.12", "2.13"))
    assert script.unfit(wheel, "2.12.0") is None
    said = "all.whl is for torch 2.11, 2.12, 2.13, and this python3 has torch 2.15.0"
    assert script.unfit(wheel, "2.15.0") == said
    wheel = write_wheel(tmp_path / "none.whl", {})
    assert script.unfit(wheel, "2.15.0") == "none.whl holds no core that says which torch it is for"
    wheel = write_wheel(tmp_path / "old.whl", several("2.15"), **{"mmiln/model.py": b"other"})
    assert script.unfit(wheel, "2.15.0") == "old.whl is of other sources (python/mmiln/model.py differs)"


def test_a_wheel_for_another_torch_without_cargo(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = tmp_path / "dist"
    folder.mkdir()
    monkeypatch.setattr(script, "ROOT", tmp_path)
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    with pytest.raises(script.Missing, match="dist/ holds no wheel, and there is no cargo"):
        script.find_wheel("2.15.0")
    write_wheel(folder / "mmiln-1.whl", {"mmiln/_core.abi3.so": core("2.13")})
    sentence = "is for torch 2.13, and this python3 has torch 2.15.0, .*: run `make wheel` where there is"
    with pytest.raises(script.Missing, match=sentence):
        script.find_wheel("2.15.0")
    monkeypatch.setattr(script.shutil, "which", lambda name: "cargo")
    monkeypatch.setattr(script.subprocess, "run", lambda *args, **options: None)  # builds the same wheel
    with pytest.raises(script.Missing, match=r"or run `make wheel` where torch 2\.15\.0 is installed"):
        script.find_wheel("2.15.0")
    assert script.find_wheel("2.13.0") == folder / "mmiln-1.whl"


def test_a_part_that_hangs_is_ended(script: ModuleType, capfd: pytest.CaptureFixture[str], tmp_path: Path):
    begun = tmp_path / "begun"

    class Begun(subprocess.Popen):
        """A command whose time is not up before it has printed."""

        def wait(self, timeout: float | None = None) -> int:
            until(begun.exists, "the part has begun")
            return super().wait(timeout)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Begun)
        part = script.Part([["sh", "-c", f"echo begun; touch {begun}; sleep {HANG_S}"]], HANG_S, "part.log")
        assert script.run(part, 1.0, tmp_path) == "failed: not done after 1 s"
    assert (tmp_path / "part.log").read_text() == "begun\n" == capfd.readouterr().out
    codes = script.Part([["sh", "-c", "exit 3"], ["true"]], 60, "part.log")
    assert script.run(codes, HANG_S, tmp_path) == "failed"
    assert (tmp_path / "part.log").read_text() == "ended with 3\nended with 0\n"
