"""Imports of the Rust core go one way: no room imports a higher one, and no files import in a circle."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^//! \| ([^|]+) \|", re.MULTILINE)
QUIET = re.compile(r'//[^\n]*|"(?:\\.|[^"\\])*"')
USE = re.compile(r"\b(pub )?use ([^;]+);")
PATH = re.compile(r"(?<![\w$:])(?:\w+::)+\w+")
ModulePath = tuple[str, ...]


class Crate:
    """The modules below a folder, and what each takes from which file."""

    def __init__(self, src: Path) -> None:
        self.src = src
        self.files = {self.module(file): file for file in sorted(src.rglob("*.rs"))}
        self.texts = {module: QUIET.sub("", file.read_text()) for module, file in self.files.items()}
        self.exports = {module: dict(self.exported(module)) for module in self.files}

    def module(self, file: Path) -> ModulePath:
        parts = file.relative_to(self.src).with_suffix("").parts
        return parts[:-1] if parts[-1] in ("mod", "lib") else parts

    def exported(self, module: ModulePath) -> Iterator[tuple[str, ModulePath]]:
        for public, tree in USE.findall(self.texts[module]):
            if public:
                for path, name in leaves(tree):
                    yield name, path

    def absolute(self, module: ModulePath, path: ModulePath) -> ModulePath | None:
        """A path of this crate from its root; None for a path of another crate, or of a type."""
        at, rest = module, path
        if path[0] == "crate":
            at, rest = (), path[1:]
        elif path[0] in ("self", "super"):
            while rest and rest[0] in ("self", "super"):
                at, rest = (at[:-1] if rest[0] == "super" else at), rest[1:]
        elif (*module, path[0]) not in self.files:
            return None
        return (*at, *rest)

    def defined(self, module: ModulePath, path: ModulePath, depth: int = 0) -> ModulePath | None:
        """The module that defines what a path leads to, through whatever exports it on the way."""
        whole = self.absolute(module, path)
        if whole is None:
            return None
        place: ModulePath = ()
        for i, name in enumerate(whole):
            if (*place, name) in self.files:
                place = (*place, name)
                continue
            export = self.exports[place].get(name)
            if export is None:
                return place
            assert depth < 9, f"{whole} is exported in a circle"
            return self.defined(place, (*export, *whole[i + 1 :]), depth + 1)
        return place

    def arrows(self) -> dict[ModulePath, set[ModulePath]]:
        """The modules that each imports from, without re-exports of the files below it."""
        found = {}
        for module, text in self.texts.items():
            uses = [(public, path) for public, tree in USE.findall(text) for path, _ in leaves(tree)]
            paths = [path for public, path in uses if not public]
            paths += [tuple(path.split("::")) for path in PATH.findall(USE.sub("", text))]
            targets = {self.defined(module, path) for path in paths} - {None, module, ()}
            found[module] = {target for target in targets if target is not None}
        return found


def leaves(tree: str) -> Iterator[tuple[ModulePath, str]]:
    """Each path of a `use`, and the name under which it is imported."""
    depth, parts, start = 0, [], 0
    tree = " ".join(tree.split())
    for i, letter in enumerate(tree):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            parts.append(tree[start:i])
            start = i + 1
    for part in [*parts, tree[start:]]:
        head, brace, rest = part.strip().partition("{")
        if brace:
            for path, name in leaves(rest.rstrip().removesuffix("}")):
                whole = (*head.strip().strip(":").split("::"), *path)
                yield (whole[:-1], whole[-2]) if path == ("self",) else (whole, name)
        elif head:
            path, _, name = head.partition(" as ")
            names = tuple(path.strip().strip(":").split("::"))
            yield names, name or names[-1]


def rooms(src: Path) -> list[str]:
    """The rooms as the table in `lib.rs` orders them, the lowest first."""
    return [
        room for cell in ROW.findall((src / "lib.rs").read_text()) for room in re.findall(r"`(\w+)`", cell)
    ]


def faults(src: Path) -> list[str]:
    """A sentence for each fault of the rooms."""
    order, crate = rooms(src), Crate(src)
    arrows = crate.arrows()
    name = {module: crate.files[module].relative_to(src).as_posix() for module in crate.files}
    said = [f"{name[m]} is of no room in lib.rs" for m in arrows if m and m[0] not in order]
    for module, targets in arrows.items():
        for target in targets:
            if module and module[0] in order and target[0] in order[order.index(module[0]) + 1 :]:
                said.append(f"{name[module]} imports from {name[target]}, a higher room")
    for circle in circles(arrows):
        said.append("a circle: " + ", ".join(sorted(name[module] for module in circle)))
    return sorted(said)


def circles(arrows: dict[ModulePath, set[ModulePath]]) -> list[frozenset[ModulePath]]:
    """The modules that reach each other, where they are several."""
    reached: dict[ModulePath, set[ModulePath]] = {}
    for start in arrows:
        waiting = [start]
        reached[start] = set()
        while waiting:
            for target in arrows[waiting.pop()] - reached[start]:
                reached[start].add(target)
                waiting.append(target)
    groups = [frozenset(m for m in reached if m in reached[n] and n in reached[m]) for n in reached]
    return list({group for group in groups if len(group) > 1})


@pytest.mark.parametrize("src", ["src", "crates/numeric/src"])
def test_lower_rooms_import_no_higher_ones(src: str):
    assert len(rooms(ROOT / src)) > 10
    assert faults(ROOT / src) == []


HOUSE = {
    "lib.rs": "//! | room |\n//! |---|\n//! | [`base`] |\n//! | [`ops`] |\n//! | `top` |\n",
    "base.rs": "use std::fmt;\npub struct Base;\n",
    "ops/mod.rs": "mod one;\npub mod two;\npub use one::One;\npub const ALL: &[u8] = &[two::SIZE];\n",
    "ops/one.rs": "use crate::base::Base; // never crate::top\npub struct One(Base);\n",
    "ops/two.rs": 'use super::one::{self, One};\npub const SIZE: u8 = one::of("crate::top::Top");\n',
    "top.rs": "pub struct Top(std::fmt::Error);\n",
}


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("base.rs", HOUSE["base.rs"], []),
        ("ops/two.rs", "use super::One;\n", []),  # of one.rs, which mod.rs only exports
        ("base.rs", "use crate::top::Top;\n", ["base.rs imports from top.rs, a higher room"]),
        ("ops/one.rs", "fn f() -> crate::top::Top {}\n", ["ops/one.rs imports from top.rs, a higher room"]),
        (
            "ops/one.rs",
            "use super::super::{\n  base,\n  top::Top,\n};",
            ["ops/one.rs imports from top.rs, a higher room"],
        ),
        (
            "base.rs",
            "use crate::ops::One;\n",
            ["a circle: base.rs, ops/one.rs", "base.rs imports from ops/one.rs, a higher room"],
        ),
        ("ops/one.rs", "use super::two::SIZE;\n", ["a circle: ops/one.rs, ops/two.rs"]),
        ("ops/two.rs", "use super::ALL;\n", ["a circle: ops/mod.rs, ops/two.rs"]),
        ("cellar.rs", "", ["cellar.rs is of no room in lib.rs"]),
    ],
)
def test_what_is_found(file: str, text: str, said: list[str], tmp_path: Path):
    for name, content in (HOUSE | {file: text}).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert faults(tmp_path) == sorted(said)
