"""A picture of what each skill kept: one row a skill, a ring for the original and a dot for the lighter model.

Plain SVG with its text inline and no scripts; the colours follow the reader's light or dark page. The axis always runs
from 0 to 100 %, so that a small loss looks small.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

# The first colours read on light and dark alike, for viewers that know no media queries.
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #6e7781 }
  .grid { stroke: #6e7781; stroke-opacity: .35; stroke-width: 1 }
  .bridge { stroke: #6e7781; stroke-width: 3; opacity: .5 }
  .original { fill: none; stroke: #6e7781; stroke-width: 2 }
  .lighter { fill: #2f81f7 }
  @media (prefers-color-scheme: light) { text { fill: #24292f } .quiet { fill: #59636e } .lighter { fill: #0969da } }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .quiet { fill: #9198a1 } .lighter { fill: #4493f8 } }
"""
_WIDTH, _LEFT, _RIGHT, _TOP, _ROW = 760, 230, 640, 56, 28


def skills_svg(rows: Sequence[tuple[str, float, float]], original: str, lighter: str) -> str:
    """An SVG document.

    rows: name of the skill, accuracy of the original and of the lighter model, both in 0..1, in the order drawn.
    original, lighter: how the legend calls the two, e.g. with their sizes.
    """

    def across(share: float) -> float:
        return round(_LEFT + share * (_RIGHT - _LEFT), 1)

    bottom = _TOP + _ROW * len(rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {bottom + 30}" role="img">',
        f"<title>{escape(original)} / {escape(lighter)}</title>",
        f"<style>{_STYLE}</style>",
        f'<circle class="original" cx="{_LEFT + 6}" cy="20" r="6"/>',
        f'<text x="{_LEFT + 20}" y="25">{escape(original)}</text>',
        f'<circle class="lighter" cx="{_LEFT + 226}" cy="20" r="4.5"/>',
        f'<text x="{_LEFT + 240}" y="25">{escape(lighter)}</text>',
    ]
    for percent in (0, 25, 50, 75, 100):
        x = across(percent / 100)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{_TOP - 12}" y2="{bottom}"/>')
        parts.append(f'<text class="quiet" x="{x}" y="{bottom + 20}" text-anchor="middle">{percent} %</text>')
    for index, (name, before, after) in enumerate(rows):
        y = _TOP + _ROW * index + _ROW // 2 - 8
        parts += [
            f'<text x="{_LEFT - 14}" y="{y + 5}" text-anchor="end">{escape(name)}</text>',
            f'<line class="bridge" x1="{across(before)}" x2="{across(after)}" y1="{y}" y2="{y}"/>',
            f'<circle class="original" cx="{across(before)}" cy="{y}" r="6"/>',
            f'<circle class="lighter" cx="{across(after)}" cy="{y}" r="4.5"/>',
            f'<text class="quiet" x="{_WIDTH - 6}" y="{y + 5}" text-anchor="end">'
            f"{100 * before:.1f} → {100 * after:.1f}</text>",
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
