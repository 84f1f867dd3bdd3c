from __future__ import annotations

from whet.report.numbers import bits_of, figure, interval, percent, size, times, with_error
from wording import each


@each(
    "value, shown",
    [
        (0.00406648, "0.00407"),
        (12.34, "12.3"),
        (54791.0, "54,791"),
        (0.99996, "1.00"),
        (4.06e-5, "4.06×10⁻⁵"),
        (3.2e9, "3.20×10⁹"),
        (0.0, "0"),
        (float("inf"), "∞"),
        (float("nan"), "–"),
        (None, "–"),
    ],
)
def test_figures(value: float | None, shown: str) -> None:
    assert figure(value) == shown


def test_an_error_decides_the_digits() -> None:
    assert with_error(0.0040664813, 0.00011236) == "0.00407 ± 0.00011"
    assert with_error(12.3456, 0.21) == "12.35 ± 0.21"
    assert with_error(4.06e-8, 1.1e-9) == "(40.6 ± 1.1)×10⁻⁹"
    assert with_error(0.00406648, None) == with_error(0.00406648, 0.0) == "0.00407"


def test_shares_sizes_ratios_and_intervals() -> None:
    assert percent(0.98765) == "98.8\u00a0%" and percent(None) == "–"
    assert size(999) == "999\u00a0B" and size(9_486_941) == "9.5\u00a0MB" and size(999_960_000) == "1.0\u00a0GB"
    assert [times(ratio) for ratio in (0.974, 3.75, 412.0, None)] == ["0.97×", "3.8×", "412×", "–"]
    assert interval([0.978, 1.002], as_percent=True) == "97.8\u00a0–\u00a0100.2"
    assert interval([1.00381, 1.00522], digits=5) == "1.0038\u00a0–\u00a01.0052" and interval(None) == ""


def test_bits_of_schemes() -> None:
    named = {"int4-g64": 4, "int3z-g32": 3, "W8A16": 8, "Q4_K_M": 4, "nf4": 4, "keep": None, "fp": None}
    assert {scheme: bits_of(scheme) for scheme in named} == named
