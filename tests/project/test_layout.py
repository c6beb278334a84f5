"""Where tests lie, that none imports another, and the versions that CONTRIBUTING.md names."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def imported(module: Path) -> Iterator[str]:
    """Every dotted name that a module imports, whether as a module or out of one."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{name.name}" for name in node.names)


def test_no_test_module_is_imported() -> None:
    """Code that two test modules need is in tests/support."""
    modules = sorted(TESTS.rglob("*.py"))
    found = {
        f"{module.relative_to(TESTS)} imports {name}"
        for module in modules
        for name in imported(module)
        if any(part.startswith("test_") for part in name.split("."))
    }
    assert len(modules) > 100
    assert not found


def test_each_room_has_its_tests() -> None:
    rooms = {path.parent.name for path in (ROOT / "python" / "mmiln").glob("*/__init__.py")}
    assert {"data", "baselines", "experiments"} <= rooms
    assert rooms <= {path.parent.name for path in TESTS.glob("*/test_*.py")}


def test_the_table_of_dependencies_has_the_locked_versions() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| [\d.]+ \|", text, re.MULTILINE)
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text(encoding="utf-8"))["package"]
    assert rows
    assert set(rows) <= {(package["name"], package["version"]) for package in packages}
