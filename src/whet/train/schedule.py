"""The learning rate over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from whet.errors import UsageError


@dataclass(frozen=True)
class Schedule:
    """Learning rate over a run: linear warm-up to `peak`, then `cosine` down to `floor * peak`, or `wsd`: steady, then
    linear down over the last `decay` share of the steps."""

    peak: float
    steps: int
    warmup: int = 100
    kind: str = "wsd"
    decay: float = 0.4
    floor: float = 0.0

    def __call__(self, step: int) -> float:
        """Learning rate of `step` (0 is the first)."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        if self.kind == "cosine":
            along = (step - self.warmup) / max(1, self.steps - self.warmup)
            share = 0.5 * (1 + math.cos(math.pi * min(1.0, along)))
        elif self.kind == "wsd":
            share = min(1.0, (self.steps - step) / max(1.0, self.decay * self.steps))
        else:
            raise UsageError("schedule kind {kind!r} is not known. Use cosine or wsd.", kind=self.kind)
        return self.peak * (self.floor + (1 - self.floor) * share)
