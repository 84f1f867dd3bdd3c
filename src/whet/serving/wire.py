"""Answers in the words of the OpenAI API, whole and as events."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from whet.serving.jobs import Piece
from whet.serving.sides import Served

DONE = b"data: [DONE]\n\n"


def event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def error(message: str, code: str, field: str | None = None) -> dict[str, Any]:
    kind = "server_error" if code in ("unavailable", "busy", "internal") else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}


@dataclass
class Choice:
    """One answer as the client gets it. owner: of the key that asked, None where no keys are needed."""

    index: int
    served: Served
    owner: str | None = None
    text: list[str] = field(default_factory=list)
    tokens: list[dict[str, Any]] = field(default_factory=list)
    offset: int = 0
    end: str | None = None
    calls: tuple[dict[str, Any], ...] = ()  # of tools


@dataclass(frozen=True)
class Wire:
    """The frame that all parts of one response share."""

    chat: bool
    model: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def name(self) -> str:
        return ("chatcmpl-" if self.chat else "cmpl-") + self.id

    def _frame(self, kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        frame = {"id": self.name, "object": kind, "created": self.created, "model": self.model, "choices": choices}
        return frame | more

    def first(self, choice: Choice) -> bytes | None:
        """The event before the first word of a chat's answer."""
        if not self.chat:
            return None
        delta = {"index": choice.index, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}
        return event(self._frame("chat.completion.chunk", [delta]))

    def chunk(self, choice: Choice, text: str, told: list[dict[str, Any]], end: str | None) -> bytes:
        """A part of an answer; with `end` the last one, which says who served which tokens."""
        more = {"whet": {"served_by": choice.served.by}} if end else {}
        logprobs = self._logprobs(told) if told else None
        made: dict[str, Any] = {"index": choice.index, "logprobs": logprobs, "finish_reason": end}
        if self.chat:
            made["delta"] = {"content": text} if text or not end else {}
            if end and choice.calls:
                made["delta"] |= {"tool_calls": choice.calls}
            return event(self._frame("chat.completion.chunk", [made], **more))
        made["text"] = text
        return event(self._frame("text_completion", [made], **more))

    def usage_event(self, choices: list[Choice]) -> bytes:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return event(self._frame(kind, [], usage=usage(choices)))

    def whole(self, choices: list[Choice]) -> dict[str, Any]:
        made = []
        for choice in choices:
            text = "".join(choice.text)
            logprobs = self._logprobs(choice.tokens) if choice.served.job.top is not None else None
            entry: dict[str, Any] = {"index": choice.index, "logprobs": logprobs, "finish_reason": choice.end}
            entry |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
            if choice.calls:
                calls = [{name: value for name, value in call.items() if name != "index"} for call in choice.calls]
                entry["message"] |= {"tool_calls": calls, "content": text or None}
            made.append(entry)
        kind = "chat.completion" if self.chat else "text_completion"
        by = [{"index": choice.index, "parts": choice.served.by} for choice in choices]
        return self._frame(kind, made, usage=usage(choices), whet={"served_by": by})

    def token(self, choice: Choice, piece: Piece) -> dict[str, Any]:
        """A token's log-probabilities, as `_logprobs` takes them."""
        at = choice.offset
        choice.offset += len(piece.name)
        return {"token": piece.name, "logprob": piece.logprob, "top": piece.top, "offset": at}

    def _logprobs(self, told: list[dict[str, Any]]) -> dict[str, Any]:
        if self.chat:
            return {
                "content": [
                    {**_token(one["token"], one["logprob"]), "top_logprobs": [_token(*t) for t in one["top"]]}
                    for one in told
                ]
            }
        return {
            "tokens": [one["token"] for one in told],
            "token_logprobs": [one["logprob"] for one in told],
            "top_logprobs": [dict(one["top"]) for one in told],
            "text_offset": [one["offset"] for one in told],
        }


def _token(name: str, logprob: float | None) -> dict[str, Any]:
    return {"token": name, "logprob": logprob, "bytes": list(name.encode())}


def usage(choices: list[Choice]) -> dict[str, int]:
    """Tokens of the request. A prompt that several answers share counts once."""
    if len(choices) == 1:
        prompt = choices[0].served.job.prompt_tokens
    else:
        prompts = {json.dumps(choice.served.job.prompt): choice.served.job.prompt_tokens for choice in choices}
        prompt = sum(prompts.values())
    written = sum(choice.served.count for choice in choices)
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def precisions(choices: list[Choice]) -> dict[str, str]:
    """The header that says with how many bits the lighter model answered; none where it did not, or has one precision
    alone."""
    told = [s.precision for choice in choices for s in choice.served.shares if s.precision is not None]
    return {"x-whet-precision": ", ".join(map(str, dict.fromkeys(told)))} if told else {}


def served_by(choices: list[Choice]) -> str:
    """`lighter@0..12, original@12..40`, of each choice, for a header."""
    told = (", ".join(f"{s.side}@{s.start}..{s.end}" for s in choice.served.shares) for choice in choices)
    return "; ".join(told)
