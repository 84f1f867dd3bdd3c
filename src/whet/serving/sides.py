"""The two sides, how many answers each gives at once, and the stream that goes over from one to the other.

An answer that the lighter side cannot begin, or does not end, is gone on with by the original: from the prompt's token
ids and those already sent, so nothing is sent twice and nothing is missing. If the original fails it is waited for, as
it is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

from whet.serving.jobs import Engine, Fault, Job, Piece, Unsure
from whet.serving.ladder import Ladder


@dataclass(frozen=True)
class Limits:
    """What no request exceeds. Times in seconds; waiting: requests in each side's queue; tokens: of an answer.
    requests_per_minute, tokens_per_minute: of each key."""

    first_token: float = 60.0
    between_tokens: float = 30.0
    total: float = 600.0
    waiting: int = 64
    body: int = 1 << 20
    prompt: int = 200_000  # letters
    tokens: int = 4096
    choices: int = 4
    header: float = 10.0
    requests_per_minute: int = 600
    tokens_per_minute: int = 200_000


class Busy(Exception):
    """The queue is full. seconds: when to come again."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__()


@dataclass
class Side:
    """One model and the queue before it."""

    name: str
    engine: Engine
    slots: int
    waiting: int
    queued: int = 0
    busy: int = 0
    seconds: float = 1.0  # that an answer takes, of late
    ladder: Ladder | None = None  # the precisions that it answers with, where it has several
    tokens: int = 0  # written so far
    working: float = 0.0  # seconds in which it wrote at least one answer
    free: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self.free = asyncio.Semaphore(self.slots)
        self._since = 0.0

    @contextlib.asynccontextmanager
    async def slot(self, seconds: float, *, must: bool = False) -> AsyncGenerator[None, None]:
        """A place among those that are answered at once. Raises Busy where none is free in so many seconds, or too many
        wait for one, unless it `must` be: an answer that has begun is not refused any more."""
        if self.queued >= self.waiting and not must:
            raise Busy(max(1, round(self.seconds * self.queued / self.slots)))
        self.queued += 1
        try:  # no `wait_for`, which makes a task of what it waits for
            async with asyncio.timeout(max(seconds, 0.0)):
                await self.free.acquire()
        except TimeoutError:
            raise Busy(max(1, round(self.seconds))) from None
        finally:
            self.queued -= 1
        began = time.monotonic()
        self._since = self._since if self.busy else began
        self.busy += 1
        try:
            yield
        finally:
            self.busy -= 1
            self.free.release()
            now = time.monotonic()
            self.seconds += 0.1 * (now - began - self.seconds)
            self.working += 0.0 if self.busy else now - self._since


@dataclass
class Share:
    """Which side served which tokens: from, to."""

    side: str
    start: int
    end: int
    precision: int | None = None


@dataclass
class Served:
    """What became of one answer. faults: of which side, and why; escalated: whether the lighter side was too unsure to
    end it; times: seconds to the first token, for each after."""

    job: Job
    shares: list[Share] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)
    escalated: bool = False
    first: float | None = None
    last: float | None = None
    count: int = 0
    began: float = field(default_factory=time.monotonic)

    def add(self, side: str, piece: Piece) -> None:
        now = time.monotonic()
        self.first = now if self.first is None else self.first
        self.last = now
        if not self.shares or self.shares[-1].side != side:
            self.shares.append(Share(side, self.count, self.count, self.job.precision if side == "lighter" else None))
        self.count += piece.count
        self.shares[-1].end = self.count
        self.job.text += piece.text
        if piece.token is not None:
            self.job.sent.append(piece.token)

    @property
    def times(self) -> tuple[float, float] | None:
        if self.first is None or self.last is None:
            return None
        return self.first - self.began, (self.last - self.first) / max(1, self.count - 1)

    @property
    def by(self) -> list[dict[str, str | int]]:
        found: list[dict[str, str | int]] = []
        for share in self.shares:
            found.append({"model": share.side, "from": share.start, "to": share.end})
            if share.precision is not None:
                found[-1]["precision"] = share.precision
        return found


class GaveUp(Exception):
    """Neither side answers."""


_TRIES = 3  # of the original, each after it has been started again


@dataclass
class Pair:
    """The original and the lighter model. doubt: above which an answer of the lighter model goes over."""

    original: Side
    lighter: Side
    limits: Limits
    doubt: float | None = None

    @property
    def sides(self) -> tuple[Side, Side]:
        """The original first."""
        return self.original, self.lighter

    async def answer(self, served: Served, lighter: bool) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer, which the lighter side begins if it is to and can. Raises Busy, AskedWrongly, and
        GaveUp where the original cannot go on either."""
        until = time.monotonic() + self.limits.total
        if lighter:
            served.job.doubt = self.doubt
            async with contextlib.aclosing(self._from(self.lighter, served, until)) as pieces:
                try:
                    async for piece in pieces:
                        yield piece
                    return
                except Fault as fault:
                    served.faults.append((self.lighter.name, fault.why))
                except Unsure:
                    served.escalated = True
                finally:
                    served.job.doubt = None
        for _ in range(_TRIES):
            await self.original.engine.wait(self.limits.first_token)
            async with contextlib.aclosing(self._from(self.original, served, until)) as pieces:
                try:
                    async for piece in pieces:
                        yield piece
                    return
                except Fault as fault:
                    served.faults.append((self.original.name, fault.why))
                    if fault.why == "out of time":
                        break
        raise GaveUp(served.faults[-1][1])

    def only_lighter(self, served: Served) -> AsyncGenerator[Piece, None]:
        """What the lighter side alone answers. Raises Fault."""
        return self._from(self.lighter, served, time.monotonic() + self.limits.total)

    async def _from(self, side: Side, served: Served, until: float) -> AsyncGenerator[Piece, None]:
        """The pieces that one side gives, each in its time."""
        if not side.engine.ready:
            raise Fault("died")
        job = served.job
        async with contextlib.AsyncExitStack() as held:
            must = bool(served.faults) or served.escalated
            await held.enter_async_context(side.slot(until - time.monotonic(), must=must))
            if side.ladder is not None:
                job.precision = side.ladder.choose(side.queued)
            pieces = await held.enter_async_context(contextlib.aclosing(side.engine.ask(job)))
            seconds = self.limits.first_token
            while True:
                left = until - time.monotonic()
                try:
                    async with asyncio.timeout(max(0.0, min(seconds, left))):
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    raise Fault("died", "it stopped before the end") from None
                except TimeoutError:
                    if left <= seconds:
                        raise Fault("out of time") from None
                    side.engine.give_up(0.9 * min(seconds, self.limits.between_tokens))
                    raise Fault("hung") from None
                served.add(side.name, piece)
                side.tokens += piece.count
                yield piece
                if piece.end is not None:
                    return
                seconds = self.limits.between_tokens


class Stops:
    """Ends an answer at the first of some words, and holds back what may become one of them: so a word may lie across
    two tokens, and across the switch from one side to the other."""

    def __init__(self, words: list[str]) -> None:
        self.words = words
        self._held = ""
        self.stopped = False

    def add(self, text: str, last: bool = False) -> str:
        """What can be sent now."""
        self._held += text
        found = [at for at in (self._held.find(word) for word in self.words) if at >= 0]
        if found:
            self.stopped = True
            return self._held[: min(found)]
        keep = 0
        if not last:
            for word in self.words:
                for length in range(min(len(word) - 1, len(self._held)), keep, -1):
                    if self._held.endswith(word[:length]):
                        keep = length
                        break
        sent = self._held[: len(self._held) - keep]
        self._held = self._held[len(sent) :]
        return sent


def loops(ids: list[int], most: int = 16, tokens: int = 96) -> bool:
    """Whether an answer repeats itself: its last `tokens` are one run of at most `most` tokens over and over."""
    if len(ids) < tokens:
        return False
    last = ids[-tokens:]
    return any(last[period:] == last[:-period] for period in range(1, most + 1))
