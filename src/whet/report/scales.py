"""Where a value lies on an axis, and which values to label: linear and logarithmic."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high` (low < high; on a log axis low > 0)."""

    low: float
    high: float
    log: bool = False

    def at(self, value: float) -> float:
        """The share of the way from low to high, 0 to 1 inside the axis, beyond it outside."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def holds(self, value: float) -> bool:
        """Whether `value` lies on the axis, ends included."""
        return self.low <= value <= self.high

    def ticks(self, most: int = 6) -> list[float]:
        """Round values on the axis, ascending, about `most` at the most (see `log_ticks` and `linear_ticks`)."""
        return (log_ticks if self.log else linear_ticks)(self.low, self.high, most)


def fitted(values: Iterable[float], log: bool = False, pad: float = 0.06) -> Axis:
    """An axis around `values` (finite, at least one; > 0 if `log`) with `pad` of its length to spare at both ends.

    A log axis spans a factor of four at least, a linear one something, so that one value has an axis too.
    """
    low, high = min(values := list(values)), max(values)
    if log:
        factor = max(high / low, 4.0) ** pad
        middle, half = math.sqrt(low * high), max(math.sqrt(high / low), 2.0)
        return Axis(middle / half / factor, middle * half * factor, log=True)
    length = high - low or abs(high) or 1.0
    return Axis(low - pad * length, high + pad * length)


def linear_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from `low` to `high`, at most `most`."""
    step = 10.0 ** math.floor(math.log10((high - low) / max(most, 1)))
    while True:
        for factor in (1, 2, 5):
            width = step * factor
            first, last = math.ceil(low / width - 1e-9), math.floor(high / width + 1e-9)
            if last - first + 1 <= most:
                digits = max(0, -math.floor(math.log10(width)))
                return [round(i * width, digits) for i in range(first, last + 1)]
        step *= 10


def log_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Powers of ten from `low` to `high`, with 2 and 5 between where `most` allows, else every second, third power."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**e for e in range(first, last + 1) for f in factors if low <= f * 10.0**e <= high]
        if len(found) <= most:
            return found
    every = math.ceil(len(found) / most)
    return [10.0**e for e in range(first, last + 1) if e % every == 0 and low <= 10.0**e <= high]
