"""How much each key may ask: token buckets that fill up evenly and hold one minute's worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field


class Limited(Exception):
    """This key has asked too much of late. seconds: when to come again; what: `requests` or `tokens`."""

    def __init__(self, what: str, seconds: int) -> None:
        self.what, self.seconds = what, seconds
        super().__init__(what)


@dataclass
class Bucket:
    """What is left of a minute's worth. It may fall below zero: an answer is charged when its length is known."""

    most: float
    left: float
    at: float

    def fill(self, now: float) -> None:
        self.left = min(self.most, self.left + (now - self.at) * self.most / 60)
        self.at = now

    def seconds(self, wanted: float) -> int:
        """Until so much is there."""
        return max(1, math.ceil((wanted - self.left) * 60 / self.most))


@dataclass
class Rates:
    """requests, tokens: a minute, of each key. clock: seconds, never backwards."""

    requests: float
    tokens: float
    clock: Callable[[], float]
    _buckets: dict[str, tuple[Bucket, Bucket]] = field(default_factory=dict)

    def admit(self, key: str) -> None:
        """Count a request of this key. Raises Limited, and then does not count it."""
        requests, tokens = self._of(key)
        if requests.left < 1:
            raise Limited("requests", requests.seconds(1))
        if tokens.left < 1:
            raise Limited("tokens", tokens.seconds(1))
        requests.left -= 1

    def spend(self, key: str, tokens: int) -> None:
        """Charge the tokens of a prompt and its answer."""
        self._of(key)[1].left -= tokens

    def _of(self, key: str) -> tuple[Bucket, Bucket]:
        now = self.clock()
        if key not in self._buckets:
            self._buckets[key] = Bucket(self.requests, self.requests, now), Bucket(self.tokens, self.tokens, now)
        for bucket in self._buckets[key]:
            bucket.fill(now)
        return self._buckets[key]
