"""Draws the figures of docs/model.md: ``python docs/figures/draw.py`` writes them beside itself.

Lines and letters have the page's colour where a figure is part of a page (docs/hooks.py), a grey where it is
an image; all other colours read on light and dark.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

# Okabe and Ito 2008.
COLOURS = {"text": "#0072B2", "audio": "#D55E00", "vision": "#009E73", "gate": "#CC79A7", "plain": "#808890"}
WIDTH = 720

Point = tuple[float, float]


def letters(text: str) -> str:
    """SVG for a line with ``_{low}`` and ``^{high}`` parts."""
    parts, level = [], 0.0
    for plain, mark, shifted in re.findall(r"([^_^]+)|([_^])\{([^}]*)\}", text):
        want = {"_": 4.0, "^": -5.0}.get(mark, 0.0)
        size = ' font-size="10"' if mark else ""
        parts.append(f'<tspan dy="{want - level:g}"{size}>{escape(plain or shifted)}</tspan>')
        level = want
    return "".join(parts)


class Figure:
    """An SVG under way, 720 wide."""

    def __init__(self, name: str, title: str, height: float) -> None:
        self.name = name
        self.height = height
        self.title = title
        self.parts: list[str] = []

    def write(self, x: float, y: float, text: str, anchor: str = "middle", small: bool = False) -> None:
        """A line of text whose middle is at height y."""
        size = ' font-size="11"' if small else ""
        self.parts.append(
            f'<text x="{x:g}" y="{y + 4:g}" text-anchor="{anchor}"{size}>{letters(text)}</text>'
        )

    def box(self, x: float, y: float, w: float, h: float, lines: Sequence[str], kind: str = "plain") -> None:
        """A box around the point (x, y) with lines of text in it."""
        colour = COLOURS[kind]
        self.parts.append(
            f'<rect x="{x - w / 2:g}" y="{y - h / 2:g}" width="{w:g}" height="{h:g}" rx="4" '
            f'fill="{colour}" fill-opacity=".16" stroke="{colour}"/>'
        )
        for place, line in enumerate(lines):
            self.write(x, y + 15 * (place - (len(lines) - 1) / 2), line)

    def frame(self, x: float, y: float, w: float, h: float, text: str) -> None:
        """A dashed frame from its upper left corner, with its name above."""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="6" fill="none" '
            f'stroke="currentColor" stroke-opacity=".5" stroke-dasharray="4 3"/>'
        )
        self.write(x + w / 2, y - 11, text)

    def sign(self, x: float, y: float, what: str) -> None:
        """A circle with an operation."""
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="9" fill="none" stroke="currentColor"/>')
        self.write(x, y, what)

    def dot(self, x: float, y: float, kind: str, radius: float = 4) -> None:
        """A filled point."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{COLOURS[kind]}" stroke="none"/>'
        )

    def line(self, *points: Point, dashed: bool = False) -> None:
        """A line through points."""
        self._path(points, ' stroke-dasharray="3 3"' if dashed else "")

    def arrow(self, *points: Point, kind: str = "plain") -> None:
        """A line through points with a head at its end."""
        colour = "" if kind == "plain" else f' stroke="{COLOURS[kind]}"'
        self._path(points, colour)
        (x0, y0), (x, y) = points[-2:]
        angle = math.degrees(math.atan2(y - y0, x - x0))
        fill = "currentColor" if kind == "plain" else COLOURS[kind]
        self.parts.append(
            f'<path d="M0 0 L-7 -3.5 L-7 3.5 Z" fill="{fill}" stroke="none" '
            f'transform="translate({x:g} {y:g}) rotate({angle:g})"/>'
        )

    def _path(self, points: Sequence[Point], style: str) -> None:
        way = " L".join(f"{x:g} {y:g}" for x, y in points)
        self.parts.append(f'<path d="M{way}" fill="none"{style}/>')

    def svg(self) -> str:
        """The whole file."""
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {self.height:g}" role="img" '
                f'aria-label="{escape(self.title)}" color="#808890" font-family="system-ui, sans-serif" '
                'font-size="13" stroke-width="1.2">',
                f"<title>{escape(self.title)}</title>",
                '<g stroke="currentColor">',
                *(part for part in self.parts if not part.startswith("<text")),
                "</g>",
                '<g fill="currentColor">',
                *(part for part in self.parts if part.startswith("<text")),
                "</g>",
                "</svg>",
                "",
            ]
        )


def architecture() -> Figure:
    """From three sequences to a score, and what is learned from."""
    f = Figure("architecture", "MMILN: encoders, fusion layers, heads and losses", 406)
    rows = {"audio": 60, "text_audio": 140, "text_vision": 220, "vision": 300}
    kinds = {"audio": "audio", "text_audio": "text", "text_vision": "text", "vision": "vision"}
    middle = 180
    f.frame(226, 28, 186, 304, "fusion layers 1 … L")
    for name in ("audio", "vision"):
        y = rows[name]
        f.write(30, y, name)
        f.arrow((54, y), (76, y), kind=name)
        f.box(138, y, 120, 40, ["LSTM", "Conv1d"], name)
        f.arrow((198, y), (242, y), kind=name)
    f.write(30, middle, "text")
    f.arrow((54, middle), (76, middle), kind="text")
    f.box(138, middle, 120, 40, ["BERT", "Conv1d"], "text")
    for name in ("text_audio", "text_vision"):
        f.arrow((198, middle), (214, middle), (214, rows[name]), (242, rows[name]), kind="text")
    for name, y in rows.items():
        what = "GateTransformer" if name in ("audio", "vision") else "SAG-Transformer"
        f.box(320, y, 150, 40, [what, name.replace("_", "–")], kinds[name])
    f.arrow((320, 80), (320, 118), kind="audio")
    f.write(330, 100, "A_{a}", "start")
    f.arrow((320, 280), (320, 242), kind="vision")
    f.write(330, 261, "A_{v}", "start")
    for head, kind, y in (("audio", "audio", 60), ("multimodal", "text", middle), ("vision", "vision", 300)):
        f.box(488, y, 100, 40, ["mean, head", head], kind)
        score = {"audio": "a", "multimodal": "m", "vision": "v"}[head]
        f.arrow((538, y), (570, y), kind=kind)
        f.write(574, y, f"ŷ_{{{score}}}", "start")
        f.arrow((590, y), (610, y), kind=kind)
        f.line((538, y + 12), (552, y + 12))
    f.arrow((395, 60), (436, 60), kind="audio")
    f.arrow((395, 300), (436, 300), kind="vision")
    for name in ("text_audio", "text_vision"):
        f.arrow((395, rows[name]), (424, rows[name]), (424, middle), (436, middle), kind="text")
    f.box(662, middle, 104, 270, ["task loss", "against", "label y_{m},", "pseudo-labels", "y_{a} and y_{v}"])
    f.line((320, 332), (320, 352))
    f.write(330, 346, "c_{a}, c_{ta}, c_{tv}, c_{v} of layer L", "start", small=True)
    f.arrow((320, 352), (188, 352), (188, 364), kind="gate")
    f.arrow((320, 352), (320, 364), kind="gate")
    f.box(188, 382, 120, 36, ["similarity loss"], "gate")
    f.box(320, 382, 120, 36, ["difference loss"], "gate")
    f.arrow((552, 72), (552, 364), kind="gate")
    f.write(560, 342, "F_{a}, F_{m}, F_{v}", "start", small=True)
    f.box(552, 382, 90, 36, ["ULGM"], "gate")
    f.arrow((597, 382), (662, 382), (662, 316), kind="gate")
    f.write(632, 395, "new y_{a}, y_{v}", small=True)
    return f


def gate_transformer() -> Figure:
    """Equations (7) to (12)."""
    f = Figure("gate-transformer", "GateTransformer: equations (7) to (12)", 232)
    y = 66
    f.write(24, y, "X_{n}^{i−1}")
    f.arrow((46, y), (80, y), kind="audio")
    f.box(128, y, 96, 40, ["self-attention"], "audio")
    f.line((176, y), (259, y))
    f.arrow((259, y), (268, y), kind="audio")
    f.write(204, y + 12, "A")
    f.arrow((204, y), (204, 24), (232, 24), kind="audio")
    f.write(238, 24, "A, to the SAG-Transformer", "start")
    _gates(f, y)
    _tail(f, y, "X_{n}^{i}", "audio")
    return f


def sag_transformer() -> Figure:
    """Equations (15) to (23)."""
    f = Figure("sag-transformer", "SAG-Transformer: equations (15) to (23)", 300)
    top, y = 44, 134
    f.write(24, y, "X_{f}^{i−1}")
    f.arrow((46, y), (72, y), kind="text")
    f.box(106, y, 68, 40, ["self-", "attention"], "text")
    f.arrow((140, y), (176, y), kind="text")
    f.write(158, y - 12, "H")
    f.box(210, y, 68, 40, ["cross-", "attention"], "text")
    f.arrow((244, y), (268, y), kind="text")
    f.write(254, y - 12, "R")
    f.write(24, top, "A")
    f.arrow((34, top), (50, top), kind="audio")
    f.box(112, top, 124, 28, ["g_{s} = σ(W_{s} A + b_{s})"], "gate")
    f.arrow((174, top), (201, top), kind="gate")
    f.sign(210, top, "×")
    f.arrow((42, top), (42, 14), (210, 14), (210, top - 9), kind="audio")
    f.arrow((210, top + 9), (210, y - 20), kind="audio")
    f.write(218, 84, "S: keys and values", "start")
    _gates(f, y)
    _tail(f, y, "X_{f}^{i}", "text")
    return f


def _gates(f: Figure, y: float) -> None:
    """Below the main line at y: the control vector, its two gates, and X, of which one retains a part."""
    middle, low = y + 70, y + 132
    f.arrow((58, y), (58, middle), (80, middle))
    f.box(128, middle, 96, 40, ["mean of", "BiGRU"], "gate")
    f.line((176, middle), (196, middle))
    f.write(187, middle - 9, "c")
    for way, gate in ((-18, "c"), (18, "r")):
        f.arrow((196, middle), (196, middle + way), (212, middle + way), kind="gate")
        f.box(277, middle + way, 130, 28, [f"g_{{{gate}}} = σ(W_{{{gate}}} c + b_{{{gate}}})"], "gate")
    f.arrow((277, middle - 32), (277, y + 9), kind="gate")
    f.sign(277, y, "×")
    f.arrow((58, middle), (58, low), (268, low))
    f.arrow((277, middle + 32), (277, low - 9), kind="gate")
    f.sign(277, low, "×")
    f.arrow((286, low), (366, low), (366, y + 9))


def _tail(f: Figure, y: float, out: str, kind: str) -> None:
    """From the two gated parts to the stream's output."""
    f.arrow((286, y), (357, y), kind=kind)
    f.sign(366, y, "+")
    f.arrow((375, y), (398, y), kind=kind)
    f.box(424, y, 52, 40, ["LN_{1}"])
    f.arrow((450, y), (492, y), kind=kind)
    f.write(462, y - 12, "Y")
    f.box(520, y, 56, 40, ["FFN"], kind)
    f.arrow((548, y), (575, y), kind=kind)
    f.sign(584, y, "+")
    f.arrow((470, y), (470, y + 44), (584, y + 44), (584, y + 9), kind=kind)
    f.arrow((593, y), (614, y), kind=kind)
    f.box(640, y, 52, 40, ["LN_{2}"])
    f.arrow((666, y), (686, y), kind=kind)
    f.write(703, y, out)


def ulgm() -> Figure:
    """Equations (29) to (34), on numbers that the figure itself computes."""
    f = Figure("ulgm", "ULGM: how a pseudo-label moves", 330)
    truth, old, epoch = 1.6, 1.0, 3
    spaces = {
        "m": ("multimodal", "text", 180, (190.0, 74.0)),
        "a": ("audio", "audio", 540, (508.0, 112.0)),
    }
    alphas = {}
    for s, (name, kind, middle, (x, y)) in spaces.items():
        f.frame(middle - 120, 28, 240, 136, f"{name} features F_{{{s}}}")
        centres = {"n": (middle - 75.0, 110.0), "p": (middle + 75.0, 70.0)}
        distances = {}
        for sign, (cx, cy) in centres.items():
            f.line((x, y), (cx, cy), dashed=True)
            f.dot(cx, cy, "plain", 6)
            f.write(cx, cy - 17, f"C_{{{s}}}^{{{sign}}}")
            distances[sign] = math.hypot(x - cx, y - cy)
            f.write((x + cx) / 2, (y + cy) / 2 + 13, f"D_{{{s}}}^{{{sign}}}", small=True)
        f.dot(x, y, kind, 5)
        alphas[s] = (distances["n"] - distances["p"]) / distances["p"]
        f.write(middle, 149, f"α_{{{s}}} = (D^{{n}} − D^{{p}}) / D^{{p}} = {alphas[s]:.2f}".replace("-", "−"))
    raw = truth * alphas["a"] / (2 * alphas["m"]) + (truth + alphas["a"] - alphas["m"]) / 2
    new = max(-3.0, min(3.0, raw))
    moved = (epoch - 1) / (epoch + 1) * old + 2 / (epoch + 1) * new
    base = 250
    at = {value: 360 + 105 * value for value in range(-3, 4)}
    f.arrow((30, base), (694, base))
    for value, x in at.items():
        f.line((x, base - 4), (x, base + 4))
        f.write(x, base + 16, f"{value:+d}".replace("-", "−") if value else "0", small=True)
    marks = {
        "y_{m} =": (truth, "text", 36),
        "y_{a} =": (old, "audio", -22),
        "new_{a} =": (new, "gate", -22),
        "y_{a} ←": (moved, "audio", 36),
    }
    for what, (value, kind, up) in marks.items():
        x = 360 + 105 * value
        f.dot(x, base, kind, 5)
        f.write(x, base + up, f"{what} {value:.2f}".replace("-", "−"))
    f.arrow((360 + 105 * old, base - 40), (360 + 105 * moved, base - 40), kind="audio")
    f.write(360, 316, f"epoch n = {epoch}: y_{{a}} ← (n−1)/(n+1) y_{{a}} + 2/(n+1) new_{{a}}")
    return f


FIGURES = (architecture, gate_transformer, sag_transformer, ulgm)

if __name__ == "__main__":
    for draw in FIGURES:
        figure = draw()
        Path(__file__).with_name(f"{figure.name}.svg").write_text(figure.svg(), encoding="utf-8")
