"""What the last minutes were like: counts and times of both sides, in memory that does not grow."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from whet.serving.evidence import quantile

CELL = 10.0  # seconds counted together
CELLS = 60  # that are remembered
_TIMED = 500  # requests of each side whose times are remembered


@dataclass
class Cell:
    """Ten seconds of one side."""

    number: int
    requests: int = 0
    errors: int = 0
    tokens: int = 0


@dataclass
class Recent:
    """One side of late. clock: seconds, never backwards."""

    clock: Callable[[], float]
    cells: deque[Cell] = field(default_factory=lambda: deque(maxlen=CELLS))
    times: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_TIMED))

    def add(self, error: bool, tokens: int, times: tuple[float, float] | None) -> None:
        """An answer. times: seconds to the first token, for each after it; None where they tell nothing."""
        number = int(self.clock() // CELL)
        if not self.cells or self.cells[-1].number != number:
            self.cells.append(Cell(number))
        cell = self.cells[-1]
        cell.requests += 1
        cell.errors += error
        cell.tokens += tokens
        if times is not None:
            self.times.append(times)

    def told(self) -> dict[str, Any]:
        """requests, errors: of each cell, the running one last. A second: of the last whole minute."""
        now = int(self.clock() // CELL)
        at = {cell.number: cell for cell in self.cells}
        row = [at.get(number, Cell(number)) for number in range(now - CELLS + 1, now + 1)]
        minute = row[-7:-1]
        first, each = [one[0] for one in self.times], [one[1] for one in self.times]
        return {
            "requests": [cell.requests for cell in row],
            "errors": [cell.errors for cell in row],
            "requests_per_second": sum(cell.requests for cell in minute) / (CELL * len(minute)),
            "tokens_per_second": sum(cell.tokens for cell in minute) / (CELL * len(minute)),
            "first": {"median": quantile(first, 0.5), "p95": quantile(first, 0.95)} if first else None,
            "each": {"median": quantile(each, 0.5), "p95": quantile(each, 0.95)} if each else None,
        }
