"""What `whet choose` found, as one SVG: quality against bytes and against milliseconds a token, with the frontier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from whet.report.numbers import figure, size
from whet.report.scales import Axis, fitted

WIDTH, HEIGHT, LEFT, TOP, GAP = 360, 260, 64, 44, 84
_WORDS = {
    "en": ("Weight files", "Milliseconds a token", "Quality", "Bits a byte (upside down)"),
    "ko": ("가중치 파일", "토큰당 밀리초", "품질", "바이트당 비트 (위아래 뒤집음)"),
}
_STYLE = """text { font: 12px system-ui, sans-serif; fill: #1f2328; } .tick { fill: #59636e; }
.name { font-weight: 600; paint-order: stroke; stroke: #fff; stroke-width: 4px; } svg { background: #fff; }
.grid { stroke: #d1d9e0; } .frontier { stroke: #1a7f37; stroke-width: 2; fill: none; } .spread { stroke: #59636e; }
circle { fill: #59636e; } .take { fill: #1a7f37; }
@media (prefers-color-scheme: dark) { svg { background: #0d1117; } text { fill: #e6edf3; } .tick { fill: #9198a1; }
  .name { stroke: #0d1117; } .grid { stroke: #3d444d; } .frontier { stroke: #3fb950; } .take { fill: #3fb950; } }"""


class Dot(NamedTuple):
    """A model. x: bytes or milliseconds. y: its quality, or bits a byte, negative. spread: 1.96 standard errors of its
    difference from the best. first: nothing is better in both; taken: it is the one to take."""

    name: str
    x: float
    y: float
    spread: float
    first: bool
    taken: bool


def frontier(choice: Mapping[str, Any], language: str = "en") -> str:
    """The plot of a result of `whet.choose`, a file of its own."""
    words = _WORDS.get(language, _WORDS["en"])
    asked = choice["models"][0]["quality"] is not None
    panels = [
        _panel(_dots(choice, key, kind, asked), words[number], words[2 if asked else 3], shown, number)
        for number, (key, kind, shown) in enumerate((("bytes", "bytes", size), ("milliseconds", "time", figure)))
    ]
    width = 2 * (LEFT + WIDTH + GAP // 2)
    body = "\n".join(line for panel in panels for line in panel)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT + TOP + 60}" role="img">'
        f"<title>{escape(words[2])}</title>\n<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def _dots(choice: Mapping[str, Any], key: str, kind: str, asked: bool) -> list[Dot]:
    found = []
    for one in choice["models"]:
        spread = 1.96 * choice["against"].get(one["name"], {}).get("standard_error", 0.0)
        worth = one["quality"] if asked else -one["bits_a_byte"]
        taken = one["name"] == choice["take"]
        found.append(Dot(one["name"], one[key], worth, spread, one["frontier"][kind], taken))
    return found


def _panel(dots: Sequence[Dot], across: str, up: str, shown: Any, number: int) -> list[str]:
    x = fitted([dot.x for dot in dots], log=True)
    y = fitted([end for dot in dots for end in (dot.y - dot.spread, dot.y + dot.spread)])
    left = LEFT + number * (WIDTH + GAP)
    out = [f'<text x="{left}" y="{TOP - 22}">{escape(up)}</text>']
    for value in y.ticks():
        place = _down(y, value)
        out.append(f'<line class="grid" x1="{left}" x2="{left + WIDTH}" y1="{place:.1f}" y2="{place:.1f}"/>')
        out.append(f'<text class="tick" x="{left - 8}" y="{place + 4:.1f}" text-anchor="end">{figure(value)}</text>')
    for value in x.ticks(4):
        place = left + WIDTH * x.at(value)
        said = escape(str(shown(value)))
        out.append(f'<text class="tick" x="{place:.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{said}</text>')
    out.append(f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 44}" text-anchor="middle">{escape(across)}</text>')
    line = sorted((dot for dot in dots if dot.first), key=lambda dot: dot.x)
    places = " ".join(f"{left + WIDTH * x.at(dot.x):.1f},{_down(y, dot.y):.1f}" for dot in line)
    out.append(f'<polyline class="frontier" points="{places}"/>')
    for dot in dots:
        out += _dot(dot, left + WIDTH * x.at(dot.x), y)
    return out


def _dot(dot: Dot, at: float, y: Axis) -> list[str]:
    low, high, middle = (_down(y, value) for value in (dot.y - dot.spread, dot.y + dot.spread, dot.y))
    css = ' class="take"' if dot.taken else ""
    return [
        f'<line class="spread" x1="{at:.1f}" x2="{at:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>',
        f'<circle{css} cx="{at:.1f}" cy="{middle:.1f}" r="5"><title>{escape(dot.name)}</title></circle>',
        f'<text class="name" x="{at:.1f}" y="{middle - 10:.1f}" text-anchor="middle">{escape(dot.name)}</text>',
    ]


def _down(y: Axis, value: float) -> float:
    return TOP + HEIGHT * (1 - y.at(value))
