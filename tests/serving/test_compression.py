"""Laws of shorter prompts: what must stay stays, the share is kept, and nothing happens unasked."""

from __future__ import annotations

import asyncio
import re
import time

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateways import Engine, gateway, running
from whet.errors import UsageError
from whet.serving.compression import check_share, parts_of, shortened, with_parts, words_of

TEXT = """The quick brown fox sat down. Is it red? It has 42 hats and a tail.
    x = f(y) == {1};
The end of the tale. 끝까지 읽었나요? 네."""


def told(text: str) -> list[tuple[str, float]]:
    return asyncio.run(Engine().surprise(text))


def test_questions_numbers_and_code_stay_whatever_the_share() -> None:
    for share in (0.1, 0.5, 0.9):
        kept = shortened(words_of(TEXT, told(TEXT)), share)
        for part in (" Is it red?", " 42", "    x = f(y) == {1};", " 끝까지 읽었나요?"):
            assert part.strip() in kept, (share, part)
    assert " it" not in shortened(words_of("sit down by it all day", told("sit down by it all day")), 0.5)


@given(st.text("ab c?1\n한.`{", max_size=60), st.floats(0.1, 1))
@settings(max_examples=60, deadline=None)
def test_what_is_kept_is_of_the_text_in_its_order_and_no_more_than_asked(text: str, share: float) -> None:
    words = words_of(text, told(text))
    assert "".join(word.text for word in words) == text
    kept = shortened(words, share).split()
    rest = iter(text.split())
    assert all(word in rest for word in kept)
    must = [word for word in words if word.must and word.text.strip()]
    assert len(kept) <= max(share * sum(word.tokens for word in words), len(must))


def test_tokens_that_lie_across_words_count_once() -> None:
    words = words_of("one two three", [("o", 1.0), ("ne tw", 3.0), ("o", 5.0), (" three", 0.5)])
    assert sum(word.tokens for word in words) == 4 and [word.text for word in words] == ["one", " two", " three"]


def test_the_last_turn_and_instructions_stay_whole() -> None:
    turns = [{"role": role, "content": f"{role} says"} for role in ("system", "user", "assistant", "user")]
    assert [at for at, _ in parts_of(turns)] == [1, 2]
    assert with_parts(turns, [(1, "user says", "user")])[1] == {"role": "user", "content": "user"} != turns[1]
    assert parts_of("one line") == [] == parts_of([1, 2, 3])
    prompt = "a long story of it\n\nand more\n\nWhat now"
    (part,) = parts_of(prompt)
    assert with_parts(prompt, [(*part, "long story")]) == "long story\n\nWhat now"


def test_a_request_says_how_much_is_kept_and_is_told_what_was() -> None:
    made = gateway(Engine(), Engine())
    body = {"prompt": "a very long tale of it and of all that is so\n\nWhat now", "max_tokens": 9, "seed": 1}
    with running(made) as url, httpx.Client(base_url=url, trust_env=False) as client:
        plain = client.post("/v1/completions", json=body)
        assert "x-whet-compressed" not in plain.headers
        short = client.post("/v1/completions", json=body, headers={"x-whet-compress": "0.5"})
        left = float(short.headers["x-whet-compressed"])
        assert 0.3 < left < 0.9 and short.json()["usage"]["prompt_tokens"] < plain.json()["usage"]["prompt_tokens"]
        stream = client.post("/v1/completions", json=body | {"stream": True}, headers={"x-whet-compress": ".5"})
        assert float(stream.headers["x-whet-compressed"]) == left and "[DONE]" in stream.text
        for wrong in ("0", "2", "nan", "half", "-1"):
            refused = client.post("/v1/completions", json=body, headers={"x-whet-compress": wrong})
            assert refused.status_code == 400 and refused.json()["error"]["param"] == "x-whet-compress", wrong
        made.compress = "0.5"
        assert "x-whet-compressed" in client.post("/v1/completions", json=body).headers
        assert (
            "x-whet-compressed"
            not in client.post("/v1/completions", json=body, headers={"x-whet-compress": "1"}).headers
        )
        made.compress, made.controller.sample = None, 1.0
        for _ in range(200):
            client.post("/v1/completions", json=body, headers={"x-whet-compress": "0.5"})
            if made.compressor.compared:
                break
            time.sleep(0.02)
        assert made.compressor.told()["latin"]["count"] >= 1
        assert re.search(r'whet_compression_compared\{language="latin"\} \d', client.get("/metrics").text)


def test_a_model_that_cannot_tell_is_said_and_one_that_fails_hinders_nobody() -> None:
    class Mute(Engine):
        async def surprise(self, text: str) -> None:
            return None

    body = {"prompt": "a very long tale\n\nWhat now", "max_tokens": 9}
    with running(gateway(Engine(), Mute())) as url:
        answer = httpx.post(f"{url}/v1/completions", json=body, headers={"x-whet-compress": "0.5"}, trust_env=False)
        assert answer.status_code == 400
    for share, urls in ((0.0, False), (1.5, False), (0.5, True)):
        with pytest.raises(UsageError, match="--compress"):
            check_share(share, urls)
