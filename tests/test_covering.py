"""Selections of matrices: every pair is there, in few rows, and the same ones each time."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import covering
from covering import matrix, some


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.integers(1, 3))
def test_any_axes_have_all_their_combinations(sizes: list[int], strength: int) -> None:
    rows = covering.covering(sizes, strength)
    assert rows == covering.covering(sizes, strength) and len(rows) == len(set(rows))
    together = min(strength, len(sizes))
    for axes in itertools.combinations(range(len(sizes)), together):
        wanted = set(itertools.product(*(range(sizes[axis]) for axis in axes)))
        assert {tuple(row[axis] for axis in axes) for row in rows} == wanted


def test_rows_are_few() -> None:
    """No covering has fewer than the two longest axes have pairs; published ones of these sizes have 9, 15 and 25."""
    for sizes, most in (([3] * 4, 12), ([3] * 7, 17), ([5] * 6, 40), ([20, 4, 3, 2, 2], 80)):
        assert len(covering.covering(sizes)) <= most


def test_values_take_turns() -> None:
    rows = covering.covering([12, 4, 2], strength=1)
    assert len(rows) == 12
    assert [sorted(row[1] for row in rows).count(value) for value in range(4)] == [3, 3, 3, 3]


def test_the_whole_is_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = {"bits": range(2, 5), "group,columns": [(0, 45), (32, 96)], "kind": ("none", "int", "real")}
    monkeypatch.setattr(covering, "WHOLE", False)
    names, few = matrix(axes).args
    assert names == ["bits", "group", "columns", "kind"] and len(few) == 9
    assert {(bits, kind) for bits, _, _, kind in few} == set(itertools.product(range(2, 5), ("none", "int", "real")))
    assert some(range(10), 4) == [0, 4, 8] and matrix({"bits": range(2, 9)}).args == (["bits"], list(range(2, 9)))
    monkeypatch.setattr(covering, "WHOLE", True)
    assert len(matrix(axes).args[1]) == 18 and some(range(10), 4) == list(range(10))
