"""Precision by load: fewer bits while requests wait, more again when none do.

A request has the precision that it begins with until it ends: what a header says of an answer is true of all of it, and
the roll-out compares it at that precision. Changes need a sign twice the other way: down where as many wait as are
answered at once, up only where none wait; and some time between two of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

HOLD = 2.0  # seconds between two changes


@dataclass
class Ladder:
    """Chooses the bits of the next answer. precisions: the most first, the floor last. slots: answers at once."""

    precisions: tuple[int, ...]
    slots: int
    hold: float = HOLD
    clock: Callable[[], float] = time.monotonic
    at: int = 0
    changes: int = 0
    _changed: float = field(default=float("-inf"))

    @property
    def now(self) -> int:
        """Bits of the next answer, as it stands."""
        return self.precisions[self.at]

    def choose(self, queued: int) -> int:
        """Bits of an answer that begins now, with `queued` others waiting."""
        step = 1 if queued >= self.slots else -1 if queued == 0 else 0
        to = min(max(self.at + step, 0), len(self.precisions) - 1)
        if to != self.at and self.clock() - self._changed >= self.hold:
            self.at, self._changed = to, self.clock()
            self.changes += 1
        return self.now
