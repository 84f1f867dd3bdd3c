"""Gateways for tests: engines that answer by a rule and fail where they are told to, and a server on a free port."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import uvicorn

import rollout as bench
from whet.messages import to_json
from whet.serving.gateway import Gateway
from whet.serving.jobs import AskedWrongly, Fault, Job, Piece, Scored, Unsure
from whet.serving.keys import Keys, hashed
from whet.serving.patience import patient_for
from whet.serving.rollout import Controller, State
from whet.serving.rules import Rules
from whet.serving.sides import Limits, Pair, Side
from whet.serving.worker import Words

ADMIN = "the admin's key"
RULES = Rules(hold=0.0, requests=20, pairs=20)


class Letters:
    """A tokenizer whose tokens are bytes."""

    folder = "letters"

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(ids).decode(errors="replace")


def answer_to(prompt: str, seed: int) -> bytes:
    """What every engine of this file answers: a function of the prompt and the seed, with letters of several bytes."""
    words = ["가나다", "ab", "é", "😀", "the", "END", "마바"]
    order = [words[(hash_of(prompt) + seed + i * i) % len(words)] for i in range(30)]
    return " ".join(order).encode()


def hash_of(prompt: str) -> int:
    return sum(prompt.encode())


class Engine:
    """Implements `jobs.Engine` here, without a process. fail: at which token of an answer it fails, and how.

    agrees: at what share of the places it chooses the token that is there.
    """

    def __init__(self, fail: tuple[int, str] | None = None, pause: float = 0.0, agrees: float = 1.0) -> None:
        self.fail, self.pause, self.agrees = fail, pause, agrees
        self.ready = True
        self.unsure_at: int | None = None  # at which token of an answer its doubt is too large, if it is to tell
        self.doubt: float | None = None
        self.cancelled = self.begun = self.given_up = 0

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def wait(self, seconds: float) -> bool:
        return self.ready

    def give_up(self, seconds: float) -> None:
        self.given_up += 1

    async def ask(self, job: Job) -> AsyncIterator[Piece]:
        self.begun += 1
        prompt = str(job.prompt)
        if "too long" in prompt:
            raise AskedWrongly("The prompt is too long.")
        letters, ended = Letters(), False
        job.prompt_ids = letters.encode(prompt)
        job.prompt_tokens = len(job.prompt_ids)
        tokens = answer_to(prompt, job.seed)[: job.tokens]
        words = Words(letters, job.prompt_ids)
        for token in job.sent:
            words.add(token)
        try:
            for token in tokens[len(job.sent) :]:
                self.doubt = job.doubt
                await self._maybe_fail(len(job.sent))
                await asyncio.sleep(self.pause)
                top = (("a", -1.0), ("b", -2.0))[: job.top] if job.top is not None else ()
                named = {"logprob": -0.5, "top": top, "name": chr(token)} if job.top is not None else {}
                yield Piece(words.add(token), token, **named)
            ended = True
            whole = len(tokens) < len(answer_to(prompt, job.seed))
            yield Piece(words.rest(), end="length" if whole else "stop", count=0)
        finally:
            self.cancelled += not ended

    async def _maybe_fail(self, at: int) -> None:
        if self.unsure_at == at and self.doubt is not None:
            raise Unsure
        if self.fail is not None and at == self.fail[0]:
            if self.fail[1] == "hung":
                await asyncio.sleep(60)
            raise Fault(self.fail[1])

    async def score(self, ids: list[int], start: int) -> Scored:
        if self.fail is not None:
            raise Fault(self.fail[1])
        kept = [token if i % 10 < 10 * self.agrees else -1 for i, token in enumerate(ids[start:])]
        return Scored(kept, [-0.1] * len(kept))

    async def surprise(self, text: str) -> list[tuple[str, float]]:
        """Long words surprise."""
        return [(word, float(len(word.strip()))) for word in re.findall(r"\s*\S+|\s+$", text)]


class Says(Engine):
    """Answers one text, whatever it is asked."""

    def __init__(self, text: str, agrees: float) -> None:
        super().__init__(agrees=agrees)
        self.text = text

    async def ask(self, job: Job):
        job.prompt_ids, job.prompt_tokens = list(str(job.prompt).encode()), len(str(job.prompt))
        for token in self.text.encode()[len(job.sent) :]:
            yield Piece(chr(token), token)
        yield Piece("", end="stop", count=0)


class Remembered(bench.Memory):
    """A store that knows what was stored."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict] = []

    def save(self, state: State, event: str) -> None:
        super().save(state, event)
        about = {"stage": state.stage, "status": state.status, "reason": to_json(state.reason)}
        self.rows.append({"at": state.since, "event": event, **about})

    def history(self) -> list[dict]:
        return self.rows


def gateway(
    original: Engine, lighter: Engine, *, stage: int = 0, keys: dict[str, str] | None = None, **more
) -> Gateway:
    """A gateway at some step of its roll-out. more: of `Limits`, of `Rules`, and `slots`, `pairs`, `escalation` and
    `questions`."""
    questions = more.pop("questions", [])
    rules = replace(RULES, **{name: more.pop(name) for name in ("harmful", "lost") if name in more})
    slots, pairs, escalation = more.pop("slots", 8), more.pop("pairs", 0), more.pop("escalation", None)
    limits = Limits(**{"waiting": 64, "first_token": 1.0, "between_tokens": 1.0, "header": 1.0, **more})
    sides = [
        Side(name, engine, slots, limits.waiting) for name, engine in (("original", original), ("lighter", lighter))
    ]
    store = Remembered()
    skills = tuple(dict.fromkeys(item.skill for item in questions))
    controller = Controller(rules, store, "pair", "salt", time.monotonic, time.time, lambda: 0.0, 0.1, skills)
    for _ in range(stage):
        controller.act("promote")
    users = {name: hashed(key) for name, key in (keys or {}).items()}
    known = Keys(hashed(ADMIN), users)
    pair = Pair(*sides, limits, escalation["doubt"] if escalation else None)
    return Gateway("model", pair, controller, known, store.history, pairs, escalation, None, questions)


@contextlib.contextmanager
def running(made: Gateway) -> Iterator[str]:
    """The URL of a gateway that runs in a thread."""
    config = uvicorn.Config(
        made.app(), port=0, http=patient_for(made.limits.header), ws="none", log_level="critical", access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    for _ in itertools.count():
        if server.started:
            break
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
