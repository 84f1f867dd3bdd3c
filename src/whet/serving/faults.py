"""What stops the lighter model without a statistical test: hard faults in a row, and a burn of the latency budget."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from whet.serving.evidence import quantile

IN_A_ROW, LAST, HALF = 5, 20, 8  # hard faults in a row; or so many of the last 20
SLOWER = 1.5  # times the original's 95th percentile is slow
BUDGET = 0.05  # the share of requests that may be slow
# Burn is (the lighter's slow share - the original's) / BUDGET. Both windows must exceed it, so that what is over does
# not count and what has just begun does not count yet (SRE workbook, ch. 5).
BURNS = ((300.0, 60.0, 6.0), (1800.0, 300.0, 3.0))  # long window in seconds, short window, burn
FEWEST = 50, 10  # requests of either side that the long and the short window need
_CELL = 10.0  # seconds counted together
_KNOWN = 30  # requests of the original before anything is called slow


@dataclass
class Breaker:
    """Trips on hard faults: the engine died, hung, gave numbers that are not finite, or answered nonsense."""

    row: int = 0
    last: deque[bool] = field(default_factory=lambda: deque(maxlen=LAST))

    def add(self, hard: bool) -> None:
        self.row = self.row + 1 if hard else 0
        self.last.append(hard)

    @property
    def tripped(self) -> bool:
        return self.row >= IN_A_ROW or sum(self.last) >= HALF


@dataclass
class Burn:
    """How fast the lighter side uses up its budget of slow requests. Times are seconds of a monotonic clock."""

    first: deque[float] = field(default_factory=lambda: deque(maxlen=200))  # of the original: to the first token
    each: deque[float] = field(default_factory=lambda: deque(maxlen=200))  # of the original: for each token after it
    known: int = 0  # how many requests of the original were timed
    # [when, lighter's requests, slow ones, original's requests, slow ones]
    cells: deque[list[float]] = field(default_factory=deque)
    limits: tuple[float, float] | None = None
    burning: bool = False  # whether both windows of a pair burn faster than they may

    def add(self, now: float, lighter: bool, first: float, each: float) -> None:
        """A request that was answered: seconds to the first token, and seconds for each after it."""
        if not lighter:
            self.first.append(first)
            self.each.append(each)
            self.known += 1
            if self.known >= _KNOWN and (self.limits is None or self.known % _KNOWN == 0):
                self.limits = SLOWER * quantile(self.first, 0.95), SLOWER * quantile(self.each, 0.95)
        if self.limits is None:
            return
        slow = first > self.limits[0] or each > self.limits[1]
        if not self.cells or now - self.cells[-1][0] >= _CELL:
            self.cells.append([now, 0, 0, 0, 0])
            while now - self.cells[0][0] > BURNS[-1][0]:
                self.cells.popleft()
        place = 1 if lighter else 3
        self.cells[-1][place] += 1
        self.cells[-1][place + 1] += slow
        if lighter and slow:  # nothing else raises it
            self.burning = any(
                self._rate(now, short, FEWEST[1]) > most and self._rate(now, long, FEWEST[0]) > most
                for long, short, most in BURNS
            )

    def _rate(self, now: float, window: float, fewest: int) -> float:
        requests = slow = theirs = theirs_slow = 0.0
        for when, *counts in reversed(self.cells):
            if now - when > window:
                break
            requests, slow = requests + counts[0], slow + counts[1]
            theirs, theirs_slow = theirs + counts[2], theirs_slow + counts[3]
        if requests < fewest:
            return 0.0
        return (slow / requests - (theirs_slow / theirs if theirs else 0.0)) / BUDGET
