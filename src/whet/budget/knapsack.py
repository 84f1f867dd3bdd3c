"""The multiple-choice knapsack: one option of every group, within a limit, at the least cost.

Groups are parts of a model, options the schemes a part may take, each with exact bytes and a predicted loss. The way:

1. Drop options that another of their group beats in both bytes and loss. What stays convex is the group's hull.
2. Take steps along all hulls, most loss saved per byte first, until the next one does not fit. That is the linear
   relaxation's optimum, and the slope `price` of the step that did not fit makes the Lagrangian bound equal to it.
3. At that price each option has a reduced cost: what it costs more than its group's best. A mix is worse than the bound
   by its reduced costs plus price times the room it leaves, so options whose reduced cost exceeds the gap are out.
4. Groups are opened from the least reduced cost upwards (Pisinger's expanding core, EJOR 83, 1995), all their options
   in play, with dominated and hopeless states dropped. The gap closes on the way; when no closed group has an option
   that could pay, what was found is the optimum. With too many states the cheapest are kept, and nothing is claimed.

Everything is deterministic: no clock, no chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from whet.budget.core import ROUNDING, STATES, Core, Floats, Ints
from whet.errors import UsageError
from whet.messages import Message

# A loss below this is none.
_NO_LOSS = 1e-30


class Option(NamedTuple):
    """One way to store a part: its exact bytes and its predicted loss (not negative; nats a token)."""

    bytes: int
    loss: float


@dataclass(frozen=True)
class Choice:
    """One option of every group.

    picks: its index in each group. bytes, loss: the sums. bound: what the linear relaxation says no mix can be below,
    in loss for `choose` and in bytes for `fewest_bytes`. exact: whether the mix is proved to be the best there is.
    gap: how far from the best it can be at most, relative to its own loss or bytes.
    """

    picks: list[int]
    bytes: int
    loss: float
    bound: float
    exact: bool
    gap: float


class Infeasible(UsageError):
    """No mix keeps the limit. `smallest` is the least bytes, loss or milliseconds that any mix has."""

    def __init__(self, template: str, /, smallest: float, **values: Any) -> None:
        super().__init__(template, smallest=smallest, **values)
        self.smallest = smallest


def choose(options: Sequence[Sequence[Option]], limit: int, asked: str = "") -> Choice:
    """The least total loss within `limit` bytes. asked: what the user typed for the limit, for the message.

    Raises Infeasible, a UsageError, that says the smallest bytes there are.
    """
    groups = _Groups(options, "bytes")
    if groups.least > limit:
        smallest = int(groups.least)
        raise Infeasible(
            "{budget} cannot be met: everything at its smallest takes {smallest:,} bytes, {more:,} more. Give at least "
            "{smallest:,} bytes.",
            smallest=smallest,
            budget=asked or Message("A budget of {limit:,} bytes", limit=limit),
            more=smallest - limit,
        )
    # bytes grow in steps, so what is left over below a step cannot be used: a smaller limit is a better bound
    step = max(groups.step, 1)
    room = float(groups.least + (limit - int(groups.least)) // step * step)
    return groups.solve(room, 0.0)


def fewest_bytes(options: Sequence[Sequence[Option]], most_loss: float, asked: str = "") -> Choice:
    """The least bytes with a total loss of at most `most_loss` (up to a relative 1e-12 of rounding).

    Raises Infeasible, a UsageError, that says the least loss there is.
    """
    groups = _Groups(options, "loss")
    room = most_loss + ROUNDING * abs(most_loss)
    if groups.least > room:
        raise Infeasible(
            "{budget} cannot be met: the best mix is predicted to lose {smallest:.4g} nats a token, more than "
            "{most:.4g}. Ask for less, or let parts stay as they are.",
            smallest=groups.least,
            budget=asked or Message("A loss of {loss:.4g}", loss=most_loss),
            most=most_loss,
        )
    return groups.solve(room, float(groups.step))


def frontier(options: Sequence[Sequence[Option]], points: int = 50) -> list[tuple[int, float]]:
    """The convex hull of all mixes as (bytes, loss), from the smallest to the least loss; at most `points` of them."""
    groups = _Groups(options, "bytes")
    along = groups.steps()
    weights = np.concatenate([[groups.least], groups.least + np.cumsum(along.weight)])
    start = math.fsum(groups.cost[groups.start].tolist())
    costs = np.concatenate([[start], start - np.cumsum(along.saved)])
    if len(weights) > points:
        even = np.linspace(weights[0], weights[-1], points)
        keep = np.unique(np.minimum(np.searchsorted(weights, even), len(weights) - 1))
        weights, costs = weights[keep], costs[keep]
    return [(int(w), max(float(c), 0.0)) for w, c in zip(weights, costs, strict=True)]


class _Steps(NamedTuple):
    """Steps along the hulls of all groups, best first: from option, to option, group, weight added, cost saved."""

    source: Ints
    goal: Ints
    group: Ints
    weight: Floats
    saved: Floats


class _Groups:
    """Options of all groups in flat arrays, dominated ones dropped, least weight first in each group.

    `weight` is what the limit is on and `cost` what is made small: bytes and loss, or the other way round. `start` and
    `ends` are where a group begins and ends; `pick` is an option's index among those that were given.
    """

    def __init__(self, options: Sequence[Sequence[Option]], limited: str) -> None:
        flat = np.fromiter((v for group in options for o in group for v in o), dtype=np.float64).reshape(-1, 2)
        counts = np.array([len(group) for group in options], dtype=np.int64)
        if (counts == 0).any():
            raise ValueError(f"group {int(np.argmin(counts))} has no options")
        if not np.isfinite(flat).all() or (flat < 0).any():
            raise ValueError("bytes and losses must be finite and not negative")
        flat[flat[:, 1] < _NO_LOSS, 1] = 0.0
        self.by_bytes = limited == "bytes"
        weight, cost = (flat[:, 0], flat[:, 1]) if self.by_bytes else (flat[:, 1], flat[:, 0])
        group = np.repeat(np.arange(len(counts)), counts)
        pick = np.arange(len(flat)) - np.repeat(np.cumsum(counts) - counts, counts)
        order = np.lexsort((pick, cost, weight, group))
        weight, cost, group, pick = weight[order], cost[order], group[order], pick[order]
        keep = _undominated(cost.tolist(), group.tolist())
        self.weight, self.cost, self.group, self.pick = weight[keep], cost[keep], group[keep], pick[keep]
        self.start = np.searchsorted(self.group, np.arange(len(counts)))
        self.ends = np.searchsorted(self.group, np.arange(len(counts)), side="right")
        self.least = math.fsum(self.weight[self.start].tolist())
        bytes_ = self.weight if self.by_bytes else self.cost
        steps = (bytes_ - bytes_[self.start][self.group]).astype(np.int64)
        self.step = int(np.gcd.reduce(np.abs(steps))) if len(steps) else 0

    def steps(self) -> _Steps:
        """Every step of every hull, most cost saved per weight first."""
        hull = _hull(self.weight.tolist(), self.cost.tolist(), self.group.tolist())
        source, goal = hull[:-1], hull[1:]
        inside = self.group[source] == self.group[goal]
        source, goal = source[inside], goal[inside]
        weight, saved = self.weight[goal] - self.weight[source], self.cost[source] - self.cost[goal]
        slope = saved / weight
        follows = np.concatenate([[False], source[1:] == goal[:-1]])
        while (rising := follows & np.concatenate([[False], slope[1:] > slope[:-1]])).any():
            slope[rising] = slope[
                np.flatnonzero(rising) - 1
            ]  # slopes fall along a hull; rounding must not say otherwise
        order = np.lexsort((source, -slope))
        return _Steps(source[order], goal[order], self.group[source][order], weight[order], saved[order])

    def solve(self, room: float, grain: float) -> Choice:
        """The choice of least cost with weight at most `room`; costs differ by multiples of `grain`, if it is not 0."""
        steps = self.steps()
        reached = self.least + np.cumsum(steps.weight)
        taken = int(np.searchsorted(reached, room, side="right"))
        base = self.start.copy()
        base[steps.group[:taken]] = steps.goal[:taken]  # along a hull slopes fall, so later steps of a group come later
        cost = math.fsum(self.cost[base].tolist())
        if taken == len(steps.weight):
            return self._choice(base, cost, exact=True)
        left = room - math.fsum(self.weight[base].tolist())
        price = float(steps.saved[taken] / steps.weight[taken])
        bound = cost - price * left
        start = self._fill(base, left, steps, taken)
        gap = math.fsum(self.cost[start].tolist()) - bound
        added = self.weight - self.weight[base][self.group]
        reduced = self.cost - self.cost[base][self.group] + price * added
        slight = ROUNDING * max(abs(cost), 1e-300)
        core = Core(self.start, self.ends, added, reduced, base, left, price, gap, grain, slight)
        best, exact = start, False
        for states in STATES:
            if not exact:
                found, exact = core.search(states)
                best = best if found is None else found
        return self._choice(best, bound, exact)

    def _fill(self, base: Ints, left: float, steps: _Steps, taken: int) -> Ints:
        """`base` with every later step that still fits, best first: a good mix to begin with."""
        mix = base.copy()
        for i in range(taken, len(steps.weight)):
            if steps.weight[i] <= left and mix[steps.group[i]] == steps.source[i]:
                mix[steps.group[i]] = steps.goal[i]
                left -= float(steps.weight[i])
        return mix

    def _choice(self, mix: Ints, bound: float, exact: bool) -> Choice:
        weight, cost = math.fsum(self.weight[mix].tolist()), math.fsum(self.cost[mix].tolist())
        bound = min(bound, cost)
        gap = 0.0 if exact or not cost else (cost - bound) / cost
        size, loss = (weight, cost) if self.by_bytes else (cost, weight)
        return Choice(self.pick[mix].tolist(), int(size), loss, bound, exact, gap)


def _undominated(cost: list[float], group: list[int]) -> Ints:
    """Indices at which `cost` is below all before it in its group; weights rise in each group."""
    kept: list[int] = []
    low, before = math.inf, -1
    for i, (value, at) in enumerate(zip(cost, group, strict=True)):
        if at != before or value < low:
            kept.append(i)
            low, before = value, at
    return np.array(kept, dtype=np.int64)


def _hull(weight: list[float], cost: list[float], group: list[int]) -> Ints:
    """Indices of the lower convex hull of each group's undominated options."""
    hull: list[int] = []
    begin = 0
    for i in range(len(weight)):
        if i and group[i] != group[i - 1]:
            begin = len(hull)
        while len(hull) - begin >= 2:
            a, b = hull[-2], hull[-1]
            # b stays if the slope into it is steeper than the slope out of it
            if (cost[a] - cost[b]) * (weight[i] - weight[b]) > (cost[b] - cost[i]) * (weight[b] - weight[a]):
                break
            hull.pop()
        hull.append(i)
    return np.array(hull, dtype=np.int64)
