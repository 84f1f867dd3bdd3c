"""Precision by load: down while requests wait, up when none do, never below the floor, and told to clients."""

from __future__ import annotations

import asyncio

import pytest

from gateways import Engine
from whet.errors import UsageError
from whet.serving.jobs import Job
from whet.serving.ladder import Ladder
from whet.serving.server import Serving, serve
from whet.serving.sides import Limits, Pair, Served, Side
from whet.serving.wire import Choice, precisions


def test_it_steps_down_and_up_with_hysteresis():
    now = [0.0]
    ladder = Ladder((8, 4, 2), slots=2, hold=2.0, clock=lambda: now[0])
    told = []
    for second, queued in enumerate([0, 1, 2, 2, 9, 9, 9, 1, 1, 0, 0, 0, 0, 0]):
        now[0] = float(second)
        told.append(ladder.choose(queued))
    # one waiting changes nothing either way; changes are two seconds apart; 2 is the floor
    assert told == [8, 8, 4, 4, 2, 2, 2, 2, 2, 4, 4, 8, 8, 8]
    assert ladder.changes == 4 and ladder.now == 8


def test_answers_say_their_precision():
    async def answered() -> list[Served]:
        lighter = Side("lighter", Engine(pause=0.001), 1, 64, ladder=Ladder((8, 4), 1, hold=0.0))
        pair = Pair(Side("original", Engine(), 1, 64), lighter, Limits())

        async def one() -> Served:
            served = Served(Job("a prompt"))
            async for _ in pair.answer(served, lighter=True):
                pass
            return served

        found = [await one(), *await asyncio.gather(*(one() for _ in range(4)))]
        async for _ in pair.answer(plain := Served(Job("a prompt")), lighter=False):
            pass
        return [*found, plain]

    *found, plain = asyncio.run(answered())
    # alone; one before the others are there; two with others waiting behind them; the last with nobody
    assert [served.shares[0].precision for served in found] == [8, 8, 4, 4, 8]
    assert found[2].by == [{"model": "lighter", "from": 0, "to": found[2].count, "precision": 4}]
    assert precisions([Choice(0, found[2], None)]) == {"x-whet-precision": "4"}
    assert precisions([Choice(0, found[0], None), Choice(1, found[2], None)]) == {"x-whet-precision": "8, 4"}
    assert precisions([Choice(0, plain, None)]) == {} and "precision" not in plain.by[0]


@pytest.mark.parametrize(
    ("lighter", "fast", "why"), [("http://127.0.0.1:1", True, "its own precision"), ("m", False, "--fast")]
)
def test_what_cannot_change_is_refused(lighter, fast, why, tmp_path):
    asked = Serving(lighter, lighter, tmp_path, port=0, fast=fast, precisions=(8, 4))
    with pytest.raises(UsageError, match=why):
        serve(asked, lambda *_: None)
