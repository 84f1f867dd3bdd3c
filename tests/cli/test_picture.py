"""The law: the picture is one well-formed SVG without scripts that shows every skill where its accuracy lies."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from whet.cli.picture import skills_svg

SVG = "{http://www.w3.org/2000/svg}"


def test_well_formed_and_safe() -> None:
    root = ET.fromstring(skills_svg([("facts <&>", 0.9, 0.85), ("번역", 1.0, 0.0)], "original", "lighter & small"))
    assert not list(root.iter(f"{SVG}script"))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert "facts <&>" in texts and "번역" in texts and "90.0 → 85.0" in texts and "lighter & small" in texts


def test_position_is_linear_from_zero_to_one() -> None:
    def dots(share: float) -> tuple[float, float]:
        root = ET.fromstring(skills_svg([("skill", share, share / 2)], "original", "lighter"))
        xs = [float(circle.get("cx", "nan")) for circle in root.iter(f"{SVG}circle")]
        return xs[2], xs[3]  # the first two are the legend's

    zero, half, full = dots(0.0), dots(0.5), dots(1.0)
    assert zero[0] == zero[1] < half[1] < half[0] < full[0]
    assert abs((half[0] - zero[0]) - (full[0] - half[0])) <= 0.2
    assert half[0] == full[1]
