"""What a client may ask, checked before anything is answered. Fields that whet does not know are refused by name."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from whet.serving.jobs import Job
from whet.serving.sides import Limits

# Fields of the API that change answers in a way whet has not; their values that change nothing are let through.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
}


_TOOLS = ("tools", "tool_choice", "parallel_tool_calls", "response_format")


M = TypeVar("M", bound=BaseModel)


class Refused(Exception):
    """The request is refused with this status."""

    def __init__(self, status: int, message: str, code: str = "invalid_request", field: str | None = None) -> None:
        self.status, self.code, self.field = status, code, field
        super().__init__(message)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False


class Common(_Strict):
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None


class Completion(Common):
    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: int | None = Field(None, ge=0, le=5)


class Part(_Strict):
    type: str
    text: str


class Turn(_Strict):
    role: str
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class Chat(Common):
    messages: list[Turn] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)


class Feedback(_Strict):
    id: str = Field(max_length=100)
    rating: Literal["up", "down"]


@dataclass(frozen=True)
class Wanted:
    """A request that can be answered: one job for each choice."""

    chat: bool
    jobs: list[Job]
    stop: list[str]
    stream: bool
    usage: bool
    key: str | None
    model: str | None


def read(body: bytes, chat: bool, limits: Limits, tools: bool = False) -> Wanted:
    """The request in a body. tools: whether the engines have them. Raises Refused."""
    found = _object(body)
    passed = {name: found.pop(name) for name in _TOOLS if tools and chat and found.get(name) is not None}
    for name, values in _NEUTRAL.items():
        given = found.pop(name, None)
        if given is not None and given not in values:
            raise Refused(400, f"{name} is not supported here. Leave it out.", "unsupported", name)
    wanted = _wanted(_checked(Chat if chat else Completion, found), limits)
    for job in wanted.jobs:
        job.tools = passed
        turns: list[Any] = list(job.prompt) if chat else []
        if not tools and any(turn.keys() & {"tool_calls", "tool_call_id"} for turn in turns):
            raise Refused(400, "Calls of tools are not supported here.", "unsupported", "messages")
    return wanted


def user_of(header: str | None, wanted: Wanted) -> str:
    """Whom an answer is for: a header, a field of the request, else the conversation by how it begins: the user's first
    turn, which stays however long it gets."""
    if key := header or wanted.key:
        return f"user {key}"
    prompt = wanted.jobs[0].prompt
    if wanted.chat and isinstance(prompt, list):
        turns: list[Any] = prompt
        return f"talk {next((turn for turn in turns if turn['role'] == 'user'), turns[0])}"
    return secrets.token_hex(8)


def read_feedback(body: bytes) -> Feedback:
    """A user's rating in a body. Raises Refused."""
    return _checked(Feedback, _object(body))


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
        if b"\\ud" in body.lower():  # half of a pair, which JSON may hold and no text may
            json.dumps(found, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"The body is no JSON: {str(error)[:200]}") from error
    if not isinstance(found, dict):
        raise Refused(400, "The body must be a JSON object.")
    return found


def _checked(kind: type[M], found: dict[str, Any]) -> M:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:4])
        raise Refused(400, f"{field}: {first['msg']}.", field=field) from error


def _wanted(asked: Common, limits: Limits) -> Wanted:
    prompts = _prompts(asked)
    n = asked.n or 1
    if n * len(prompts) > limits.choices:
        raise Refused(400, f"At most {limits.choices} answers are given to a request.", field="n")
    if sum(_length(prompt) for prompt in prompts) > limits.prompt:
        raise Refused(400, f"The prompt is longer than {limits.prompt} letters.", "too_long", "prompt")
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    if len(stop) > 8 or any(not 0 < len(word) <= 200 for word in stop):
        raise Refused(400, "stop takes at most 8 words of 1 to 200 letters.", field="stop")
    most: int | None = asked.max_tokens
    top: int | None
    if isinstance(asked, Chat):
        most = asked.max_completion_tokens or most
        top = (asked.top_logprobs or 0) if asked.logprobs else None
    else:
        assert isinstance(asked, Completion)
        most, top = most or 16, asked.logprobs
    seed = secrets.randbits(48) if asked.seed is None else asked.seed
    jobs = [
        Job(
            prompt,
            chat=isinstance(asked, Chat),
            tokens=min(most or limits.tokens, limits.tokens),
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=asked.top_p or 1.0,
            seed=seed + number,
            top=top,
        )
        for prompt in prompts
        for number in range(n)
    ]
    usage = asked.stream_options is not None and asked.stream_options.include_usage
    key = asked.user or asked.safety_identifier or asked.prompt_cache_key
    return Wanted(isinstance(asked, Chat), jobs, stop, asked.stream, usage, key, asked.model)


def _prompts(asked: Common) -> list[Any]:
    if isinstance(asked, Chat):
        return [[_turn(turn) for turn in asked.messages]]
    assert isinstance(asked, Completion)
    prompt = asked.prompt
    several = isinstance(prompt, list) and bool(prompt) and isinstance(prompt[0], str | list)
    prompts: list[Any] = list(prompt) if several else [prompt]
    if not all(prompts):
        raise Refused(400, "The prompt is empty.", field="prompt")
    if any(isinstance(one, list) and not all(0 <= token < 2**31 for token in one) for one in prompts):
        raise Refused(400, "The prompt has numbers that are no tokens.", field="prompt")
    return prompts


def _turn(turn: Turn) -> dict[str, Any]:
    calls = {name: value for name in ("tool_calls", "tool_call_id") if (value := getattr(turn, name)) is not None}
    if turn.content is None:
        if "tool_calls" not in calls:
            raise Refused(400, "messages: a turn has no content.", field="messages")
        text = ""
    elif isinstance(turn.content, str):
        text = turn.content
    elif all(part.type == "text" for part in turn.content):
        text = "".join(part.text for part in turn.content)
    else:
        raise Refused(400, "Only text is understood here.", "unsupported", "messages")
    return {"role": turn.role, "content": text, **calls}


def _length(prompt: Any) -> int:
    return sum(len(turn["content"]) for turn in prompt) if prompt and isinstance(prompt[0], dict) else len(prompt)
