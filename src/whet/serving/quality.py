"""Live quality: a sample of requests is answered by both sides, in the background, and told to the roll-out.

The original's answer is scored under both models, word for word given (teacher-forced): the share of places at which
both would choose the same token, and how much less likely its tokens are to the lighter model, which is an estimate of
the KL divergence in nats a token where answers are drawn at temperature 1. Servers behind a URL tell no such scores;
of them both answer at temperature 0 and the words are compared. Texts are kept in memory until they are compared, and
longer only where somebody asked for it (`pairs`).
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import math
from collections import deque
from dataclasses import replace

from whet.serving.jobs import AskedWrongly, Fault, Job
from whet.serving.metrics import Metrics
from whet.serving.pairs import Pairs
from whet.serving.rollout import Controller
from whet.serving.sides import Busy, GaveUp, Pair, Served

_WAITING = 64  # requests to be compared; more are let go
_SECONDS = 300.0  # that one comparison may take


class Quality:
    """Compares one request after the other."""

    def __init__(self, pair: Pair, controller: Controller, metrics: Metrics, pairs: Pairs) -> None:
        self.pair, self.controller, self.metrics, self.pairs = pair, controller, metrics, pairs
        self._waiting: asyncio.Queue[tuple[Job, bool]] = asyncio.Queue(_WAITING)
        self.losses: deque[float] = deque(maxlen=1000)  # nats a token, of the last requests
        self.shifts: deque[float] = deque(maxlen=1000)  # of the shares of the original's tokens, of the last requests
        self.agreements: deque[float] = deque(maxlen=300)  # of the last requests
        self._at: dict[int, deque[float]] = {}  # the same by precision, where the lighter model has several
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._compare_all())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def offer(self, job: Job, lighter: bool) -> None:
        """A request that was answered, by the lighter side or by the original."""
        if not self.controller.compares():
            return
        try:
            self._waiting.put_nowait((job, lighter))
        except asyncio.QueueFull:
            self.metrics.count("whet_comparisons_total", outcome="too many waiting")

    def by_precision(self) -> dict[int, float]:
        """Mean agreement of the last requests by the bits that answered them."""
        return {bits: sum(last) / len(last) for bits, last in sorted(self._at.items(), reverse=True)}

    async def idle(self) -> None:
        """Until all that were offered are compared."""
        await self._waiting.join()

    async def _compare_all(self) -> None:
        while True:
            job, lighter = await self._waiting.get()
            outcome = "compared"
            try:
                async with asyncio.timeout(_SECONDS):
                    await self._compare(job, lighter)
            except (Fault, AskedWrongly, GaveUp, Busy, TimeoutError) as error:
                outcome = type(error).__name__
            finally:
                self._waiting.task_done()
            self.metrics.count("whet_comparisons_total", outcome=outcome)

    async def _compare(self, job: Job, lighter: bool) -> None:
        if not job.sent:
            await self._compare_words(job)
            return
        given = job
        if lighter:
            job = await self._answered(replace(job, sent=[], text=""))
        if job.prompt_ids is None or not job.sent:
            return
        ids, start = [*job.prompt_ids, *job.sent], len(job.prompt_ids)
        ladder = self.pair.lighter.ladder
        bits = None if ladder is None else given.precision or ladder.now
        theirs = await self.pair.original.engine.score(ids, start)
        if theirs is None:
            return
        try:
            ours = await self.pair.lighter.engine.score(ids, start, **({} if bits is None else {"precision": bits}))
        except Fault:
            self.controller.not_compared()
            raise
        if ours is None:
            return
        same = [a == b for a, b in zip(theirs.chosen, ours.chosen, strict=True)]
        lost = [a - b for a, b in zip(theirs.logprobs, ours.logprobs, strict=True)]
        self.losses.append(sum(lost) / len(lost))
        moved = [abs(math.exp(a) - math.exp(b)) for a, b in zip(theirs.logprobs, ours.logprobs, strict=True)]
        self.shifts.append(sum(moved) / len(moved))
        self._compared(sum(same) / len(same), self.shifts[-1])
        if bits is not None:
            self._at.setdefault(bits, deque(maxlen=300)).append(sum(same) / len(same))
        if self.pairs.most and not all(same):
            other = given if lighter else await self._lighter(replace(job, sent=[], text=""))
            self.pairs.add(job.prompt, job.text, other.text, sum(same) / len(same))

    def _compared(self, agreement: float, shift: float | None = None) -> None:
        self.agreements.append(agreement)
        self.controller.compared(agreement, shift)

    async def _answered(self, job: Job) -> Job:
        """The original's answer to a job, in the background."""
        served = Served(job)
        async with contextlib.aclosing(self.pair.answer(served, lighter=False)) as pieces:
            async for _ in pieces:
                pass
        return job

    async def _lighter(self, job: Job) -> Job:
        """The lighter model's answer to a job, in the background."""
        served = Served(job)
        try:
            async with contextlib.aclosing(self.pair.only_lighter(served)) as pieces:
                async for _ in pieces:
                    pass
        except Fault:
            self.controller.not_compared()
            raise
        return job

    async def _compare_words(self, job: Job) -> None:
        """Of sides that tell text alone: how many words of both answers, at temperature 0, are the same, in order."""
        asked = replace(job, temperature=0.0, text="", sent=[])
        original = await self._answered(replace(asked))
        other = await self._lighter(replace(asked))
        words = original.text.split(), other.text.split()
        if not words[0]:
            return
        agreement = difflib.SequenceMatcher(None, *words, autojunk=False).ratio()
        self._compared(agreement)
        self.pairs.add(job.prompt, original.text, other.text, agreement)
