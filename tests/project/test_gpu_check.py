"""What `.ci/gpu-check` says where something is missing, and how it reads what tools report."""

import subprocess
import zipfile
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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


def test_nothing_is_missing(script: ModuleType):
    script.check(FACTS, "python3", needs_card=True)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"python": "3.10.1"}, "for Python 3.11 or later"),
        ({"no_torch": "No module named 'torch'"}, "has no torch, 2.11.0 for CUDA 13 is needed"),
        ({"torch": "2.10.0"}, "has torch 2.10.0, 2.11.0 is needed"),
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


def test_a_wheel_of_other_sources(script: ModuleType, tmp_path: Path):
    """A single changed Python or kernel file is noticed."""
    python = {
        path.relative_to(ROOT / "python").as_posix(): path.read_bytes()
        for path in (ROOT / "python" / "mmiln").rglob("*.py*")
        if path.suffix in (".py", ".pyi")
    }
    kernels = b"\0".join(p.read_bytes() for p in (ROOT / "src").rglob("*.cu*"))

    def differing(**changes: bytes) -> str | None:
        wheel = tmp_path / "mmiln.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, text in (python | {"mmiln/_core.abi3.so": kernels} | changes).items():
                archive.writestr(name, text)
        return script.differing(wheel)

    assert differing() is None
    assert differing(**{"mmiln/model.py": b"other"}) == "python/mmiln/model.py"
    assert differing(**{"mmiln/_core.abi3.so": kernels.replace(b"gated_norm_backward", b"x")}).endswith(".cu")


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
