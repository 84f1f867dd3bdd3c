from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whet.report.scales import Axis, fitted, linear_ticks, log_ticks


def test_places_on_a_linear_and_on_a_log_axis() -> None:
    assert Axis(2.0, 6.0).at(3.0) == 0.25
    assert Axis(2.0, 6.0).at(7.0) == 1.25
    decades = Axis(1e-4, 1.0, log=True)
    assert decades.at(1e-4) == 0 and decades.at(1.0) == 1
    assert decades.at(1e-2) == pytest.approx(0.5)
    # a quarter of the loss is the same distance down wherever it starts: the bound is a straight line
    assert decades.at(0.4) - decades.at(0.1) == pytest.approx(decades.at(0.004) - decades.at(0.001))


def test_ticks_are_round() -> None:
    assert linear_ticks(1.7, 8.3) == [2, 4, 6, 8]
    assert linear_ticks(0.938, 1.021) == [0.94, 0.96, 0.98, 1.0, 1.02]
    assert log_ticks(0.002, 0.6, 6) == pytest.approx([0.003, 0.01, 0.03, 0.1, 0.3])
    assert log_ticks(0.009, 0.021, 6) == pytest.approx([0.01, 0.02])
    assert log_ticks(1e-6, 2.0, 4) == pytest.approx([1e-6, 1e-4, 1e-2, 1.0])


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 12))
def test_linear_ticks_lie_inside_and_are_not_too_many(low: float, length: float, most: int) -> None:
    high = low + length
    if (high - low) < 1e-9 * max(abs(low), abs(high)):
        return
    found = linear_ticks(low, high, most)
    assert len(found) <= most and found == sorted(set(found))
    assert all(low - 1e-6 * length <= tick <= high + 1e-6 * length for tick in found)


@given(st.floats(1e-12, 1e3), st.floats(4.0, 1e12), st.integers(2, 12))
def test_log_ticks_lie_inside_and_are_not_too_many(low: float, factor: float, most: int) -> None:
    found = log_ticks(low, low * factor, most)
    assert len(found) <= most
    assert all(low <= tick <= low * factor for tick in found)


@given(st.lists(st.floats(1e-9, 1e9), min_size=1), st.booleans())
def test_a_fitted_axis_holds_its_values(values: list[float], log: bool) -> None:
    axis = fitted(values, log)
    assert axis.low < axis.high
    assert all(axis.holds(value) for value in values)


def test_one_value_has_an_axis() -> None:
    axis = fitted([0.01], log=True)
    assert axis.at(0.01) == pytest.approx(0.5)
    assert axis.high / axis.low >= 4 and math.isfinite(axis.high)
