"""KL against processor seconds as one SVG, a panel a width, with the frontier: no dot below it and to its left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise, product

from whet.report.plots import power
from whet.report.scales import Axis, fitted

WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP = 560, 300, 64, 96, 36, 84
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328; } .tick { fill: #59636e; } .name { font-weight: 600; }
.halo { paint-order: stroke; stroke: #fff; stroke-width: 4px; }
line { stroke: #d1d9e0; } .frontier { stroke: #1a7f37; stroke-width: 2; } .spread { stroke: #59636e; }
.ours { fill: #1a7f37; } .peer { fill: #cf6a00; } svg { background: #fff; }
@media (prefers-color-scheme: dark) { svg { background: #0d1117; } text { fill: #e6edf3; } .tick { fill: #9198a1; }
  line { stroke: #3d444d; } .frontier { stroke: #3fb950; } .ours { fill: #3fb950; } .peer { fill: #f0883e; }
  .halo { stroke: #0d1117; } }
"""


Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Dot:
    """A method: processor seconds, mean KL in nats a token, its standard deviation over draws, stored bits a weight."""

    name: str
    seconds: float
    kl: float
    spread: float
    bits: float
    ours: bool


@dataclass(frozen=True)
class Panel:
    """One width."""

    title: str
    dots: Sequence[Dot]


def frontier(dots: Sequence[Dot]) -> list[Dot]:
    """The dots that none is both faster and closer than, the fastest first."""
    found: list[Dot] = []
    for dot in sorted(dots, key=lambda dot: (dot.seconds, dot.kl)):
        if not found or dot.kl < found[-1].kl:
            found.append(dot)
    return found


def frontier_plot(panels: Sequence[Panel]) -> str:
    """The panels one under the other, as a file by itself."""
    height = len(panels) * (TOP + HEIGHT + GAP)
    body = []
    for number, panel in enumerate(panels):
        body.append(f'<g transform="translate({LEFT} {number * (TOP + HEIGHT + GAP) + TOP})">{_panel(panel)}</g>')
    size = f'width="{LEFT + WIDTH + RIGHT}" height="{height}" viewBox="0 0 {LEFT + WIDTH + RIGHT} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>KL against processor seconds</title>'
        f"<style>{STYLE}</style>{''.join(body)}</svg>\n"
    )


def _panel(panel: Panel) -> str:
    seconds = fitted([dot.seconds for dot in panel.dots], log=True)
    kl = fitted([dot.kl for dot in panel.dots], log=True)
    parts = [_text(f"{panel.title}: KL to the original (nats a token)", 0, -14, "name")]
    for value in kl.ticks():
        y = _down(kl, value)
        parts += [_line(0, y, WIDTH, y), _text(power(value), -6, y + 4, "tick", "end")]
    for value in seconds.ticks():
        x = WIDTH * seconds.at(value)
        parts += [_line(x, 0, x, HEIGHT), _text(power(value), x, HEIGHT + 18, "tick", "middle")]
    parts.append(_text("processor seconds", WIDTH, HEIGHT + 38, "tick", "end"))
    best = [(WIDTH * seconds.at(dot.seconds), _down(kl, dot.kl)) for dot in frontier(panel.dots)]
    parts += [_line(*a, *b, "frontier") for a, b in pairwise(best)]
    places = [(WIDTH * seconds.at(dot.seconds), _down(kl, dot.kl)) for dot in panel.dots]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    for dot, (x, y) in sorted(zip(panel.dots, places, strict=True), key=lambda one: (not one[0].ours, one[0].kl)):
        low = max(dot.kl - dot.spread, kl.low)
        parts.append(_line(x, _down(kl, dot.kl + dot.spread), x, _down(kl, low), "spread"))
        told = escape(f"{dot.name}: KL {dot.kl:.5f} ± {dot.spread:.5f}, {dot.seconds:.1f} s, {dot.bits:.3f} bits")
        css = "ours" if dot.ours else "peer"
        parts.append(f'<circle class="{css}" cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{told}</title></circle>')
        parts.append(_label(dot.name, x, y, taken))
    return "".join(parts)


def _label(name: str, x: float, y: float, taken: list[Box]) -> str:
    """The name near its dot, where it covers the least of what is `taken`, to which it is added."""
    width = 6.8 * len(name)
    found: list[tuple[float, int, Box, str]] = []
    for number, (side, up) in enumerate(product((1, -1), (0, -13, 13, -26, 26))):
        left = x + 9 if side > 0 else x - 9 - width
        box = (left, y + up - 7, left + width, y + up + 7)
        inside = left >= 0 and left + width <= WIDTH + RIGHT and box[1] >= 0 and box[3] <= HEIGHT
        covered = sum(_overlap(box, other) for other in taken) + 3 * abs(up) + (0 if inside else 1e6)
        found.append((covered, number, box, "start" if side > 0 else "end"))
    _, _, box, end = min(found)
    taken.append(box)
    return _text(name, box[0] if end == "start" else box[2], (box[1] + box[3]) / 2 + 4, "halo", end)


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _down(axis: Axis, value: float) -> float:
    return HEIGHT * (1 - axis.at(value))


def _line(x1: float, y1: float, x2: float, y2: float, css: str = "grid") -> str:
    return f'<line class="{css}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(words: str, x: float, y: float, css: str, anchor: str = "start") -> str:
    return f'<text class="{css}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
