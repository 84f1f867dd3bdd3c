"""Matrices of cases: any two values together in `make test`, the whole product in `make test-all` (`WHET_ALL=1`).

Most faults that a product of choices finds need two of its values at once, and rows that hold every pair are few: about
as many as the two longest axes have together.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

WHOLE = os.environ.get("WHET_ALL", "") not in ("", "0")


def covering(sizes: Sequence[int], strength: int = 2) -> list[tuple[int, ...]]:
    """Rows of indices, one an axis of so many values, in which any `strength` axes have all their combinations.

    Greedy, and the same rows for the same sizes: a row begins with the first combination that is missing; each further
    axis takes the value that adds the most missing ones, and of those that add alike the one used least.
    """
    strength = min(strength, len(sizes))
    missing = dict.fromkeys(
        (axes, values)
        for axes in itertools.combinations(range(len(sizes)), strength)
        for values in itertools.product(*(range(sizes[axis]) for axis in axes))
    )
    used = [[0] * size for size in sizes]
    rows = []
    while missing:
        row = dict(zip(*next(iter(missing)), strict=True))
        for axis in sorted(set(range(len(sizes))) - set(row), key=lambda axis: -sizes[axis]):
            found = [len(_of(row | {axis: value}, strength, axis) & missing.keys()) for value in range(sizes[axis])]
            row[axis] = max(range(sizes[axis]), key=lambda value: (found[value], -used[axis][value]))
        for combination in _of(row, strength):
            missing.pop(combination, None)
        for axis, value in row.items():
            used[axis][value] += 1
        rows.append(tuple(row[axis] for axis in range(len(sizes))))
    return rows


def _of(row: Mapping[int, int], strength: int, axis: int | None = None) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The combinations of `strength` axes that a row, whole or begun, holds; with `axis`: those it takes part in."""
    chosen = itertools.combinations(sorted(row), strength)
    return {(axes, tuple(row[a] for a in axes)) for axes in chosen if axis is None or axis in axes}


def matrix(axes: Mapping[str, Iterable[Any]], strength: int = 2, **more: Any) -> pytest.MarkDecorator:
    """Parametrize a test with a product of `axes`: the whole of it with WHET_ALL=1, otherwise a covering of `strength`.

    A name of several arguments, such as "group,columns", has tuples for values. With `strength` 1 every value occurs,
    for tests that take seconds. `more` goes to `pytest.mark.parametrize`.
    """
    values = [list(axis) for axis in axes.values()]
    rows = itertools.product(*map(range, map(len, values))) if WHOLE else covering([len(v) for v in values], strength)
    names = [name.split(",") for name in axes]
    cases = []
    for row in rows:
        chosen = [axis[index] for axis, index in zip(values, row, strict=True)]
        cases.append([part for name, one in zip(names, chosen, strict=True) for part in (one if name[1:] else [one])])
    flat = list(itertools.chain(*names))
    return pytest.mark.parametrize(flat, cases if flat[1:] else [case[0] for case in cases], **more)


def some(values: Iterable[Any], every: int) -> list[Any]:
    """With WHET_ALL=1 all values of a list of which one is like the other, otherwise one of `every`."""
    return list(values)[:: 1 if WHOLE else every]


def left_out(items: Iterable[pytest.Item]) -> list[pytest.Item]:
    """What `make test` leaves to `make test-all`: tests marked `long`, and cases of those marked `covered`.

    `covered("made", "transform", strength=1)` is `matrix` for what is parametrized elsewhere, as a fixture is; with
    `every` only one of so many of the first one's values is taken, beginning with the number `start`.
    """
    if WHOLE:
        return []
    left = [item for item in items if item.get_closest_marker("long")]
    cases: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        if item.get_closest_marker("covered"):
            cases[item.nodeid.partition("[")[0]].append(item)
    for group in cases.values():
        mark = group[0].get_closest_marker("covered")
        assert mark is not None
        columns = [[item.callspec.params[name] for item in group] for name in mark.args]  # type: ignore[attr-defined]
        values = [[one for at, one in enumerate(column) if one not in column[:at]] for column in columns]
        found = [tuple(map(list.index, values, row)) for row in zip(*columns, strict=True)]
        rows = covering([len(one) for one in values], mark.kwargs.get("strength", 2))
        every, start = mark.kwargs.get("every", 1), mark.kwargs.get("start", 0)
        taken = {row for row in rows if row[0] % every == start}
        left += [item for item, row in zip(group, found, strict=True) if row not in taken]
    return left
