"""Examples in docs/ run as they stand, and pages generated from the sources are current."""

import html
import re
import shlex
import sys
import tomllib
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

import mmiln
from mmiln import cli
from mmiln.experiments import Experiment, Search

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {str(page.relative_to(DOCS)): page.read_text(encoding="utf-8") for page in sorted(DOCS.rglob("*.md"))}


def fences(language: str) -> dict[str, list[str]]:
    """The contents of each page's fences of a language; pages without any are left out."""
    found = {
        page: re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        for page, text in PAGES.items()
    }
    return {page: examples for page, examples in found.items() if examples}


EXAMPLES = fences("python")


@pytest.mark.parametrize("page", EXAMPLES)
def test_examples_run(page, tmp_path, monkeypatch):
    """Runs all examples of a page, from top to bottom, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for example in EXAMPLES[page]:
        exec(compile(example, page, "exec"), names)


def commands() -> Iterator[tuple[str, str]]:
    """Each line that calls ``mmiln``, with its page."""
    for page, examples in fences("(?:bash)?").items():
        for line in "".join(examples).replace("\\\n", " ").splitlines():
            for call in re.findall(r"(?:^|\| )(mmiln [^|]*)", line):
                yield page, call


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_exist(page, line):
    """Parses each command with its options; nothing is run."""
    command = typer.main.get_command(cli.app)
    words = shlex.split(line, comments=True)[1:]
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    command.make_context("mmiln", words)


@pytest.mark.parametrize("text", [example for examples in fences("toml").values() for example in examples])
def test_descriptions_are_valid(text):
    description = {"name": "example"} | tomllib.loads(text)
    kind = Search if "space" in description else Experiment
    kind.of(description)


def below(command, name: str) -> Iterator[tuple[str, object]]:
    """Every command of a group, with its full name, in the order of the page."""
    for word, one in getattr(command, "commands", {}).items():
        yield f"{name} {word}", one
        yield from below(one, f"{name} {word}")


def test_the_page_of_the_command_is_current():
    page = html.unescape(PAGES["reference/cli.md"])
    sections = re.findall(r"^##+ `(mmiln [^`]*)`\n(.*?)(?=^##|\Z)", page, re.DOTALL | re.MULTILINE)
    there = dict(below(typer.main.get_command(cli.app), "mmiln"))
    how = "`typer mmiln.cli utils docs --name mmiln --title mmiln --output docs/reference/cli.md` writes it"
    assert [name for name, _ in sections] == list(there), how
    for name, text in sections:
        parameters = there[name].params
        options = {p.opts[-1] for p in parameters if p.opts[0].startswith("-")} | {"--help"}
        assert set(re.findall(r"^\* `(?:-\w, )?(-[\w-]+)", text, re.MULTILINE)) == options, how
        helps = [there[name].help, *(getattr(p, "help", None) for p in parameters)]
        assert all(told in text for told in helps if told), how


def test_code_fits_its_box():
    """On a screen of 1280 pixels, by docs/assets/extra.css."""
    found = [re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE) for text in PAGES.values()]
    blocks = [code for fenced in found for language, code in fenced if language != "math"]
    assert len(blocks) > 50
    assert [line for code in blocks for line in code.splitlines() if len(line) > 110] == []


def test_the_font_of_equations_has_their_characters():
    from fontTools.ttLib import TTFont
    from latex2mathml.converter import convert

    font = TTFont(DOCS / "assets" / "stix-two-math.woff")
    assert "MATH" in font  # the measures that browsers place subscripts by
    shown = {
        character
        for equations in fences("math").values()
        for equation in equations
        for character in html.unescape(re.sub("<[^>]*>", "", convert(equation)))
    }
    # Single letters are shown in italics, which Unicode has apart.
    italics = {
        unicodedata.lookup(f"MATHEMATICAL ITALIC {case} {c}")
        for case in ("CAPITAL", "SMALL")
        for c in "AXCGZ"
    }
    missing = {c for c in shown | italics if not c.isspace()} - set(map(chr, font.getBestCmap()))
    assert len(shown) > 60
    assert not missing, "draw the font anew with these, see docs/assets/extra.css"


def test_every_equation_has_a_file():
    table = PAGES["model.md"].partition("## Where each equation is computed")[2].partition("\n## ")[0]
    listed = set()
    for numbers, links in re.findall(r"^\| (\(.*?) \| .* \| (.*) \|$", table, re.MULTILINE):
        for first, last in re.findall(r"\((\d+)\)(?: - \((\d+)\))?", numbers):
            listed |= set(range(int(first), int(last or first) + 1))
        files = re.findall(r"\]\((.*?)\)", links)
        assert files and all((DOCS / file).is_file() for file in files), links
    assert listed == set(range(1, 37))


def test_the_citation_is_of_this_version():
    text = (DOCS.parent / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", text, re.MULTILINE) == [mmiln.__version__]


def test_drawings_are_current(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(DOCS / "figures"), *sys.path])
    import draw

    for drawing in draw.FIGURES:
        figure = drawing()
        there = (DOCS / "figures" / f"{figure.name}.svg").read_text(encoding="utf-8")
        assert there == figure.svg(), "`python docs/figures/draw.py` writes it"
