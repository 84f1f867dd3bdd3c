"""Skills live: questions with known answers, asked of both models on schedule while users are served.

Questions are drawn at random, the same one more than once if it comes so: then what is tested is the share of all
questions of a skill that the lighter model loses. Notable: the lighter model's answer is the one that a user would get,
so where it goes over to the original for doubt, the original's part counts too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Sequence

from whet.measure.items import LONGEST_ANSWER, Item, is_right
from whet.serving.jobs import AskedWrongly, Fault, Job
from whet.serving.metrics import Metrics
from whet.serving.rollout import Controller
from whet.serving.sides import Busy, GaveUp, Pair, Served

_LOOK = 0.05  # seconds between looks whether anybody is being answered
_AT_MOST = 30.0  # seconds that a question waits for a moment in which nobody is
_SECONDS = 120.0  # that both answers may take


def free_answers(items: Sequence[Item]) -> list[Item]:
    """The questions that are answered in words: what is likelier of several choices, no user asks."""
    return [item for item in items if not item.choices]


class Replay:
    """Asks one question after the other. every: seconds between two; rng: that draws them."""

    def __init__(
        self,
        items: Sequence[Item],
        pair: Pair,
        controller: Controller,
        metrics: Metrics,
        every: float,
        rng: random.Random,
    ) -> None:
        self.pair, self.controller, self.metrics, self.every, self.rng = pair, controller, metrics, every, rng
        self.items: dict[str, list[Item]] = {skill: [] for skill in controller.skills}
        for item in items:
            if item.skill in self.items:
                self.items[item.skill].append(item)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self.items:
            self._task = asyncio.create_task(self._ask_all())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _ask_all(self) -> None:
        while True:
            await asyncio.sleep(self.every)
            if self.controller.state.status not in ("running", "held"):
                continue
            await self._quiet()
            outcome = "asked"
            try:
                async with asyncio.timeout(_SECONDS):
                    await self.ask()
            except (Fault, AskedWrongly, GaveUp, Busy, TimeoutError) as error:
                outcome = type(error).__name__
            self.metrics.count("whet_questions_total", outcome=outcome)

    async def _quiet(self) -> None:
        """Until nobody is being answered, or that does not come."""
        sides = self.pair.original, self.pair.lighter
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_AT_MOST):
                while any(side.busy or side.queued for side in sides):
                    await asyncio.sleep(_LOOK)

    async def ask(self) -> None:
        """A question of the skill that was asked least. Raises what answers raise."""
        counts = self.controller.step.tests.skills.found
        skill = min(self.items, key=lambda name: counts[name].count)
        item = self.rng.choice(self.items[skill])
        original = await self._answer(item, lighter=False)
        lighter = await self._answer(item, lighter=True)
        self.controller.asked(skill, original, lighter)

    async def _answer(self, item: Item, lighter: bool) -> bool:
        """Whether an answer is right. A fault of the lighter model is told to the roll-out and raised."""
        served = Served(Job(item.prompt, tokens=LONGEST_ANSWER, temperature=0.0))
        async with contextlib.aclosing(self.pair.answer(served, lighter)) as pieces:
            async for _ in pieces:
                if "\n" in served.job.text or (lighter and served.faults):
                    break
        if lighter and served.faults:
            self.controller.not_compared()
            raise Fault(served.faults[0][1])
        return is_right(served.job.text.split("\n")[0].strip(), item.answer or "", item.check)
