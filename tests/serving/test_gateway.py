"""Laws of the gateway: the OpenAI API as its own client knows it, answers that nobody breaks, and nobody in unasked."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest

from gateways import ADMIN, Engine, answer_to, gateway, running
from whet.serving.gateway import Gateway

PROMPT = "Once upon a time"
WHOLE = answer_to(PROMPT, 0).decode()
HEAD = (
    b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
)
Start = Callable[..., tuple[httpx.Client, Gateway]]


@pytest.fixture
def start() -> Iterator[Start]:
    opened = []

    def begin(original: Engine | None = None, lighter: Engine | None = None, **how) -> tuple[httpx.Client, Gateway]:
        made = gateway(original or Engine(), lighter or Engine(), **how)
        context = running(made)
        client = httpx.Client(base_url=context.__enter__(), trust_env=False, timeout=20)
        opened.append((context, client))
        return client, made

    yield begin
    for context, client in opened:
        client.close()
        context.__exit__(None, None, None)


def asked(client: httpx.Client, path: str = "/v1/completions", **fields) -> httpx.Response:
    body = {"prompt": PROMPT, "max_tokens": 1000, "seed": 0, **fields}
    return client.post(path, json={name: value for name, value in body.items() if value is not None})


def events(answer: httpx.Response) -> list[dict]:
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]" and answer.text.count("[DONE]") == 1
    return [json.loads(line) for line in lines[:-1]]


def streamed(answer: httpx.Response) -> tuple[str, list[dict]]:
    found = events(answer)
    choices = [choice for event in found for choice in event["choices"]]
    assert [choice["finish_reason"] for choice in choices].count(None) == len(choices) - 1
    return "".join(choice["text"] for choice in choices), found


def settled(made: Gateway, side: str = "lighter") -> dict:
    """What the roll-out has heard, once the server is done with it."""
    for _ in range(100):
        if made.controller.whole.errors.seen.lighter + made.controller.whole.errors.open.lighter:
            break
        time.sleep(0.01)
    return made.controller.report()["requests"][side]


# -- the API ----------------------------------------------------------------------------------------------------------


def test_the_official_client_understands_everything(start: Start) -> None:
    client, _ = start(stage=5)
    ai = openai.OpenAI(api_key="-", base_url=f"{client.base_url}/v1", max_retries=0)
    assert [model.id for model in ai.models.list()] == ["model"]
    made = ai.completions.create(model="model", prompt=PROMPT, max_tokens=1000, seed=0, logprobs=2)
    assert made.choices[0].text == WHOLE and made.choices[0].finish_reason == "stop"
    assert made.usage.prompt_tokens == len(PROMPT) and made.usage.completion_tokens == len(WHOLE.encode())
    assert len(made.choices[0].logprobs.tokens) == len(WHOLE.encode())
    turns = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    whole = ai.chat.completions.create(model="model", messages=turns, seed=1, n=2, logprobs=True, top_logprobs=1)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.choices[0].logprobs.content[0].top_logprobs[0].token == "a"
    options = {"stream": True, "stream_options": {"include_usage": True}}
    parts = list(ai.chat.completions.create(model="model", messages=turns, seed=1, n=2, **options))
    said = ["", ""]
    for part in parts:
        for choice in part.choices:
            said[choice.index] += choice.delta.content or ""
    assert said == [choice.message.content for choice in whole.choices]
    assert parts[-1].usage == whole.usage and parts[0].choices[0].delta.role == "assistant"
    with pytest.raises(openai.NotFoundError):
        ai.completions.create(model="gpt-4", prompt="x")
    with pytest.raises(openai.BadRequestError, match="too long"):
        ai.completions.create(model="model", prompt="too long", stream=True)


def test_length_and_stop_end_an_answer_and_are_counted(start: Start) -> None:
    client, _ = start()
    short = asked(client, max_tokens=4).json()
    assert short["choices"][0]["finish_reason"] == "length" and short["usage"]["completion_tokens"] == 4
    for stream in (False, True):
        answer = asked(client, stop=["나다", "END"], stream=stream)
        text = streamed(answer)[0] if stream else answer.json()["choices"][0]["text"]
        assert text == min(WHOLE.split("나다")[0], WHOLE.split("END")[0], key=len)


WRONG = [
    ({"prompt": ""}, 400, "prompt"),
    ({"n": 5}, 400, "n"),
    ({"temperature": -1}, 400, "temperature"),
    ({"top_p": 0}, 400, "top_p"),
    ({"stop": [""]}, 400, "stop"),
    ({"logit_bias": {"1": 5}}, 400, "logit_bias"),
    ({"tools": [{}]}, 400, "tools"),
    ({"max_tokns": 5}, 400, "max_tokns"),
    ({"seed": 1 << 80}, 400, "seed"),
    ({"prompt": [-1]}, 400, "prompt"),
    ({"prompt": "x" * 300_000}, 400, "prompt"),
]


def test_what_is_wrong_is_refused_by_name(start: Start) -> None:
    client, made = start()
    for fields, status, named in WRONG:
        answer = asked(client, **fields)
        assert answer.status_code == status and answer.json()["error"]["param"].startswith(named), fields
    post = client.post
    bodies = [(b"{", 400), (b"[]", 400), (b"\xff", 400), (b"[" * 100_000, 400), (b"x" * (2 << 20), 413)]
    for body, status in bodies:
        answer = post("/v1/completions", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == status, body[:10]
    assert post("/v1/completions", content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert made.pair.original.engine.begun == 0 and "500" not in client.get("/metrics").text.split("refused")[1][:50]


# -- going over -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["died", "hung", "not finite", "nonsense"])
def test_an_answer_that_breaks_off_is_gone_on_with_token_by_token(start: Start, why: str) -> None:
    """At every token: before the first, within a letter of three bytes, within a stop word, at the last."""
    count = len(WHOLE.encode())
    places = range(0, count, 17) if why == "died" else (0, 5) if why != "hung" else (5,)
    for at in places:
        lighter = Engine(fail=(at, why))
        client, made = start(lighter=lighter, stage=5, between_tokens=0.2)
        for stream in (True, False):
            answer = asked(client, stream=stream)
            assert answer.status_code == 200
            if stream:
                text, found = streamed(answer)
                by = found[-1]["whet"]["served_by"]
            else:
                text, by = answer.json()["choices"][0]["text"], answer.json()["whet"]["served_by"][0]["parts"]
                assert answer.json()["usage"]["completion_tokens"] == count
            assert text == WHOLE
            begun = [{"model": "lighter", "from": 0, "to": at}] if at else []
            assert by == [*begun, {"model": "original", "from": at, "to": count}]
        assert settled(made)["errors"] == 2
        assert lighter.given_up == (2 if why == "hung" else 0)


def test_a_stop_word_may_lie_across_the_switch(start: Start) -> None:
    word = WHOLE[4:9]
    for at in range(len(WHOLE[:4].encode()), len(WHOLE[:9].encode()) + 1):
        client, _ = start(lighter=Engine(fail=(at, "died")), stage=5)
        assert streamed(asked(client, stream=True, stop=word))[0] == WHOLE[: WHOLE.index(word)]


def test_an_original_that_fails_is_tried_again_and_then_said_to_be_gone(start: Start) -> None:
    client, made = start(Engine(fail=(3, "died")), Engine(fail=(3, "died")), stage=5)
    answer = asked(client)
    assert answer.status_code == 503 and answer.headers["retry-after"] and made.pair.original.engine.begun == 3
    made.pair.original.engine.ready = False
    assert asked(client, prompt="x").status_code == 503
    assert client.get("/ready").status_code == 503 and client.get("/health").status_code == 200
    made.pair.original.engine.ready = True
    stream = asked(client, stream=True)
    assert stream.status_code == 200 and "[DONE]" not in stream.text and "could not be ended" in stream.text


def test_a_lighter_side_that_is_down_is_not_asked_and_stops_the_rollout(start: Start) -> None:
    client, made = start(stage=5)
    made.pair.lighter.engine.ready = False
    for _ in range(6):
        assert asked(client).json()["choices"][0]["text"] == WHOLE
    assert made.controller.weight == 0 and made.controller.state.status == "failed"
    assert asked(client).headers["x-whet-served-by"].startswith("original")


# -- limits -----------------------------------------------------------------------------------------------------------


def test_more_than_the_queue_holds_is_told_to_come_again(start: Start) -> None:
    client, _ = start(Engine(pause=0.01), slots=1, waiting=2)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: asked(client, max_tokens=20), range(12)))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 6 <= len(refused) < 12 and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert {answer.status_code for answer in answers} == {200, 429}


def test_a_key_that_asks_too_much_is_told_when_to_come_again(start: Start) -> None:
    client, made = start(keys={"ann": "key of ann", "bob": "key of bob"}, requests_per_minute=5, tokens_per_minute=100)
    now = [0.0]
    made.rates.clock = lambda: now[0]

    def ask(name: str) -> httpx.Response:
        body = {"prompt": "abcd", "max_tokens": 16}
        return client.post("/v1/completions", json=body, headers={"authorization": f"Bearer key of {name}"})

    def spent(count: int) -> None:
        for _ in range(100):
            if made.rates._of("ann")[1].left <= 100 - 20 * count:
                return
            time.sleep(0.01)

    for number in range(5):
        assert ask("ann").status_code == 200
        spent(number + 1)
    refused = ask("ann")
    assert refused.status_code == 429 and refused.headers["retry-after"] == "12" and "requests" in refused.text
    assert ask("bob").status_code == 200
    now[0] = 12.0
    assert ask("ann").status_code == 200
    now[0] = 24.0
    made.rates.spend("ann", 200)
    refused = ask("ann")
    assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 60 and "tokens" in refused.text
    now[0] += int(refused.headers["retry-after"])
    assert ask("ann").status_code == 200
    now[0] = 1e6
    assert [bucket.left for bucket in made.rates._of("ann")] == [5, 100]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_frees_its_place(start: Start, stream: bool) -> None:
    original = Engine(pause=0.02)
    client, made = start(original)
    host, port = client.base_url.host, client.base_url.port
    body = json.dumps({"prompt": PROMPT, "max_tokens": 1000, "stream": stream}).encode()
    head = HEAD % len(body)
    with socket.create_connection((host, port)) as wire:
        wire.sendall(head + body)
        while not original.begun:
            time.sleep(0.01)
        time.sleep(0.1)
    for _ in range(100):
        if original.cancelled:
            break
        time.sleep(0.01)
    assert original.cancelled == 1 and made.pair.original.busy == 0


def test_who_is_slow_with_a_header_or_a_body_is_hung_up_on(start: Start) -> None:
    client, _ = start(header=0.3)
    for sent in (b"GET /health HT", HEAD % 9 + b"{"):
        with socket.create_connection((client.base_url.host, client.base_url.port)) as wire:
            wire.sendall(sent)
            wire.settimeout(5)
            assert wire.recv(1000).startswith((b"HTTP/1.1 408",) if b"POST" in sent else (b"",))


# -- who may ask ------------------------------------------------------------------------------------------------------

ROUTES = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/models",
    "/metrics",
    "/feedback",
    "/admin/rollout",
    "/docs",
    "/",
]


def test_nothing_but_health_is_open_where_there_are_keys(start: Start) -> None:
    client, _ = start(keys={"ann": "key of ann", "bob": "key of bob"})
    for key in (None, "wrong", "key of ann "[:-2]):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        for route in [*ROUTES, "/admin/rollout/promote", "//v1/models", "/v1/../admin/rollout", "/health/x"]:
            for method in ("GET", "POST"):
                assert client.request(method, route, headers=headers).status_code == 401, route
    assert client.get("/health").status_code == client.get("/ready").status_code == 200
    user = {"authorization": "Bearer key of bob"}
    assert client.get("/v1/models", headers=user).status_code == 200
    assert client.get("/admin/rollout", headers=user).status_code == 401
    assert client.get("/docs", headers=user).status_code == 404
    admin = {"authorization": f"Bearer {ADMIN}"}
    assert client.get("/admin/rollout", headers=admin).json()["weight"] == 0
    assert client.get("/metrics", headers=admin).status_code == 200
    assert client.get("/v1/models", headers=admin).status_code == 401


def test_without_keys_no_other_name_of_this_machine_is_answered(start: Start) -> None:
    client, _ = start()
    assert client.get("/v1/models", headers={"host": "evil.example:80"}).status_code == 403
    assert client.get("/v1/models", headers={"host": "localhost:1"}).status_code == 200
    assert client.get("/admin/rollout").status_code == 401


# -- the roll-out, live -----------------------------------------------------------------------------------------------


def act(client: httpx.Client, action: str) -> httpx.Response:
    return client.post(f"/admin/rollout/{action}", headers={"authorization": f"Bearer {ADMIN}"})


def test_requests_answered_by_both_carry_a_good_model_up_and_stop_a_bad_one(start: Start) -> None:
    for agrees, stage in ((1.0, 1), (0.5, 0)):
        client, made = start(lighter=Engine(agrees=agrees))
        for number in range(120):
            asked(client, user=f"user {number}", max_tokens=40)
        for _ in range(300):
            if made.controller.state.stage or made.controller.state.status == "failed":
                break
            time.sleep(0.02)
        assert made.controller.state.stage == stage
        assert made.controller.state.status == ("running" if stage else "failed")


def test_people_steer_and_users_rate(start: Start) -> None:
    client, made = start()
    assert act(client, "promote").json()["weight"] == 5
    assert act(client, "hold").json()["status"] == "held"
    assert act(client, "abort").json()["weight"] == 0
    refused = act(client, "promote")
    assert refused.status_code == 409 and "resume" in refused.json()["refused"]["message"]
    assert act(client, "fly").status_code == 409
    name = asked(client).json()["id"]
    assert client.post("/feedback", json={"id": name, "rating": "down"}).status_code == 200
    assert client.post("/feedback", json={"id": name, "rating": "down"}).status_code == 404
    assert client.post("/feedback", json={"id": name, "rating": "meh"}).status_code == 400
    assert made.controller.whole.feedback.open.original_bad == 1


def test_an_unsure_answer_goes_over_and_counts_as_no_error(start) -> None:
    lighter = Engine()
    lighter.unsure_at = 9
    promise = {"doubt": 0.2, "escalated": 0.1, "harmful": 1, "questions": 900, "limit": 0.009, "alone": 20}
    client, made = start(lighter=lighter, stage=5, escalation={**promise, "share": 0.01})
    made.pair.doubt = 0.2
    text, found = streamed(asked(client, stream=True))
    assert text == WHOLE
    parts = [part["model"] for part in found[-1]["whet"]["served_by"]]
    assert parts == ["lighter", "original"] and found[-1]["whet"]["served_by"][0]["to"] == 9
    assert asked(client, n=2).json()["choices"][0]["text"] == WHOLE
    metrics = client.get("/metrics").text
    assert "whet_escalations_total 3" in metrics and "whet_failovers_total 1" not in metrics
    assert "whet_escalation_limit 0.009" in metrics and 'outcome="ok",side="lighter"} 3' in metrics
    report = client.get("/admin/rollout", headers={"Authorization": f"Bearer {ADMIN}"}).json()
    assert report["escalation"]["began"] == report["escalation"]["gave_up"] == 3
    assert report["requests"]["lighter"]["errors"] == 0 and lighter.doubt == 0.2
    assert made.pair.original.engine.doubt is None


def test_the_description_names_every_route_and_what_it_takes(start: Start) -> None:
    client, made = start()
    told = client.get("/openapi.json").json()
    routes = {(route.path, method.lower()) for route in made.app().app.routes for method in route.methods - {"HEAD"}}
    assert {(path, method) for path, found in told["paths"].items() for method in found} == routes
    schemas = told["components"]["schemas"]
    named = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(told)))
    assert named <= set(schemas) and {"Chat", "Completion", "Feedback"} <= named
    assert schemas["Chat"]["additionalProperties"] is False and schemas["Chat"]["required"] == ["messages"]
