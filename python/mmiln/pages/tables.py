"""Tables and pages in Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
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
        return f"{self.caption}\n{self._grid('simple')}"

    def markdown(self, width: int | None = None) -> str:
        """As GitHub reads it, the caption below; columns beyond so many characters follow in more tables."""
        safe = tuple(tuple(cell.replace("|", "\\|") for cell in row) for row in self.rows)
        parts = Table(self.caption, self.columns, safe)._parts(width)
        return "\n\n".join([*(part._grid("pipe") for part in parts), self.caption])

    def latex(self) -> str:
        """A table environment; needs the package booktabs."""
        return (
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{latex(self.caption)}}}\n"
            f"{self._grid('latex_booktabs')}\n"
            "\\end{table}\n"
        )

    def html(self, width: int | None = None) -> str:
        """Table elements, as many as in Markdown, the first with the caption."""
        grids = "\n".join(part._grid("html") for part in self._parts(width))
        return grids.replace("<table>", f"<table>\n<caption>{html.escape(self.caption)}</caption>", 1)

    def _parts(self, width: int | None) -> list[Table]:
        """The table in parts of at most this width where columns allow it, each with the rows' names."""
        if width is None:
            return [self]
        parts = [[0]]
        for column in range(1, len(self.columns)):
            wider = self._of([*parts[-1], column])._grid("pipe").partition("\n")[0]
            if len(wider) > width and len(parts[-1]) > 1:
                parts.append([0])
            parts[-1].append(column)
        return [self._of(part) for part in parts]

    def _of(self, columns: list[int]) -> Table:
        """The table of some of the columns."""
        names, *rows = (tuple(row[i] for i in columns) for row in (self.columns, *self.rows))
        return Table(self.caption, names, tuple(rows))

    def _grid(self, style: str) -> str:
        align = ["left", *["right"] * (len(self.columns) - 1)]
        text: str = tabulate(self.rows, self.columns, tablefmt=style, colalign=align, disable_numparse=True)
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
