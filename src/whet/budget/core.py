"""The search behind the knapsack: groups are opened from the least reduced cost upwards until none is left that pays.

See step 4 in `whet.budget.knapsack`. A state is the weight added to a base mix and the reduced cost paid for it; what a
state is worth when nothing more is opened is its reduced cost plus price times the room it leaves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Sums are compared up to this relative rounding.
ROUNDING = 1e-12
# Bounds of the search: 2000 groups of 80 options then take less than two seconds, at worst a gap of 1e-6 is left.
# A narrow search first finds a good mix, with which the wide one has less to look at.
STATES = (1 << 8, 1 << 13)
_WORK = 1 << 21


class Core:
    """Options in flat arrays, a group's beginning at `start` and ending at `ends`.

    added, reduced: weight and reduced cost of each option above that of its group in `base`. left: room that `base`
    leaves. price: reduced cost of a weight left unused. gap: what the best known mix is above the bound. grain: costs
    differ by multiples of it. slight: differences that are rounding.
    """

    def __init__(
        self,
        start: Ints,
        ends: Ints,
        added: Floats,
        reduced: Floats,
        base: Ints,
        left: float,
        price: float,
        gap: float,
        grain: float,
        slight: float,
    ) -> None:
        self.start, self.ends, self.added, self.base = start, ends, added, base
        self.left, self.price, self.gap, self.grain, self.slight = left, price, gap, grain, slight
        self.reduced = np.maximum(reduced, 0.0)
        others = self.reduced.copy()
        others[base] = np.inf
        self.cheapest = np.minimum.reduceat(others, start)

    @property
    def worth(self) -> float:
        """A mix above the bound by this much or more is no better than the best known."""
        return self.gap - max(self.slight, self.grain * (1 - 1e-9))

    def search(self, states: int) -> tuple[Ints | None, bool]:
        """The best mix found with so many `states` at once (None: none better than the one known), and whether it is
        proved to be the best."""
        order = np.argsort(self.cheapest, kind="stable")
        order = order[self.cheapest[order] < self.worth]
        can_lose, can_gain = self._reach(order)
        added, reduced = np.zeros(1), np.zeros(1)
        trail: list[tuple[int, Ints, Ints]] = []
        best: tuple[int, int] | None = None
        exact, work = True, 0
        for depth, group in enumerate(order):
            if self.cheapest[group] >= self.worth:
                break
            mine = np.arange(self.start[group], self.ends[group])
            mine = mine[self.reduced[mine] < self.worth]
            work += len(added) * len(mine)
            if work > _WORK:
                exact = False
                break
            parent, option = np.divmod(np.arange(len(added) * len(mine)), len(mine))
            option = mine[option]
            more, paid = added[parent] + self.added[option], reduced[parent] + self.reduced[option]
            # what the groups still closed can give back or take up at most
            over = more - self.left + can_lose[depth]
            under = self.left - more - can_gain[depth]
            slight = ROUNDING * max(abs(self.left), 1e-300)
            open_ = (over <= slight) & (paid + self.price * np.maximum(under, 0.0) < self.worth)
            keep = np.flatnonzero(open_)
            keep = keep[np.lexsort((paid[keep], more[keep]))]
            keep = keep[undominated(paid[keep] - self.price * more[keep])]
            if len(keep) > states:
                exact = False
                keep = keep[np.sort(np.argsort(paid[keep], kind="stable")[:states])]
            if not len(keep):
                break
            added, reduced = more[keep], paid[keep]
            trail.append((int(group), parent[keep], option[keep]))
            fits = np.flatnonzero(added <= self.left)
            if len(fits):
                above = reduced[fits] + self.price * (self.left - added[fits])
                at = int(np.argmin(above))
                if above[at] < self.worth:
                    self.gap, best = float(above[at]), (depth, int(fits[at]))
        return (None if best is None else self._follow(trail, *best)), exact

    def _reach(self, order: Ints) -> tuple[Floats, Floats]:
        """The weight that groups opened after each one can lose (negative) and gain at most."""
        usable = self.reduced < self.worth
        low = np.minimum.reduceat(np.where(usable, self.added, 0.0), self.start)[order]
        high = np.maximum.reduceat(np.where(usable, self.added, 0.0), self.start)[order]
        return _after(np.minimum(low, 0.0)), _after(np.maximum(high, 0.0))

    def _follow(self, trail: list[tuple[int, Ints, Ints]], depth: int, state: int) -> Ints:
        mix = self.base.copy()
        for group, parent, option in reversed(trail[: depth + 1]):
            mix[group] = option[state]
            state = int(parent[state])
        return mix


def _after(values: Floats) -> Floats:
    """Sums of what comes after each value."""
    return np.concatenate([np.cumsum(values[::-1])[::-1][1:], [0.0]]) if len(values) else values


def undominated(cost: Floats) -> Ints:
    """Indices at which `cost` is below all before it; weights rise along the array."""
    if not len(cost):
        return np.zeros(0, dtype=np.int64)
    low = np.minimum.accumulate(cost)
    return np.flatnonzero(np.concatenate([[True], cost[1:] < low[:-1]]))
