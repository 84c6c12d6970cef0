"""Small pictures as SVG: bars and a map of squares. Plain text that every browser draws."""

from collections.abc import Mapping, Sequence
from html import escape

BLUE, RED, INK = (37, 99, 235), (220, 38, 38), "#222"
ROW, WIDE, CELL, LETTER = 18, 360, 44, 7


def bars(title: str, values: Mapping[str, float], unit: str) -> str:
    """One bar a row, the longest as wide as the picture."""
    top = max(values.values(), default=0.0) or 1.0
    left = LETTER * max(map(len, values), default=1) + 14
    parts = []
    for k, (label, value) in enumerate(values.items()):
        y = 34 + ROW * k
        parts.append(_text(left - 6, y + 12, label, "end"))
        parts.append(f'<rect x="{left}" y="{y}" width="{WIDE * value / top:.1f}" height="{ROW - 4}" fill="rgb{BLUE}"/>')
        parts.append(_text(left + WIDE * value / top + 5, y + 12, f"{value:.3g}"))
    return _page(title, f"{title} ({unit})", left + WIDE + 70, 44 + ROW * len(values), parts)


def squares(title: str, names: Sequence[str], values: Sequence[Sequence[float]]) -> str:
    """A square for every two names: blue from 0 to 1, red from 0 to -1."""
    names = [f"{k} {name}" for k, name in enumerate(names, 1)]
    left = LETTER * max(map(len, names), default=1) + 14
    parts = []
    for i, row in enumerate(values):
        parts.append(_text(left - 6, 40 + CELL * i + CELL / 2, names[i], "end"))
        parts.append(_text(left + CELL * i + CELL / 2, 50 + CELL * len(names), str(i + 1), "middle"))
        for j, value in enumerate(row):
            x, y = left + CELL * j, 34 + CELL * i
            colour = "rgb({}, {}, {})".format(*(round(255 - abs(value) * (255 - part)) for part in (RED, BLUE)[value >= 0]))
            parts.append(f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" fill="{colour}"/>')
            parts.append(
                _text(x + CELL / 2 - 1, y + CELL / 2 + 4, f"{value:.2f}", "middle", "#fff" if abs(value) > 0.5 else INK)
            )
    return _page(title, title, left + CELL * len(names) + 20, 64 + CELL * len(names), parts)


def _page(title: str, words: str, width: int | float, height: int | float, parts: Sequence[str]) -> str:
    wide = max(width, LETTER * len(words) + 20)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide:.0f}" height="{height:.0f}" role="img"'
    style = f'font-family="sans-serif" font-size="12" fill="{INK}"'
    body = "\n".join([_text(10, 20, words), *parts])
    return f'{head} aria-label="{escape(title)}" {style}>\n<rect width="100%" height="100%" fill="#fff"/>\n{body}\n</svg>\n'


def _text(x: int | float, y: int | float, words: str, anchor: str = "start", fill: str = INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(words)}</text>'
