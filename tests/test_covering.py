"""Selections of matrices: every pair is there, in few rows, and the same ones each time."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

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


class Item:
    """What is asked of a collected test."""

    def __init__(self, name: str, mark: pytest.MarkDecorator, **params: object) -> None:
        self.nodeid, self.mark = f"t.py::{name}[{params}]", mark.mark
        self.callspec = SimpleNamespace(params=params)

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return self.mark if self.mark.name == name else None


def test_of_what_is_marked_a_covering_is_taken_and_what_is_long_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = pytest.mark.covered("made", "kind", strength=1)
    pairs = [Item("one", pair, made=made, kind=kind) for made in "abcdef" for kind in ([], [1])]
    third = [Item("other", pytest.mark.covered("made", every=3, start=1), made=made) for made in "abcdef"]
    long, plain = Item("long", pytest.mark.long), Item("plain", pytest.mark.gpu)
    items = [*pairs, *third, long, plain]
    monkeypatch.setattr(covering, "WHOLE", False)
    left = covering.left_out(items)  # type: ignore[arg-type]
    assert long in left and plain not in left
    kept = [item.callspec.params for item in pairs if item not in left]
    assert [one["made"] for one in kept] == list("abcdef") and [one["kind"] for one in kept] == [[], [1]] * 3
    assert [item.callspec.params["made"] for item in third if item not in left] == ["b", "e"]
    monkeypatch.setattr(covering, "WHOLE", True)
    assert covering.left_out(items) == []  # type: ignore[arg-type]
