"""Refusals, answers in another language, and prompts that are unlike the text a model was made with."""

from __future__ import annotations

import httpx
import pytest

from gateways import Engine, Says, gateway, running
from whet.serving.boundaries import FAILURES
from whet.serving.dashboard import snapshot
from whet.serving.manner import FEWEST, Drift, changes_language, kinds_of, mean_of, refuses

KOREAN = "서울에서 부산까지 기차로 얼마나 걸리는지 알려 주세요"


def test_refusals_are_known_by_how_they_open() -> None:
    for text in (
        "I'm sorry, but I can't help with that.", "I’m sorry, I cannot do that.", "As an AI, I have no opinion.",
        "죄송하지만 그 요청은 들어드릴 수 없습니다.", "I cannot assist with this.", "그 내용은 도와드릴 수 없습니다.",
    ):  # fmt: skip
        assert refuses(text), text
    for text in (
        "The sorry state of roads",
        "Paris.",
        "She said: no." + " Then" * 60 + " I'm sorry.",
        "도와드리겠습니다.",
    ):
        assert not refuses(text), text


def test_another_language_is_told_where_there_is_enough_of_it() -> None:
    english = "It takes about two and a half hours by train from there."
    assert changes_language(KOREAN, english) and changes_language(english, KOREAN)
    assert not changes_language(KOREAN, KOREAN) and not changes_language(english, english)
    assert not changes_language(KOREAN, "KTX 2:30") and not changes_language("번역: 안녕", english)
    assert not changes_language(KOREAN + " in English please", english)  # asked for


def test_kinds_add_up_and_a_drift_is_named_with_what_differs() -> None:
    found = kinds_of("ab 12 { 가")
    assert found == {"latin": 2 / 6, "digits": 2 / 6, "code": 1 / 6, "hangul": 1 / 6} and kinds_of(" \n") == {}
    drift = Drift(mean_of(kinds_of(text) for text in ("Once upon a time", "there was a queen, 3 cats")))
    for _ in range(FEWEST - 1):
        drift.add(KOREAN)
    assert drift.message() is None  # too few to say so
    drift.add(KOREAN)
    told = drift.told()
    assert told["distance"] > 0.9 and told["kinds"][0][0] in ("hangul", "latin")
    assert "hangul 100% and not 0%" in str(drift.message())
    for _ in range(500):
        drift.add("Once there was a king, 4 dogs")
    assert drift.message() is None and drift.told()["distance"] < 0.15


def test_a_model_that_begins_to_refuse_is_stopped_and_equals_are_not() -> None:
    no, yes = "I'm sorry, I can't help with that.", "It takes two hours by train from here."
    for lighter, stopped in ((no, True), (yes, False)):
        made = gateway(Says(yes, 1.0), Says(lighter, 1.0), stage=4)  # half of the users
        made.drift = Drift(kinds_of(KOREAN))
        with running(made) as url, httpx.Client(base_url=url, trust_env=False) as client:
            for number in range(160):
                body = {"prompt": "How long does it take?", "user": f"user {number}", "max_tokens": 100}
                assert client.post("/v1/completions", json=body).status_code == 200
                if made.controller.state.status == "failed":
                    break
            metrics = client.get("/metrics").text
        assert (made.controller.state.status == "failed") == stopped
        assert ('whet_odd_answers_total{side="lighter",what="refuses"}' in metrics) == stopped
        assert "whet_prompt_drift 1" in metrics
        if stopped:
            assert made.controller.state.reason == FAILURES["manner"]
        else:
            assert "latin" in snapshot(made)["drift"]["en"] and "다릅니다" in snapshot(made)["drift"]["ko"]


def test_what_a_lighter_model_is_calibrated_on_is_read(tmp_path) -> None:
    from whet.cli.serve import drift_from

    file = tmp_path / "text.jsonl"
    file.write_text('{"text": "abc"}\n{"text": "가나"}\n', encoding="utf-8")
    assert drift_from(str(file)).text == pytest.approx({"latin": 0.5, "hangul": 0.5})
    assert gateway(Engine(), Engine()).drift is None
