"""Equations of the manual in a real browser: subscripts stand below the line, and nothing scrolls."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser

DOCS = Path(__file__).parents[2] / "docs"
PLACES = """all => all.map(script => {
    const [base, small] = [...script.children].map(part => part.getBoundingClientRect());
    return [base.bottom, small.bottom, base.top, small.top];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_equations(page: Page, tmp_path: Path, scheme: str, screenshots: Path) -> None:
    hooks = runpy.run_path(str(DOCS / "hooks.py"))
    sources = re.findall(r"^```math\n(.*?)^```", (DOCS / "model.md").read_text(), re.DOTALL | re.MULTILINE)
    equations = "".join(hooks["_equation"](source, "math", "", {}, None) for source in sources)
    style = (
        (DOCS / "assets" / "extra.css").read_text().replace('url("', f'url("{(DOCS / "assets").as_uri()}/')
    )
    path = tmp_path / "model.html"
    head = f'<meta charset="utf-8"><meta name="color-scheme" content="light dark"><style>{style}</style>'
    path.write_text(f"<!doctype html>{head}<main style='width: 800px'>{equations}</main>", encoding="utf-8")
    page.emulate_media(color_scheme=scheme)
    page.goto(path.as_uri())
    assert page.evaluate("document.fonts.ready.then(fonts => [...fonts].map(font => font.status))") == [
        "loaded"
    ]
    subscripts = page.locator("msub").evaluate_all(PLACES)
    assert len(subscripts) > 30
    assert all(small > base + 1 for base, small, _, _ in subscripts)
    superscripts = page.locator("msup").evaluate_all(PLACES)
    assert superscripts
    assert all(top - 12 < small < bottom for bottom, _, top, small in superscripts)
    boxes = "all => all.map(box => [box.scrollWidth - box.clientWidth, box.offsetHeight - box.clientHeight])"
    assert page.locator(".equation").evaluate_all(boxes) == [[0, 0]] * len(sources)
    page.screenshot(path=screenshots / f"equations-{scheme}.png", full_page=True)
