"""Hooks of the site: equations and drawings become part of the page, links to sources stay as they are."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

DRAWING = re.compile(r'<p><img alt="([^"]*)" src="(?:\.\./)*(figures/[\w-]+\.svg)" /></p>')
BAR = re.compile(r'<mo(?: stretchy="false")?>(&#x02016;|&#x0007C;)</mo>')  # of a norm or an absolute value
SOURCE = re.compile(r"\[([^\]\n]+)\]\((\.\./[\w./-]+)\)")
log = logging.getLogger("mkdocs.hooks")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Makes ``math`` a fence of its own: LaTeX, which GitHub shows too, becomes MathML."""
    superfences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    superfences["custom_fences"] = [{"name": "math", "class": "math", "format": _equation}]
    return config


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Turns links to files outside of docs/ into HTML, as mkdocs refuses links that leave the site.

    They are relative, and `site/` lies beside `docs/`, so that the same link works in both. A file that is
    missing gives a warning, which makes a strict build fail.
    """
    folder = Path(str(page.file.abs_src_path)).parent

    def linked(link: re.Match[str]) -> str:
        path = (folder / link[2]).resolve()
        if path.is_relative_to(config.docs_dir):
            return link[0]
        if not path.exists():
            log.warning(f"{page.file.src_path} links to {link[2]}, which is not there: correct the link")
        return f'<a href="{link[2]}">{link[1]}</a>'

    return SOURCE.sub(linked, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Puts our SVG files into the page, where they take on its colours, with the image's text below."""

    def drawn(image: re.Match[str]) -> str:
        svg = Path(config.docs_dir, image[2]).read_text(encoding="utf-8")
        return (
            f'<figure class="drawing" data-search-exclude>{svg}<figcaption>{image[1]}</figcaption></figure>'
        )

    return DRAWING.sub(drawn, html)


def _equation(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    # A bar that closes is no longer than the one that opens, and neither is an operator between spaces.
    maths = BAR.sub(r'<mo stretchy="false" lspace="0" rspace="0">\1</mo>', convert(source, display="block"))
    return f'<div class="equation" data-search-exclude>{maths}</div>'
