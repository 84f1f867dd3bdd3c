"""Laws of questions asked while users are served: what is lost stops the roll-out, what is not never does, and users go
first."""

from __future__ import annotations

import asyncio
import random

import pytest

from gateways import Engine, Says, gateway
from whet.errors import UsageError
from whet.measure.items import Item
from whet.messages import in_language
from whet.serving.beside import apart, must_be_alike
from whet.serving.boundaries import Skills
from whet.serving.dashboard import evidence, skills
from whet.serving.gateway import Gateway
from whet.serving.gauges import gauges
from whet.serving.replay import Replay

ITEMS = [Item("sums", f"{i} + 1 =", answer="4", check="number") for i in range(9)]
ITEMS += [Item("words", f"word {i}", answer="cat", check="contains") for i in range(9)]


def asking(original: str, lighter: str, *, engine: Engine | None = None, **rules) -> tuple[Gateway, Replay]:
    made = gateway(Says(original, 1.0), engine or Says(lighter, 1.0), questions=ITEMS, **rules)
    return made, made.replay


async def ask(replay: Replay, count: int) -> None:
    for _ in range(count):
        if replay.controller.state.status == "running":
            await replay.ask()


def test_a_skill_that_is_lost_stops_the_roll_out_and_is_named() -> None:
    made, replay = asking("4 cat\nmore", "4 dog\nmore")
    asyncio.run(ask(replay, 200))
    state = made.controller.state
    assert state.status == "failed" and "words" in str(state.reason) and "words" in in_language(state.reason, "ko")
    found = {one["skill"]: one for one in made.controller.report()["skills"]}
    assert found["sums"]["lighter"] == found["sums"]["count"] and found["words"]["lighter"] == 0
    assert found["words"]["count"] < 30
    assert {one["skill"]: one["share"] for one in skills(made.controller)} == {"sums": 0.0, "words": 1.0}
    told = {(name, labels.get("skill"), labels.get("side")): value for name, _, labels, value in gauges(made)}
    assert told["whet_questions_right", "words", "lighter"] == 0 < told["whet_questions_right", "words", "original"]


def test_what_is_kept_or_gained_stops_nothing_and_each_step_takes_its_questions() -> None:
    for original, lighter in (("4 cat", "4 cat"), ("5 dog", "4 cat"), ("5 dog", "5 dog")):
        made, replay = asking(original, lighter)
        assert "80 questions" in str(made.controller.judge().reason)
        asyncio.run(ask(replay, 100))
        assert made.controller.state.status == "running" and "questions" not in str(made.controller.judge().reason)
    assert "skills" in {one["name"] for one in evidence(made.controller)}
    assert not {"skills", "harmful"} & {one["name"] for one in evidence(gateway(Engine(), Engine()).controller)}


def test_as_much_as_may_be_lost_is_hardly_ever_a_failure() -> None:
    rng, stopped = random.Random(0), 0
    for _ in range(200):
        made = Skills(("a", "b"), 0.05)
        for number in range(300):
            made.add("ab"[number % 2], True, rng.random() >= 0.05)
            if made.evidence >= 1 / 0.05:
                stopped += 1
                break
    assert stopped <= 18  # 5 % of 200, and three deviations


def test_harmful_flips_beyond_the_promise_stop_it() -> None:
    made, replay = asking("4 cat", "4 dog", harmful=0.01, lost=0.9)
    asyncio.run(ask(replay, 200))
    assert "harmful" in str(made.controller.state.reason)
    made, replay = asking(
        "4 cat", "", engine=Unsure(), harmful=0.01, escalation={"doubt": 0.2, "limit": 0.009}
    )  # it goes over, and so nothing is lost
    asyncio.run(ask(replay, 60))
    assert made.controller.state.status == "running" and made.controller.whole.skills.found["words"].lighter > 20


class Unsure(Engine):
    def __init__(self) -> None:
        super().__init__()
        self.unsure_at = 0


def test_a_lighter_model_that_cannot_answer_is_a_fault_and_no_wrong_answer() -> None:
    made, replay = asking("4 cat", "", engine=Engine(fail=(0, "died")))

    async def all_fail() -> None:
        for _ in range(5):
            with pytest.raises(Exception, match="died"):
                await replay.ask()

    asyncio.run(all_fail())
    assert "hard faults" in str(made.controller.state.reason) and not made.controller.whole.skills.found["sums"].count


def test_questions_wait_while_users_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    made, replay = asking("4 cat", "4 cat")
    replay.every = 0.0
    made.pair.original.busy = 1

    async def while_busy() -> int:
        replay.start()
        await asyncio.sleep(0.2)
        asked = made.controller.whole.skills.found["sums"].count
        made.pair.original.busy = 0
        await asyncio.sleep(0.3)
        await replay.stop()
        return asked

    assert asyncio.run(while_busy()) == 0 < made.controller.whole.skills.found["sums"].count


TOLD = {
    "whole": True,
    "by_name": False,
    "settings": {"context": 128, "tokenizer: eos_token": "</s>"},
    "ends": [2],
    "texts": [[1, 2], [3]],
    "chat": ["<user>"],
    "zeros": [],
}


def test_what_is_served_beside_the_weights_must_be_alike() -> None:
    assert apart(TOLD, TOLD) == [] == apart(None, TOLD)
    must_be_alike("lighter", [])
    for change, what in (
        ({"settings": {"context": 64, "tokenizer: eos_token": "</s>"}}, "context length"),
        ({"settings": {"context": 128}}, "eos_token"),
        ({"ends": [2, 7]}, "end a text"),
        ({"texts": [[1, 2], [4]]}, "tokens of the same text"),
        ({"chat": None}, "chat template"),
        ({"zeros": ["layer.0"]}, "layer.0"),
    ):
        with pytest.raises(UsageError, match="--allow-differences") as raised:
            must_be_alike("lighter", apart(TOLD, TOLD | change))
        assert what in str(raised.value), change
    file = {"whole": False, "by_name": True, "settings": {"context": 128, "more": 1}, "ends": [2, 5], "zeros": []}
    assert apart(TOLD, TOLD | file) == []
