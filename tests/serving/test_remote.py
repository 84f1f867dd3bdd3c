"""Servers behind a URL: the gateway itself is one, so it is put before two others of its kind."""

from __future__ import annotations

import asyncio
import contextlib
import json

import httpx
import pytest

from gateways import Engine, answer_to, gateway, running
from whet.errors import UsageError
from whet.serving.jobs import AskedWrongly, Fault, Job
from whet.serving.remote import UrlEngine
from whet.serving.replicas import Replicas, urls_of
from whet.serving.sides import Limits, Pair, Served, Side

WORDS = [("one ", None), ("two", None), ("", "stop")]


async def opened(*urls: str) -> list[UrlEngine]:
    engines = [UrlEngine(url) for url in urls]
    await asyncio.gather(*(engine.start() for engine in engines))
    return engines


async def text_of(engine: UrlEngine | Replicas, job: Job) -> str:
    text = ""
    async with contextlib.aclosing(engine.ask(job)) as pieces:
        async for piece in pieces:
            text += piece.text
    return text


def test_text_logprobs_and_usage_come_through() -> None:
    async def run(url: str) -> None:
        (engine,) = await opened(url + "/v1")
        assert engine.model == "model"
        whole = answer_to("Once", 3).decode()
        assert await text_of(engine, Job("Once", tokens=1000, seed=3)) == whole
        turns = [{"role": "user", "content": "Once"}]
        job = Job(turns, chat=True, tokens=5, top=1)
        pieces = [piece async for piece in engine.ask(job)]
        assert pieces[0].logprob == -0.5 and pieces[0].top == (("a", -1.0),) and pieces[-1].end == "length"
        with pytest.raises(AskedWrongly, match="too long"):
            await text_of(engine, Job("too long"))
        await engine.stop()

    with running(gateway(Engine(), Engine())) as url:
        asyncio.run(run(url))


def test_a_stream_that_breaks_off_is_gone_on_with_by_its_text() -> None:
    """The one who goes on is asked for what comes after the text that was sent."""
    asked: list[dict] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("models"):
            return httpx.Response(200, json={"data": [{"id": "m"}]})
        body = json.loads(request.content)
        asked.append(body)
        begun = request.url.host == "lighter"
        words = ["one ", "two "] if begun else ["three", ""]
        key = "delta" if "messages" in body else "text"
        events = []
        for number, word in enumerate(words):
            said = {"content": word} if key == "delta" else word
            end = "stop" if not begun and number else None
            events.append({"choices": [{"index": 0, key: said, "finish_reason": end}]})
        rest = b"data: {broken" if begun else b"data: [DONE]\n\n"
        return httpx.Response(200, content=b"".join(b"data: %s\n\n" % json.dumps(e).encode() for e in events) + rest)

    async def run(job: Job) -> Served:
        sides = []
        for name in ("original", "lighter"):
            engine = UrlEngine(f"http://{name}", transport=httpx.MockTransport(answer))
            await engine.start()
            sides.append(Side(name, engine, 2, 8))
        served = Served(job)
        async for _ in Pair(*sides, Limits()).answer(served, lighter=True):
            pass
        for side in sides:
            await side.engine.stop()
        return served

    served = asyncio.run(run(Job("zero ", tokens=50)))
    assert served.job.text == "one two three" and [share.side for share in served.shares] == ["lighter", "original"]
    assert asked[-1]["prompt"] == "zero one two "
    served = asyncio.run(run(Job([{"role": "user", "content": "zero"}], chat=True, tokens=50)))
    assert served.job.text == "one two three"
    assert asked[-1]["messages"][-1] == {"role": "assistant", "content": "one two "}
    assert asked[-1]["continue_final_message"] and not asked[-1]["add_generation_prompt"]


BAD = [
    (httpx.Response(200, content=b"data: {\n\n"), "nonsense"),
    (httpx.Response(200, content=b'data: {"choices": [{"text": 5}]}\n\n'), "nonsense"),
    (httpx.Response(200, content=b'data: {"choices": []}\n\ndata: [DONE]\n\n'), "died"),
    (httpx.Response(500), "refused"),
    (httpx.Response(302, headers={"location": "http://169.254.169.254/"}), "refused"),
]


def test_servers_that_talk_nonsense_are_faults_and_redirects_are_not_followed() -> None:
    async def run() -> None:
        for response, why in BAD:
            found = UrlEngine("http://lighter", transport=httpx.MockTransport(lambda _, said=response: said))
            found.model = "m"
            with pytest.raises(Fault) as fault:
                await text_of(found, Job("x"))
            assert fault.value.why == why
            await found.stop()
        with pytest.raises(UsageError, match="OpenAI-compatible"):
            await UrlEngine("http://lighter", transport=httpx.MockTransport(lambda _: httpx.Response(404))).start()

    asyncio.run(run())


def test_two_urls_are_compared_by_their_words() -> None:
    async def run(first: str, second: str) -> float:
        from gateways import RULES, bench
        from whet.serving.metrics import Metrics
        from whet.serving.pairs import Pairs
        from whet.serving.quality import Quality
        from whet.serving.rollout import Controller

        original, lighter = await opened(first, second)
        controller = Controller(RULES, bench.Memory(), "pair", "salt", lambda: 0.0, lambda: 0.0, lambda: 0.0)
        pair = Pair(Side("original", original, 2, 8), Side("lighter", lighter, 2, 8), Limits())
        quality = Quality(pair, controller, Metrics(), Pairs(0, lambda: 0.0))
        quality.start()
        quality.offer(Job("Once", tokens=1000, seed=1, text="something"), lighter=False)
        await quality.idle()
        await quality.stop()
        await asyncio.gather(original.stop(), lighter.stop())
        return controller.mean[1]

    with running(gateway(Engine(), Engine())) as first, running(gateway(Engine(), Engine())) as second:
        assert asyncio.run(run(first, second)) == 1.0


def test_replicas_share_the_work_and_stand_in_for_each_other() -> None:
    asked: list[str] = []
    broken: dict[str, int] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if request.url.path.endswith("models"):
            return httpx.Response(200, json={"data": [{"id": "other" if host == "alien" else "m"}]})
        asked.append(host)
        if host in broken:
            return httpx.Response(broken[host])
        events = [{"choices": [{"index": 0, "text": text, "finish_reason": end}]} for text, end in WORDS]
        return httpx.Response(200, content=b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events))

    def of(*hosts: str) -> Replicas:
        transport = httpx.MockTransport(answer)
        return Replicas([UrlEngine(f"http://{host}", transport=transport) for host in hosts], lambda: now[0])

    async def run() -> None:
        both = of("a", "b")
        await both.start()
        first, second = both.ask(Job("x")), both.ask(Job("x"))
        await anext(first)
        await anext(second)
        assert asked == ["a", "b"] and both.open == [1, 1]
        await first.aclose()
        assert both.open == [0, 1]
        await text_of(both, Job("x"))
        assert asked[-1] == "a"
        await second.aclose()
        broken["a"] = 500
        assert await text_of(both, Job("x")) == "one two" and asked[-2:] == ["a", "b"]
        assert await text_of(both, Job("x")) == "one two" and asked[-2:] == ["b", "b"]  # a is left alone
        broken["b"] = 400  # asked wrongly: no fault of its
        with pytest.raises(AskedWrongly):
            await text_of(both, Job("x"))
        broken["b"] = 503
        with pytest.raises(Fault):
            await text_of(both, Job("x"))
        assert asked[-2:] == ["b", "a"] and both.open == [0, 0]
        broken.clear()
        now[0] = 10.0
        await text_of(both, Job("x"))
        assert asked[-1] == "a"
        both.engines[0]._up.clear()
        await text_of(both, Job("x"))
        assert asked[-1] == "b" and both.ready
        both.engines[1]._up.clear()
        assert not both.ready and not await both.wait(0.01)
        with pytest.raises(Fault):
            await text_of(both, Job("x"))
        await both.stop()
        strangers = of("a", "alien")
        with pytest.raises(UsageError, match="same model"):
            await strangers.start()
        await strangers.stop()

    now = [0.0]
    asyncio.run(run())
    assert urls_of("http://a:1/v1,https://b") == ["http://a:1/v1", "https://b"] and urls_of("http://a/x,y") == [
        "http://a/x,y"
    ]


CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def events_of(*deltas: tuple[dict, str | None]) -> bytes:
    events = [{"choices": [{"index": 0, "delta": delta, "finish_reason": end}]} for delta, end in deltas]
    return b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in events)


def test_tools_are_passed_on_and_calls_come_whole_whoever_makes_them() -> None:
    """The lighter side breaks off in the middle of a call, and the original begins it anew."""
    asked: list[dict] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("models"):
            return httpx.Response(200, json={"data": [{"id": "m"}]})
        asked.append(json.loads(request.content))
        first = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": '{"a"'}}
        made = events_of(({"role": "assistant", "content": None, "tool_calls": [first]}, None))
        if request.url.host == "original":
            rest = {"index": 0, "function": {"arguments": ": 1}"}}
            made += events_of(({"tool_calls": [rest]}, None), ({}, "tool_calls")) + b"data: [DONE]\n\n"
        return httpx.Response(200, content=made)

    made = gateway(Engine(), Engine(), stage=5)
    for side in made.pair.sides:
        side.engine = UrlEngine(f"http://{side.name}", transport=httpx.MockTransport(answer))
        side.engine.model = "m"
        side.engine._up.set()
    tools = [{"type": "function", "function": {"name": "add", "parameters": {}}}]
    turns = [
        {"role": "user", "content": "add"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "2", "tool_call_id": "call_1"},
    ]
    body = {"messages": turns, "tools": tools, "tool_choice": "auto"}

    async def run() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(made.app())
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            whole = await client.post("/v1/chat/completions", json=body)
            return whole, await client.post("/v1/chat/completions", json=body | {"stream": True})

    whole, stream = asyncio.run(run())
    (choice,) = whole.json()["choices"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["tool_calls"] == [CALL]
    assert choice["message"]["content"] is None
    found = [json.loads(line[6:]) for line in stream.text.splitlines() if line.startswith("data: {")]
    calls = [c["delta"]["tool_calls"] for one in found for c in one["choices"] if "tool_calls" in c["delta"]]
    assert calls == [[{"index": 0, **CALL}]]
    turns[1]["content"] = ""
    assert all(one["tools"] == tools and one["messages"] == turns for one in asked)


def test_tools_are_refused_where_a_model_here_has_none() -> None:
    with running(gateway(Engine(), Engine())) as url:
        for more in ({"tools": [{}]}, {"messages": [{"role": "assistant", "tool_calls": [CALL]}]}):
            body = {"messages": [{"role": "user", "content": "x"}], **more}
            assert httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False).status_code == 400
