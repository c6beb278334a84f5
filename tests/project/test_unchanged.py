"""Long checks that CI leaves out: `.ci/unchanged` says so only of what has passed in this very state."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "unchanged"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree of the same shape, whose CUDA check has passed."""
    for name in ("src/ops/lstm/cuda.cu", "src/train/step.rs", "tests/gpu/test_ops.py", "Cargo.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "unchanged").write_bytes(SCRIPT.read_bytes())
    assert run(tmp_path).returncode != 0, "nothing has passed yet"
    assert run(tmp_path, "--record", run(tmp_path, "--state").stdout.strip()).returncode == 0
    return tmp_path


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", root / ".ci" / "unchanged", "cuda", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_what_has_passed_is_skipped_and_said_to_be(root: Path) -> None:
    done = run(root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("cuda: skipped: unchanged since 2")
    assert done.stdout.endswith("`make cuda` runs it\n")
    (root / "docs.md").write_text("of no concern")
    assert run(root).returncode == 0


@pytest.mark.parametrize("name", ["src/ops/lstm/cuda.cu", "src/train/step.rs", "Cargo.lock", "src/new.cuh"])
@pytest.mark.parametrize("how", ["changed", "gone"])
def test_any_change_has_it_run(how: str, name: str, root: Path) -> None:
    (root / name).write_text("other")
    if how == "gone":
        (root / name).unlink()
    assert (run(root).returncode == 0) == (how == "gone" and name == "src/new.cuh")


def test_what_changed_while_it_was_checked_is_not_recorded(root: Path) -> None:
    before = run(root, "--state").stdout.strip()
    (root / "Cargo.lock").write_text("other")
    done = run(root, "--record", before)
    assert done.returncode != 0
    assert "files have changed" in done.stderr
    assert run(root).returncode != 0


@pytest.mark.parametrize("content", ["", "[cuda", "[cuda]\n", "[other]\nstate = 1\n"])
def test_a_record_that_says_nothing_has_it_run(content: str, root: Path) -> None:
    (root / ".ci" / "checked.toml").write_text(content)
    assert run(root).returncode != 0
