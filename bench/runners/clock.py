"""Time per block, for the runners that `memory_speed.py` compares."""

from __future__ import annotations

import time
from itertools import pairwise


class Clock:
    """Moments at which something happened, on the wall's clock and on the processor's.

    On a machine with other work the processor's time is the steadier one; with one thread it is what the wall would
    show on an idle machine.
    """

    def __init__(self) -> None:
        self.moments: list[tuple[float, float]] = []

    def mark(self) -> None:
        self.moments.append((time.perf_counter(), time.process_time()))

    def between(self) -> dict[str, list[float]]:
        """Seconds from each mark to the next."""
        steps = [[later - earlier for earlier, later in zip(a, b, strict=True)] for a, b in pairwise(self.moments)]
        return {"seconds_per_block": [wall for wall, _ in steps], "cpu_seconds_per_block": [cpu for _, cpu in steps]}
