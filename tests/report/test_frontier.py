"""The plot of a choice: every model is in it, the frontier joins those that none beats in both, in both languages."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from whet.report.frontier import frontier

SVG = "{http://www.w3.org/2000/svg}"


def choice(asked: bool = True) -> dict[str, Any]:
    rows = [("big", 400e6, 0.8, 30.0, True), ("small <1>", 200e6, 0.7, 12.0, True), ("worse", 300e6, 0.5, 40.0, False)]
    models = [
        {
            "name": name, "bytes": weights, "quality": worth if asked else None, "bits_a_byte": 2 - worth,
            "milliseconds": time, "frontier": {"bytes": first, "time": first},
        }
        for name, weights, worth, time, first in rows
    ]  # fmt: skip
    against = {"small <1>": {"better": 0.1, "standard_error": 0.02}, "worse": {"better": 0.3, "standard_error": 0.02}}
    return {"models": models, "against": against, "take": "big"}


def test_models_and_the_frontier_are_drawn_where_they_are() -> None:
    for asked in (True, False):
        drawn = ElementTree.fromstring(frontier(choice(asked)))
        circles = drawn.findall(f"{SVG}circle")
        assert len(circles) == 6 and [circle.get("class") for circle in circles].count("take") == 2
        heights = {circle.findtext(f"{SVG}title"): float(circle.get("cy", 0)) for circle in circles[:3]}
        assert heights["big"] < heights["small <1>"] < heights["worse"]  # the better, the higher up
        lines = [line.get("points", "").split() for line in drawn.findall(f"{SVG}polyline")]
        assert [len(line) for line in lines] == [2, 2]
    assert "품질" in frontier(choice(), "ko")
