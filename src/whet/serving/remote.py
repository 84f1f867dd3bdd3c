"""A model behind any OpenAI-compatible URL: vLLM, llama-server, SGLang, Ollama.

Notable: such servers tell text and no token ids. An answer is gone on with by sending its text back as the beginning
of the assistant's turn (`continue_final_message`, which vLLM, SGLang and llama-server know) or of the completion.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx

from whet.errors import UsageError
from whet.serving.jobs import AskedWrongly, Fault, Job, Piece, Scored

_EVERY = 5.0  # seconds between looks at its health
_ASK = httpx.Timeout(10.0, read=None)  # what an answer may take is the gateway's to say


class UrlEngine:
    """Implements `jobs.Engine`. url: with or without `/v1`; key: sent as a bearer token."""

    tools = True  # what it has of them is the server's to say

    def __init__(self, url: str, key: str | None = None, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self.name = url
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        base = url.rstrip("/").removesuffix("/v1") + "/v1/"
        # no proxy from the environment, and no other place than the one that was named
        self._http = httpx.AsyncClient(
            base_url=base, headers=headers, timeout=_ASK, trust_env=False, follow_redirects=False, transport=transport
        )
        self._up = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self.model = ""
        self.context: int | None = None

    @property
    def ready(self) -> bool:
        return self._up.is_set()

    async def start(self) -> None:
        try:
            self.model = await self._named()
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
            raise UsageError(
                "{url} does not answer as an OpenAI-compatible server does ({error}). Start it first, or mend the URL.",
                url=self.name,
                error=str(error) or type(error).__name__,
            ) from error
        self._up.set()
        self._keeper = asyncio.create_task(self._keep())

    async def _named(self) -> str:
        answer = await self._http.get("models", timeout=5.0)
        answer.raise_for_status()
        return str(answer.json()["data"][0]["id"])

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self._named()
                self._up.set()
            except (httpx.HTTPError, ValueError, LookupError, TypeError):
                self._up.clear()

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._http.aclose()

    async def wait(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), seconds)
        return self.ready

    def give_up(self, seconds: float) -> None:
        """It is not ours to end."""

    def _asked(self, job: Job) -> tuple[str, dict[str, Any]]:
        left = None if job.tokens is None else max(1, job.tokens - len(job.sent))
        body: dict[str, Any] = {
            "model": self.model,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": job.temperature,
            "top_p": job.top_p,
            "seed": job.seed,
        }
        if left is not None:
            body["max_tokens"] = left
        if job.chat and isinstance(job.prompt, list):
            turns: list[Any] = list(job.prompt)
            if job.text:
                turns.append({"role": "assistant", "content": job.text})
                body |= {"continue_final_message": True, "add_generation_prompt": False}
            body |= {"messages": turns, **job.tools}
            if job.top is not None:
                body |= {"logprobs": True, "top_logprobs": job.top}
            return "chat/completions", body
        body["prompt"] = job.prompt + job.text if isinstance(job.prompt, str) else job.prompt
        if job.top is not None:
            body["logprobs"] = job.top
        return "completions", body

    async def ask(self, job: Job) -> AsyncGenerator[Piece, None]:
        if job.text and not isinstance(job.prompt, str) and not job.chat:
            raise Fault("refused", "a prompt of token ids cannot be gone on with by text")
        path, body = self._asked(job)
        ended, calls = False, Calls()
        try:
            async with self._http.stream("POST", path, json=body) as answer:
                if answer.status_code in (400, 404, 413, 422):
                    raise AskedWrongly((await answer.aread())[:500].decode(errors="replace"))
                if answer.status_code != 200:
                    raise Fault("refused", f"status {answer.status_code}")
                async for line in answer.aiter_lines():
                    if not line.startswith("data:"):
                        continue
                    data = line[5:].strip()
                    if data == "[DONE]":
                        break
                    found = json.loads(data)
                    if found.get("usage"):
                        job.prompt_tokens = int(found["usage"]["prompt_tokens"])
                    for choice in found["choices"]:
                        calls.add(choice)
                        piece = _piece(choice, calls)
                        if piece.text or piece.end:
                            ended = ended or piece.end is not None
                            yield piece
        except httpx.HTTPError as error:
            raise Fault("died", str(error) or type(error).__name__) from error
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise Fault("nonsense", str(error)) from error
        if not ended:
            raise Fault("died", "the stream ended before the answer")

    async def score(self, ids: list[int], start: int, precision: int | None = None) -> Scored | None:
        return None

    async def surprise(self, text: str) -> list[tuple[str, float]] | None:
        return None


class Calls:
    """Calls of tools, gathered until the answer ends: so one that breaks off can be begun anew by somebody else."""

    def __init__(self) -> None:
        self.made: dict[int, dict[str, Any]] = {}

    def add(self, choice: dict[str, Any]) -> None:
        """The parts in one event. Raises TypeError, ValueError or LookupError for what is none."""
        for part in choice.get("delta", {}).get("tool_calls") or ():
            call = self.made.setdefault(
                int(part.get("index", len(self.made))), {"type": "function", "function": {"name": "", "arguments": ""}}
            )
            if part.get("id"):
                call["id"] = str(part["id"])
            for name in ("name", "arguments"):
                call["function"][name] += (part.get("function") or {}).get(name) or ""

    def whole(self) -> tuple[dict[str, Any], ...]:
        return tuple({"index": number, **call} for number, call in sorted(self.made.items()))


def _piece(choice: dict[str, Any], calls: Calls) -> Piece:
    text = choice["delta"].get("content") if "delta" in choice else choice["text"]
    if not isinstance(text, str | None):
        raise TypeError("the text of a choice is no text")
    end = choice.get("finish_reason")
    name, logprob = "", None
    top: tuple[tuple[str, float], ...] = ()
    if (told := choice.get("logprobs")) and told.get("content"):
        first = told["content"][0]
        name, logprob = str(first["token"]), float(first["logprob"])
        top = tuple((str(one["token"]), float(one["logprob"])) for one in first.get("top_logprobs", ()))
    made = calls.whole() if end else ()
    return Piece(text or "", None, logprob, top, name, str(end) if end else None, 1 if text else 0, made)
