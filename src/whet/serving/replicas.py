"""Several servers that serve one model: each answer goes to the one with the least to do.

Who fails before the first word is passed over for another, and not asked again for some seconds unless nobody else is
left. What breaks off later is the gateway's to go on with.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Callable

from whet.errors import UsageError
from whet.serving.jobs import Fault, Job, Piece, Scored
from whet.serving.remote import UrlEngine

_AVOIDED = 5.0  # seconds, after which its health is known again
_LOOK = 0.05  # seconds between looks whether one is ready


def urls_of(model: str) -> list[str]:
    """The URLs of `http://a:1,http://b:2`."""
    return re.split(r",(?=https?://)", model)


class Replicas:
    """Implements `jobs.Engine`. clock: seconds, never backwards."""

    tools = True

    def __init__(self, engines: list[UrlEngine], clock: Callable[[], float] = time.monotonic) -> None:
        self.engines, self.clock = engines, clock
        self.open = [0] * len(engines)  # answers that each is giving
        self._failed = [-_AVOIDED] * len(engines)

    @property
    def ready(self) -> bool:
        return any(engine.ready for engine in self.engines)

    async def start(self) -> None:
        await asyncio.gather(*(engine.start() for engine in self.engines))
        first = self.engines[0]
        for other in self.engines[1:]:
            if other.model != first.model:
                raise UsageError(
                    "{one} serves {model} and {other} serves {another}. Replicas must serve the same model.",
                    one=first.name,
                    model=first.model,
                    other=other.name,
                    another=other.model,
                )

    async def stop(self) -> None:
        await asyncio.gather(*(engine.stop() for engine in self.engines))

    async def wait(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self.ready:
                    await asyncio.sleep(_LOOK)
        return self.ready

    def give_up(self, seconds: float) -> None:
        """They are not ours to end."""

    def _order(self) -> list[int]:
        """Who is ready, the best first: who did not fail just now, and has the least to do."""
        now = self.clock()
        able = [number for number, engine in enumerate(self.engines) if engine.ready]
        return sorted(able, key=lambda number: (now - self._failed[number] < _AVOIDED, self.open[number]))

    async def ask(self, job: Job) -> AsyncGenerator[Piece, None]:
        fault = Fault("died", "no replica is ready")
        for number in self._order():
            begun = False
            self.open[number] += 1
            try:
                async with contextlib.aclosing(self.engines[number].ask(job)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except Fault as error:
                self._failed[number] = self.clock()
                if begun:
                    raise
                fault = error
            finally:
                self.open[number] -= 1
        raise fault

    async def score(self, ids: list[int], start: int, precision: int | None = None) -> Scored | None:
        return None

    async def surprise(self, text: str) -> list[tuple[str, float]] | None:
        return None
