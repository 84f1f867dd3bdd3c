"""A model in a process of its own, started, watched, and started again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from whet.child import environment, python_command
from whet.errors import UsageError
from whet.messages import Message
from whet.serving.jobs import AskedWrongly, Fault, Job, Piece, Scored, Unsure

WORKER = "from whet.serving.worker import main; main()"
_LINE = 64 << 20  # bytes of one line at most
_PAUSES = 0.2, 30.0  # seconds before it is started again: at first, and after many times


@dataclass(frozen=True)
class Opened:
    """How a model is opened. most: tokens of a prompt with its answer; slots: answers at once. trusted:
    the folder whose Python code may build models. fast: stays packed in memory where there is a
    kernel. draft: a model that guesses for it, in the same process; measure: find out first how much faster that is.
    precisions: those of a folder of several that it answers with."""

    model: str
    device: str = "auto"
    dtype: str | None = None
    threads: int | None = None
    slots: int = 4
    most: int = 8192
    trusted: str | None = None
    fast: bool = False
    draft: str | None = None
    measure: bool = True
    precisions: tuple[int, ...] = ()


@dataclass
class _Told:
    """What the process says of one job, and whether that was all."""

    said: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    ended: bool = False


class ProcessEngine:
    """Implements `jobs.Engine` with `worker` in a child, or with another command that speaks as it does."""

    def __init__(self, opened: Opened, command: Sequence[str] | None = None, patience: float = 600.0) -> None:
        self.name = opened.model
        self._opened, self._command = opened, command
        self._patience = patience
        self._process: Process | None = None
        self._jobs: dict[str, _Told] = {}
        self._numbers = count(1)
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._stopped = False
        self.starts = 0
        self._heard = 0.0  # when it last said anything
        self.start_seconds = 0.0
        self.context: int | None = None
        self.tokens: str | None = None  # a hash of the tokenizer's vocabulary
        self.beside: dict[str, Any] | None = None  # what it is served with beside its weights: `beside.apart` compares
        self.faster: dict[str, float] | None = None  # what was measured of the draft: fields of `drafted.Speedup`
        self.draft: dict[str, Any] = {}  # what the draft did: `proposed` and `kept` tokens, or why it `failed`

    @property
    def ready(self) -> bool:
        return self._up.is_set()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        await self._open()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        self._stopped = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._end()

    async def wait(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), seconds)
        return self.ready

    def give_up(self, seconds: float) -> None:
        if time.monotonic() - self._heard < seconds:
            return
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _open(self) -> None:
        began = time.monotonic()
        about = json.dumps(vars(replace(self._opened, measure=not self.starts)))
        self._process = await asyncio.create_subprocess_exec(
            *(self._command or python_command(WORKER, about)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=environment(),
            limit=_LINE,
            start_new_session=True,
        )
        line = {}
        try:
            line = await asyncio.wait_for(self._line(), self._patience)
        except TimeoutError:
            await self._end()
        if "ready" not in line:
            await self._end()
            ended = Message("it ended or did not answer while it was opened")
            why = Message.read(line["refused"]) if "refused" in line else ended
            raise UsageError("{model} cannot be served: {why}", model=self.name, why=why)
        self.context, self.tokens = line.get("context"), line.get("tokens")
        self.beside = line.get("beside")
        self.faster = line.get("faster", self.faster)
        self.draft = {}
        self.start_seconds = time.monotonic() - began - line.get("measuring", 0.0)
        self.starts += 1
        self._heard = time.monotonic()
        self._up.set()

    async def _line(self) -> dict[str, Any]:
        """The next line; {} at the end, or where it is none of a worker's."""
        assert self._process is not None and self._process.stdout is not None
        try:
            line = json.loads(await self._process.stdout.readline() or "{}")
        except ValueError:
            return {}
        return line if isinstance(line, dict) else {}

    async def _keep(self) -> None:
        """Hand out what the process says; when it ends, tell those who wait, and start it again."""
        pause = _PAUSES[0]
        while not self._stopped:
            began = time.monotonic()
            while line := await self._line():
                self._heard = time.monotonic()
                if isinstance(line.get("draft"), dict):
                    self.draft |= line["draft"]
                elif (told := self._jobs.get(str(line.get("id")))) is not None:
                    told.said.put_nowait(line)
            self._up.clear()
            await self._end()
            for told in self._jobs.values():
                told.said.put_nowait({"fault": "died"})
            if time.monotonic() - began > 60:
                pause = _PAUSES[0]
            while not self._stopped:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _PAUSES[1])
                with contextlib.suppress(UsageError, OSError):
                    await self._open()
                    break

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _send(self, line: dict[str, Any]) -> None:
        process = self._process
        if not self.ready or process is None or process.stdin is None:
            raise Fault("died")
        try:
            process.stdin.write(json.dumps(line).encode() + b"\n")
            await process.stdin.drain()
        except (OSError, RuntimeError) as error:
            self._up.clear()  # until `_keep` has noticed and started it again
            raise Fault("died", str(error)) from error

    @contextlib.asynccontextmanager
    async def _asked(self, line: dict[str, Any]) -> AsyncGenerator[_Told, None]:
        name = str(next(self._numbers))
        told = self._jobs[name] = _Told()
        try:
            await self._send({**line, "id": name})
            yield told
        finally:
            del self._jobs[name]
            if not told.ended and self.ready:
                with contextlib.suppress(Fault, asyncio.CancelledError):
                    await asyncio.shield(self._send({"op": "cancel", "id": name}))

    async def ask(self, job: Job) -> AsyncGenerator[Piece, None]:
        line = {
            "op": "ask",
            "prompt": job.prompt if job.prompt_ids is None else job.prompt_ids,
            "chat": job.chat and job.prompt_ids is None,
            "sent": job.sent,
            "tokens": job.tokens,
            "temperature": job.temperature,
            "top_p": job.top_p,
            "seed": job.seed,
            "top": job.top,
            "doubt": job.doubt,
            "precision": job.precision if self._opened.precisions else None,
        }
        async with self._asked(line) as told:
            while True:
                said = await told.said.get()
                if "prompt" in said:
                    job.prompt_ids = said["prompt"]
                    job.prompt_tokens = len(said["prompt"])
                    continue
                told.ended = "token" not in said
                piece = piece_of(said)
                yield piece
                if told.ended:
                    return

    async def score(self, ids: list[int], start: int, precision: int | None = None) -> Scored | None:
        line = {"op": "score", "ids": ids, "start": start, "precision": precision}
        async with self._asked(line) as told:
            said = await told.said.get()
            told.ended = True
            _must_be_well(said)
            return Scored(said["chosen"], said["logprobs"])

    async def surprise(self, text: str) -> list[tuple[str, float]] | None:
        async with self._asked({"op": "surprise", "text": text}) as told:
            said = await told.said.get()
            told.ended = True
            _must_be_well(said)
            return [(str(piece), float(nats)) for piece, nats in said["pieces"]]


def _must_be_well(said: dict[str, Any]) -> None:
    if "wrong" in said:
        raise AskedWrongly(said["wrong"])
    if "fault" in said:
        raise Fault(said["fault"], said.get("details", ""))


def piece_of(said: dict[str, Any]) -> Piece:
    _must_be_well(said)
    if "unsure" in said:
        raise Unsure
    try:
        if "end" in said:
            return Piece(str(said["text"]), end=str(said["end"]), count=0)
        top = tuple((str(name), float(value)) for name, value in said.get("top", ()))
        return Piece(str(said["text"]), int(said["token"]), said.get("logprob"), top, said.get("name", ""))
    except (KeyError, TypeError, ValueError) as error:
        raise Fault("nonsense", str(error)) from error
