"""Answers on their way to a client that may go away at any time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

T = TypeVar("T")
_AHEAD = 64  # parts that may wait for the client


async def merged(streams: Sequence[AsyncGenerator[bytes, None]]) -> AsyncGenerator[bytes, None]:
    """The parts of all streams as they come. The first error of any ends all; closing this closes them."""
    if len(streams) == 1:
        async with contextlib.aclosing(streams[0]) as parts:
            async for part in parts:
                yield part
        return
    came: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue(_AHEAD)

    async def carry(stream: AsyncGenerator[bytes, None]) -> None:
        try:
            async with contextlib.aclosing(stream) as parts:
                async for part in parts:
                    await came.put(part)
            await came.put(None)
        except Exception as error:
            await came.put(error)

    tasks = [asyncio.create_task(carry(stream)) for stream in streams]
    try:
        left = len(tasks)
        while left:
            said = await came.get()
            if isinstance(said, BaseException):
                raise said
            if said is None:
                left -= 1
            else:
                yield said
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def all_of(parts: AsyncGenerator[bytes, None]) -> None:
    """Wait for all parts, where nobody reads them one by one."""
    async with contextlib.aclosing(parts):
        async for _ in parts:
            pass


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """What `work` gives, unless the client goes away first: then it is cancelled, and ClientDisconnect raised."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events; a comment where nothing has come for `ping` seconds, so that nobody in between hangs up.

    parts: closed however the response ends, the client gone included.
    """

    def __init__(self, parts: AsyncGenerator[bytes, None], headers: Mapping[str, str], ping: float) -> None:
        super().__init__(headers=headers, media_type="text/event-stream")
        del self.headers["content-length"]
        self.parts, self.ping = parts, ping

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        writing = asyncio.ensure_future(self._write(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait((writing, gone), return_when=asyncio.FIRST_COMPLETED)
            if writing.done():
                with contextlib.suppress(OSError):  # the client is gone
                    writing.result()
        finally:
            for one in (writing, gone):
                one.cancel()
            await asyncio.gather(writing, gone, return_exceptions=True)

    async def _write(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with contextlib.aclosing(self.parts) as parts:
            waiting = asyncio.ensure_future(anext(parts, None))
            try:
                while True:
                    done, _ = await asyncio.wait((waiting,), timeout=self.ping)
                    part = waiting.result() if done else b": waiting\n\n"
                    if part is None:
                        break
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                    if done:
                        waiting = asyncio.ensure_future(anext(parts, None))
            finally:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
