"""No module of the package imports another in a circle, in type hints neither."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PYTHON = Path(__file__).parents[2] / "python"


def imports(root: Path, package: str) -> dict[str, set[str]]:
    """For each module of a package, the modules of it that it imports, also in functions or for types."""
    paths = [path for path in (root / package).rglob("*.py*") if path.suffix in (".py", ".pyi")]
    modules = {_name(path.relative_to(root)): path for path in paths}
    found: dict[str, set[str]] = {}
    for module, path in modules.items():
        here = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
        names = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                above = here[: len(here) - node.level + 1] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                whole = {f"{base}.{name.name}" for name in node.names}
                names |= whole if whole & modules.keys() else {base}
        found[module] = names & modules.keys() - {module}
    return found


def _name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of a circle, each imported by the one before; none where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_no_circle() -> None:
    graph = imports(PYTHON, "mmiln")
    assert {"mmiln.config", "mmiln.training.estimator"} <= graph["mmiln.model"]
    assert len(graph) > 100
    assert not circle(graph), " -> ".join(circle(graph))


@pytest.mark.parametrize(
    "back",
    [
        "from .. import low",
        "from p.low import x",
        "import p.low",
        "def f():\n    from ..low import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..low import X",
    ],
)
def test_a_circle_is_found(back: str, tmp_path: Path) -> None:
    """It is found for every form of import in the second of two modules."""
    room = tmp_path / "p" / "room"
    room.mkdir(parents=True)
    (tmp_path / "p" / "__init__.py").touch()
    (tmp_path / "p" / "low.py").write_text("from .room import high\n")
    (room / "__init__.py").touch()
    (room / "high.py").write_text("x = 1\n")
    assert circle(imports(tmp_path, "p")) == []
    (room / "high.py").write_text(back)
    found = circle(imports(tmp_path, "p"))
    assert set(found) == {"p.low", "p.room.high"}
    assert found[0] == found[-1]
