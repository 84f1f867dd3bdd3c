"""The page's plots as inline SVG.

Every plot has a title and a description and stretches with the page: across, places are per cent of the plot's width;
down, they are pixels; so lines and text keep their size on a phone. Margins, and where labels stand beside or above
their row, are the style sheet's. Words are given by the caller; what comes in as `str` is escaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

from markupsafe import Markup

from whet.report.numbers import figure, size
from whet.report.scales import Axis, fitted

ROW, BAR, RATE_HEIGHT = 42, 30, 340
# A label this near to an earlier one (per cent across, pixels down) is left out; on a phone the second counts.
_NEAR, _NEAR_ON_PHONES, _LINE = 10.0, 22.0, 15.0
_EDGE = 22.0  # per cent of the width within which a label turns towards the middle


@dataclass(frozen=True)
class Mark:
    """A point: where, its shape (CSS class) and what it says when pointed at."""

    value: float
    shape: str
    title: str


@dataclass(frozen=True)
class RowOf:
    """A row of `rows_plot`: what stands left and right of it, its interval, its points."""

    label: str
    shown: str
    ends: tuple[float, float] | None
    marks: Sequence[Mark]


@dataclass(frozen=True)
class Point:
    """A point of `rate_plot`. shape: CSS class. name: in full. label: written beside it where there is room."""

    bits: float
    kl: float
    shape: str
    name: str
    label: str = ""

    @property
    def title(self) -> str:
        """What it says when pointed at."""
        return f"{self.name} · {figure(self.bits)} bit · KL {figure(self.kl)}"


def bars(
    ident: str,
    title: str,
    description: str,
    rows: Sequence[tuple[str, Sequence[tuple[str, str, int]]]],
) -> Markup:
    """Stacked bars on one scale that starts at 0. rows: label, then (name, CSS class, bytes) a segment."""
    longest = max(sum(count for *_, count in segments) for _, segments in rows)
    body = []
    for index, (label, segments) in enumerate(rows):
        top, start = index * (BAR + 34), 0.0
        body.append(_text(label, 0, top + 14, "label"))
        for name, css, count in segments:
            width = 100 * count / longest
            body.append(
                Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
                    css, _across(start), top + 22, _across(width), BAR, f"{name}: {size(count)}"
                )
            )
            start += width
    return _svg(ident, "bars", title, description, len(rows) * (BAR + 34) - 10, body)


def rows_plot(
    ident: str,
    title: str,
    description: str,
    axis: Axis,
    rows: Sequence[RowOf],
    ticks: Sequence[tuple[float, str]],
    lines: Sequence[tuple[float, str, str]] = (),
    heading: str = "",
) -> Markup:
    """Points and intervals, one row each, over a common axis.

    lines: (where, CSS class, label over the plot). heading: over what the rows show on the right.
    """
    height = ROW * len(rows)
    body = [_text(heading, "100%", -8, "tick heading")] if heading else []
    for value, shown in ticks:
        x = _across(100 * axis.at(value))
        body += [_line(x, x, 0, height, "grid"), _text(shown, x, height + 20, "tick middle")]
    for value, css, label in lines:
        along = 100 * axis.at(value)
        x, anchor = _across(along), "" if along < 15 else "end" if along > 85 else "middle"
        body += [_line(x, x, -4, height, css), _text(label, x, -10, f"tick {css} {anchor}")]
    for index, row in enumerate(rows):
        top, y = index * ROW, index * ROW + 27
        body += [_text(row.label, 0, top + 16, "label left"), _text(row.shown, "100%", top + 16, "label right")]
        if row.ends:
            low, high = (_across(100 * min(1.0, max(0.0, axis.at(end)))) for end in row.ends)
            body.append(_line(low, high, y, y, "interval"))
        body += [_mark(mark.shape, 100 * axis.at(mark.value), y, mark.title) for mark in row.marks]
    return _svg(ident, "rows", title, description, height, body)


def rate_plot(
    ident: str,
    title: str,
    description: str,
    points: Sequence[Point],
    frontier: Sequence[Point],
    bound: float | None,
    axes: tuple[Axis, Axis],
    labels: tuple[str, str],
    parameters: float,
) -> Markup:
    """KL (log) against bits a weight.

    points: all with a KL above 0, the first labelled first and drawn on top. frontier: those a line goes through, in
    the order of their bits. bound: the KL of the dashed line at 0 bits, None for no line.
    axes: bits, KL. labels: of the two axes. parameters: for the bytes under each tick of bits; 0 leaves them out.
    """
    bits, kl = axes
    body = []
    for value in kl.ticks():
        y = _down(kl, value)
        body += [_line("0%", "100%", y, y, "grid"), _text(power(value), -8, y + 4, "tick end")]
    for value in bits.ticks(5):
        x = _across(100 * bits.at(value))
        body += [_line(x, x, 0, RATE_HEIGHT, "grid"), _text(f"{value:g}", x, RATE_HEIGHT + 18, "tick middle")]
        if parameters:
            body.append(_text(size(value * parameters / 8), x, RATE_HEIGHT + 34, "tick quiet middle"))
    body.append(_text(labels[0], "100%", RATE_HEIGHT + 54, "tick end"))
    body.append(_text(labels[1], -48, -12, "tick"))
    if bound is not None:
        body.append(_segment(bits, kl, *bound_ends(bound, bits, kl), "bound"))
    body += [_segment(bits, kl, (a.bits, a.kl), (b.bits, b.kl), "frontier") for a, b in pairwise(frontier)]
    body += [_mark(p.shape, 100 * bits.at(p.bits), _down(kl, p.kl), p.title) for p in reversed(points)]
    body += _labels(points, bits, kl)
    return _svg(ident, "rate", title, description, RATE_HEIGHT, body)


def curve_plot(
    ident: str,
    title: str,
    description: str,
    points: Sequence[tuple[float, float]],
    best: float,
    labels: tuple[str, str],
) -> Markup:
    """Loss (above 0, on a log axis) by step, a line through all points. best: the step whose point is a diamond.
    labels: of the two axes."""
    steps = Axis(min(step for step, _ in points), max(max(step for step, _ in points), 1))
    loss = fitted([value for _, value in points], log=True)
    body = []
    for value in loss.ticks():
        body += [_line("0%", "100%", (y := _down(loss, value)), y, "grid"), _text(power(value), -8, y + 4, "tick end")]
    for value in steps.ticks(5):
        x = _across(100 * steps.at(value))
        body += [_line(x, x, 0, RATE_HEIGHT, "grid"), _text(f"{value:g}", x, RATE_HEIGHT + 18, "tick middle")]
    body += [_text(labels[0], "100%", RATE_HEIGHT + 54, "tick end"), _text(labels[1], -48, -12, "tick")]
    body += [_segment(steps, loss, a, b, "frontier") for a, b in pairwise(points)]
    for step, value in points:
        shape = "diamond" if step == best else "dot"
        body.append(_mark(shape, 100 * steps.at(step), _down(loss, value), f"{step:g} · {figure(value)}"))
    return _svg(ident, "rate", title, description, RATE_HEIGHT, body)


def bound_ends(bound: float, bits: Axis, kl: Axis) -> tuple[tuple[float, float], tuple[float, float]]:
    """The two ends, as (bits, kl), of kl = bound * 4^-bits inside the axes; a line that misses them has equal ends."""

    def reaches(value: float) -> float:
        return log(bound / value) / log(4)

    first = min(max(bits.low, reaches(kl.high)), bits.high)
    last = max(min(bits.high, reaches(kl.low)), first)
    return (first, bound * 4**-first), (last, bound * 4**-last)


def power(value: float) -> str:
    """The label of a tick of a log axis: `0.01`, `10⁻⁵`, `2×10⁻⁵`."""
    shown = figure(value, 1)
    return shown.removeprefix("1×")


def _labels(points: Sequence[Point], bits: Axis, kl: Axis) -> list[Markup]:
    """The labels of points, left out where an earlier one is too near.

    Curves of bits and KL fall to the right, so there is room above a point on its right, where the uniform choices'
    labels stand, and below it on its left, where those of a diamond stand.
    """
    placed: list[tuple[float, float]] = []
    found = []
    for point in points:
        x, y = 100 * bits.at(point.bits), _down(kl, point.kl)
        gap = min((abs(x - a) for a, b in placed if abs(y - b) < _LINE), default=100.0)
        if not point.label or gap < _NEAR:
            continue
        placed.append((x, y))
        if "diamond" in point.shape:
            text = _text(point.label, 0, 20, "tick") if x < _EDGE else _text(point.label, -8, 18, "tick end")
        else:
            text = _text(point.label, 4, -8, "tick end") if x > 100 - _EDGE else _text(point.label, 6, -8, "tick")
        where = '<svg class="{}" x="{}" y="{}"><title>{}</title>{}</svg>'
        roomy = "at" if gap >= _NEAR_ON_PHONES else "at roomy"
        found.append(Markup(where).format(roomy, _across(x), y, point.title, text))
    return found


def _segment(bits: Axis, kl: Axis, start: tuple[float, float], end: tuple[float, float], css: str) -> Markup:
    places = [(_across(100 * bits.at(b)), _down(kl, k)) for b, k in (start, end)]
    return _line(places[0][0], places[1][0], places[0][1], places[1][1], css)


def _down(kl: Axis, value: float) -> float:
    return round(RATE_HEIGHT * (1 - kl.at(value)), 2)


def _across(percent: float) -> str:
    return f"{percent:.2f}%"


def _mark(shape: str, percent: float, y: float, title: str) -> Markup:
    if shape.startswith("dot"):
        where = Markup('<circle class="{}" cx="{}" cy="{}" r="5"><title>{}</title></circle>')
        return where.format(shape, _across(percent), y, title)
    # centred, and for a diamond turned, by the style sheet
    where = Markup('<rect class="{}" x="{}" y="{}" width="9" height="9"><title>{}</title></rect>')
    return where.format(shape, _across(percent), y, title)


def _line(x1: str, x2: str, y1: float, y2: float, css: str) -> Markup:
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(css, x1, x2, y1, y2)


def _text(words: str, x: float | str, y: float, css: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(css, x, y, words)


def _svg(ident: str, css: str, title: str, description: str, height: int, body: Sequence[Markup]) -> Markup:
    opening = (
        '<svg class="plot {css}" height="{height}" role="img" aria-labelledby="{id}-title {id}-desc">'
        '<title id="{id}-title">{title}</title><desc id="{id}-desc">{description}</desc>'
    )
    start = Markup(opening).format(css=css, height=height, id=ident, title=title, description=description)
    return start + Markup("\n").join(body) + Markup("</svg>")
