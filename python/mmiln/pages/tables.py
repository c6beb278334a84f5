"""Tables and pages in Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass

from tabulate import tabulate

from . import render


@dataclass(frozen=True)
class Table:
    """A caption, the names of the columns, and rows of texts; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """As a terminal shows it, the caption above."""
        return f"{self.caption}\n{self._grid('simple', self.rows)}"

    def markdown(self) -> str:
        """As GitHub reads it, the caption below."""
        safe = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        return f"{self._grid('pipe', safe)}\n\n{self.caption}"

    def latex(self) -> str:
        """A table environment; needs the package booktabs."""
        return (
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{latex(self.caption)}}}\n"
            f"{self._grid('latex_booktabs', self.rows)}\n"
            "\\end{table}\n"
        )

    def html(self) -> str:
        """A table element with its caption."""
        grid = self._grid("html", self.rows)
        return grid.replace("<table>", f"<table>\n<caption>{html.escape(self.caption)}</caption>", 1)

    def _grid(self, style: str, rows: Iterable[Iterable[str]]) -> str:
        align = ["left", *["right"] * (len(self.columns) - 1)]
        text: str = tabulate(rows, self.columns, tablefmt=style, colalign=align, disable_numparse=True)
        return text


def latex(text: str) -> str:
    """Plain text escaped for LaTeX."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\^{}",
    }
    return "".join(special.get(c, c) for c in text)


def page(markdown: str, title: str) -> str:
    """A page of HTML with the content of the Markdown."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown)
    return render("page.html", title=title, body=Markup(body))  # escaped by MarkdownIt
