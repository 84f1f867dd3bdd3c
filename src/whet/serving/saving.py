"""What the lighter model saves: the time its tokens would have taken the original, and what that is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from whet.serving.sides import Side

_FEWEST = 200  # tokens of either side before anything is told


@dataclass(frozen=True)
class Worth:
    """watts: that the machine draws while it answers; hourly: what an hour of it costs, in any currency. None where
    nobody said."""

    watts: float | None = None
    hourly: float | None = None


def saved(original: Side, lighter: Side, worth: Worth) -> dict[str, Any] | None:
    """seconds that the original would have worked longer for the lighter model's tokens, below 0 where it would have
    been faster; of the same the kilowatt hours and the money. None while either has written too little to tell."""
    if min(original.tokens, lighter.tokens) < _FEWEST:
        return None
    each = original.working / original.tokens, lighter.working / lighter.tokens
    seconds = lighter.tokens * (each[0] - each[1])
    return {
        "seconds": seconds,
        "tokens": lighter.tokens,
        "energy": None if worth.watts is None else seconds * worth.watts / 3.6e6,
        "money": None if worth.hourly is None else seconds * worth.hourly / 3600,
    }
