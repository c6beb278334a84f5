"""The workflows of GitHub Actions: `make lint` finds a broken one, and they run targets of the Makefile."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").iterdir())


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """Runs the line of the Makefile in another folder."""
    line = re.search(r"^\tpython (-m jactionlint.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert line is not None
    return subprocess.run([sys.executable, *line[1].split()], cwd=root, capture_output=True, text=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the same workflows."""
    (tmp_path / ".git").mkdir()
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    return tmp_path


def test_the_workflows_are_sound(repository: Path) -> None:
    done = lint(repository)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("pull_request:", "pull_requests:", "unknown-event"),
        ("${{ matrix.python }}", "${{ matrix.pythons }}", "undefined-property"),
        ("timeout-minutes", "timeout-minute", "workflow-syntax"),
        ("python-version", "python-versions", "unknown-action-input"),
        ("run: make test", "run: echo ${{ github.head_ref }}", "template-injection"),
        ("permissions:\n  contents: read\n", "", "missing-permissions"),
    ],
)
def test_a_broken_workflow_is_found(before: str, after: str, said: str, repository: Path) -> None:
    path = repository / ".github" / "workflows" / "checks.yml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    done = lint(repository)
    assert done.returncode == 1, done.stderr
    assert f"[{said}]" in done.stdout


def test_workflows_run_targets_of_the_makefile_and_what_ci_runs() -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", "")
    phony = re.search(r"^\.PHONY:(.*)$", makefile, re.M)
    assert phony is not None
    known = {".ci/run", *(f"make {target}" for target in phony[1].split())}
    jobs: list[dict[str, Any]] = [
        job for path in WORKFLOWS for job in yaml.safe_load(path.read_text())["jobs"].values()
    ]
    run = {step["run"] for job in jobs for step in job["steps"] if "run" in step}
    assert {".ci/run", "make test", "make wheel-all"} <= run <= known
