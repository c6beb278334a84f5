"""HTML for notebooks: tables and curves with the colours and fonts of the page around them."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

LONGEST: Final = 60  # characters of a cell
WIDTH, HEIGHT = 320, 72  # of a chart, in pixels

# Okabe and Ito (2008); each has a contrast of at least 3 : 1 to white and to black.
_COLOURS: Final = ("#0072B2", "#D55E00")
_CELL: Final = "padding: 1px 8px"
_NO_FORMULA: Final = 'class="mathjax_ignore"'  # ids such as train000$_$1 are no mathematics


def text(value: object) -> str:
    """Text escaped for HTML; unprintable characters are shown as in Python.

    >>> text("<script>")
    '&lt;script&gt;'
    """
    return html.escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in str(value)))


def number(value: float, digits: int = 4) -> str:
    """A number with ``digits`` digits after the point; a dash for NaN.

    >>> number(0.5), number(float("nan"))
    ('0.5000', '–')
    """
    return "–" if math.isnan(value) else f"{value:.{digits}f}"


def paragraph(value: object) -> str:
    """A line of text."""
    return f"<p {_NO_FORMULA}>{text(value)}</p>"


def code(value: object) -> str:
    """An object's ``repr``."""
    return f"<p><code>{text(repr(value))}</code></p>"


def _cut(cell: str) -> str:
    return cell if len(cell) <= LONGEST else f"{cell[: LONGEST - 1]}…"


def table(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """Rows below a header; the first column names them, the others are aligned to the right."""

    def line(tag: str, cells: Sequence[object]) -> str:
        first, *others = (text(_cut(str(cell))) for cell in cells)
        rest = "".join(f'<{tag} style="{_CELL}; text-align: right">{cell}</{tag}>' for cell in others)
        return f'<tr><th style="{_CELL}; text-align: left">{first}</th>{rest}</tr>'

    head = f'<caption style="{_CELL}; text-align: left">{text(caption)}</caption>' if caption else ""
    body = "".join(line("td", row) for row in rows)
    return f"<table {_NO_FORMULA}>{head}<thead>{line('th', header)}</thead><tbody>{body}</tbody></table>"


def chart(curves: Mapping[str, Sequence[float]], marked: int | None = None) -> str:
    """Curves over epochs, at most two, each on its own scale, with a dashed line at epoch ``marked``."""
    shapes, legend = [], []
    most = max(len(values) for values in curves.values())

    def x(epoch: int) -> float:
        return 4 + (WIDTH - 8) * (epoch - 1) / max(1, most - 1)

    for colour, (name, values) in zip(_COLOURS, curves.items(), strict=False):
        known = [(epoch, value) for epoch, value in enumerate(values, 1) if math.isfinite(value)]
        if not known:
            continue
        low, high = min(v for _, v in known), max(v for _, v in known)
        places = [(x(e), 4 + (HEIGHT - 8) * (high - v) / ((high - low) or 1)) for e, v in known]
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        shapes.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        shapes.append(f'<circle cx="{places[-1][0]:.1f}" cy="{places[-1][1]:.1f}" r="3" fill="{colour}"/>')
        ends = f"{number(known[0][1])} → {number(known[-1][1])}"
        legend.append(f'<span style="color: {colour}">●</span> {text(name)} {ends}')
    if marked is not None:
        shapes.append(
            f'<line x1="{x(marked):.1f}" x2="{x(marked):.1f}" y1="0" y2="{HEIGHT}" stroke="currentColor" '
            'stroke-dasharray="3 3"/>'
        )
        legend.append("┆ best epoch")
    names = ", ".join(text(name) for name in curves)
    return (
        f'<svg width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{names} by epoch">{"".join(shapes)}</svg><div>{" &#160; ".join(legend)}</div>'
    )
