from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from report.facts import HOSTILE
from whet.report.plots import RATE_HEIGHT, ROW, Mark, Point, RowOf, bars, bound_ends, rate_plot, rows_plot
from whet.report.rate import anchor_of, best_uniform
from whet.report.scales import Axis

BITS, KL = Axis(2.0, 6.0), Axis(1e-4, 1.0, log=True)


def found(svg: str, tag: str, css: str) -> list[ET.Element]:
    return [e for e in ET.fromstring(svg).iter(tag) if css in e.get("class", "").split()]


def share(element: ET.Element, name: str) -> float:
    return float(element.attrib[name].removesuffix("%"))


def rate(points: list[Point], frontier: list[Point], bound: float | None = None) -> str:
    return rate_plot("r", HOSTILE, "d", points, frontier, bound, (BITS, KL), ("x", "y"), 8e6)


def test_bars_share_one_scale_and_sum_to_their_totals() -> None:
    rows = [("a", [("x", "part-x", 300), ("y", "part-y", 100)]), ("b", [("x", "part-x", 100), ("y", "part-y", 0)])]
    svg = bars("b", "t", "d", rows)
    assert [share(e, "width") for e in found(svg, "rect", "part-x")] == [75, 25]
    assert [share(e, "x") for e in found(svg, "rect", "part-y")] == [75, 25]


def test_rows_put_dots_intervals_and_lines_where_the_axis_says() -> None:
    axis = Axis(0.9, 1.1)
    rows = [RowOf(HOSTILE, "98 %", (0.95, 1.0), [Mark(0.98, "dot lighter", "m")]), RowOf("b", "", (0.5, 2.0), [])]
    svg = rows_plot("s", "t", "d", axis, rows, [(1.0, "100 %")], [(0.95, "limit", "limit")])
    assert [share(e, "cx") for e in found(svg, "circle", "dot")] == [40]
    first, cut = found(svg, "line", "interval")
    assert (share(first, "x1"), share(first, "x2")) == (25, 50)
    assert (share(cut, "x1"), share(cut, "x2")) == (0, 100)  # kept inside the plot
    assert float(cut.attrib["y1"]) - float(first.attrib["y1"]) == ROW
    assert [share(e, "x1") for e in found(svg, "line", "limit")] == [25]
    assert HOSTILE in "".join(ET.fromstring(svg).itertext()) and HOSTILE not in svg


def test_rate_plot_places_points_by_bits_and_by_the_log_of_kl() -> None:
    points = [Point(3.0, 0.01, "dot frontier", "mix"), Point(4.0, 1.0, "square uniform", "int4", "int4")]
    svg = rate(points, points)
    (dot,), (square,) = found(svg, "circle", "frontier"), found(svg, "rect", "uniform")
    assert (share(dot, "cx"), float(dot.attrib["cy"])) == (25, RATE_HEIGHT / 2)
    assert (share(square, "x"), float(square.attrib["y"])) == (50, 0)
    (line,) = found(svg, "line", "frontier")
    assert (share(line, "x1"), share(line, "x2")) == (25, 50)
    assert any(
        e.text == "4.0\u00a0MB" for e in ET.fromstring(svg).iter() if e.get("class", "").startswith("tick quiet")
    )


@pytest.mark.parametrize("bound", [0.016 * 4**3, 1e-6, 1e9])
def test_the_bound_falls_four_times_a_bit_and_stays_inside(bound: float) -> None:
    (first, low), (last, high) = bound_ends(bound, BITS, KL)
    assert BITS.low <= first <= last <= BITS.high
    if first < last:
        assert low / high == pytest.approx(4 ** (last - first))
        assert all(KL.low * 0.999 <= kl <= KL.high * 1.001 for kl in (low, high))


def test_the_bound_is_drawn_through_the_point_that_leaves_none_below() -> None:
    points = [Point(b, kl, "dot frontier", "mix") for b, kl in ((2.0, 0.9), (4.0, 0.02), (5.0, 0.006))]
    anchor = anchor_of(points)
    assert anchor is points[1]
    assert all(point.kl >= anchor.kl * 4 ** (anchor.bits - point.bits) for point in points)
    (line,) = found(rate(points, points, anchor.kl * 4**anchor.bits), "line", "bound")
    assert share(line, "x1") == 0 and share(line, "x2") == 100
    assert anchor_of([]) is None


def test_labels_that_would_overlap_are_left_out() -> None:
    near = [Point(3.0 + i / 100, 0.01, "square uniform", f"int{i}", f"int{i}") for i in range(4)]
    far = Point(5.0, 0.01, "square uniform", "far", "far")
    shown = [e.findtext("text") for e in found(rate([*near, far], []), "svg", "at")]
    assert shown == ["int0", "far"]


def test_of_many_uniform_choices_the_best_of_each_quarter_of_a_bit_are_drawn() -> None:
    points = [{"bits": b, "kl": kl} for b, kl in ((4.0, 0.02), (4.05, 0.01), (4.3, 0.009), (5.0, 0.03), (6.0, 0.001))]
    assert best_uniform(points) == [points[1], points[2], points[4]]  # at 5 bits another one is better and smaller
