"""What the site needs beside mkdocs: equations and drawings as part of the page, without a script."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.pages import Page

DRAWING = re.compile(r'<p><img alt="([^"]*)" src="(?:\.\./)*(figures/[\w-]+\.svg)" /></p>')


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Makes ``math`` a fence of its own: LaTeX, which GitHub shows too, becomes MathML."""
    superfences = config.mdx_configs.setdefault("pymdownx.superfences", {})
    superfences["custom_fences"] = [{"name": "math", "class": "math", "format": _equation}]
    return config


def on_page_content(html: str, page: Page, config: MkDocsConfig, **_: Any) -> str:
    """Puts our SVG files into the page, where they take on its colours, with the image's text below."""

    def drawn(image: re.Match[str]) -> str:
        svg = Path(config.docs_dir, image[2]).read_text(encoding="utf-8")
        return (
            f'<figure class="drawing" data-search-exclude>{svg}<figcaption>{image[1]}</figcaption></figure>'
        )

    return DRAWING.sub(drawn, html)


def _equation(source: str, language: str, css_class: str, options: Any, md: Any, **_: Any) -> str:
    return f'<div class="equation" data-search-exclude>{convert(source, display="block")}</div>'
