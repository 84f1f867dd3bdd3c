"""What an engine is asked, and what it answers piece by piece."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass
class Job:
    """One answer, with what has been sent of it so far: enough for another engine to go on where one stopped.

    prompt: text, token ids, or the turns of a conversation. tokens: the most the answer may have, None for as many as
    fit. top: of how many tokens log-probabilities are asked at each position, None for none. prompt_ids, sent: token
    ids, where the engine tells them; text: what was sent. doubt: above which the engine is to give the answer up.
    precision: the bits that the lighter model answers with, of several.
    """

    prompt: str | list[int] | list[dict[str, Any]]
    chat: bool = False
    tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    top: int | None = None
    prompt_ids: list[int] | None = None
    prompt_tokens: int = 0
    sent: list[int] = field(default_factory=list)
    text: str = ""
    doubt: float | None = None
    precision: int | None = None
    tools: dict[str, Any] = field(default_factory=dict)  # fields of the request for engines that have tools


@dataclass(frozen=True)
class Piece:
    """What one token adds. end: `stop` or `length`, of the last piece. token: None where an engine tells only text.
    top: the likeliest tokens here as (text, log-probability); count: tokens in this piece. calls: of tools, whole, with
    the last piece."""

    text: str = ""
    token: int | None = None
    logprob: float | None = None
    top: tuple[tuple[str, float], ...] = ()
    name: str = ""
    end: str | None = None
    count: int = 1
    calls: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Scored:
    """What a model says of somebody's tokens: its own first choice at each place."""

    chosen: list[int]
    logprobs: list[float]


class Fault(Exception):
    """An engine failed: `died`, `hung`, `not finite`, `nonsense`, `refused`."""

    def __init__(self, why: str, details: str = "") -> None:
        self.why, self.details = why, details
        super().__init__(f"{why}: {details}" if details else why)


class Unsure(Exception):
    """The engine's doubt exceeds the job's: somebody else is to go on."""


class AskedWrongly(Exception):
    """The request cannot be answered by any engine: too long, a template that refuses it."""


class Engine(Protocol):
    """One model that answers."""

    @property
    def ready(self) -> bool:
        """Whether it would take a job now."""

    async def start(self) -> None:
        """Returns when it is ready. Raises UsageError or MachineError if it never will be."""

    async def stop(self) -> None:
        """End it."""

    def ask(self, job: Job) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer that go on after `job.sent`. Closing the iterator cancels it. Raises Fault, Unsure
        or AskedWrongly."""

    async def score(self, ids: list[int], start: int, precision: int | None = None) -> Scored | None:
        """What it says of ids[start:], with so many bits where it has several; None where it cannot tell. Raises
        Fault."""

    async def surprise(self, text: str) -> list[tuple[str, float]] | None:
        """The pieces of a text, which together are it, with the nats by which each surprised; None where it cannot
        tell. Raises Fault."""

    async def wait(self, seconds: float) -> bool:
        """Whether it is ready, after at most so many seconds."""

    def give_up(self, seconds: float) -> None:
        """A job of its waited too long: if it has said nothing at all for so many seconds, it hangs, and is ended and
        started anew, where it is ours."""
