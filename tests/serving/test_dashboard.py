"""The dashboard: a page without data, events for the admin alone, and models whose words stay words."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import httpx
import pytest

from gateways import ADMIN, Says, gateway, running
from report.browser import Browser, chromium
from report.test_browser import FAINT
from whet.messages import Message
from whet.serving.boundaries import PARTS
from whet.serving.dashboard import page, snapshot
from whet.serving.evidence import level
from whet.serving.gateway import Gateway
from whet.serving.pairs import LETTERS, SECONDS, Pairs
from whet.serving.saving import Worth, saved
from whet.serving.watch import CELL, CELLS, Recent

HOSTILE = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'
KEY = {"authorization": f"Bearer {ADMIN}"}


def hostile(**more) -> Gateway:
    """A gateway whose models write HTML, and differ."""
    return gateway(Says(HOSTILE + " yes", 1.0), Says(HOSTILE + " no", 0.9), **{"pairs": 5, **more})


def ask(url: str, count: int = 1, prompt: str = HOSTILE) -> None:
    with httpx.Client(base_url=url, trust_env=False, timeout=20) as client:
        for number in range(count):
            body = {"prompt": prompt, "max_tokens": 1000, "user": f"user {number}"}
            assert client.post("/v1/completions", json=body).status_code == 200


def settled(made: Gateway, pairs: int) -> None:
    for _ in range(500):
        if made.controller.mean[0] >= pairs and (not made.quality.pairs.most or made.quality.pairs.kept):
            return
        time.sleep(0.01)
    raise AssertionError("nothing was compared")


# -- what it is told ---------------------------------------------------------------------------------------------------


def test_the_page_has_no_data_and_runs_nothing_but_its_own_script() -> None:
    html, policy = page()
    text = html.decode()
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|\son\w+=", text)
    assert re.findall(r"https?://[\w.]+", text) == ["http://www.w3.org"]  # the name of SVG, which nobody asks
    with running(hostile(keys={"ann": "key of ann"})) as url:
        answer = httpx.get(f"{url}/dashboard", trust_env=False)
        assert answer.content == html and answer.headers["content-security-policy"] == policy
        for headers in ({}, {"authorization": "Bearer key of ann"}):
            assert httpx.get(f"{url}/admin/events", headers=headers, trust_env=False).status_code == 401
    with running(hostile()) as url:
        assert httpx.get(f"{url}/dashboard", headers={"host": "evil.example"}, trust_env=False).status_code == 403


def test_its_words_are_there_in_both_languages() -> None:
    script = page()[0].decode()
    tables = [
        re.findall(r'(?:^|[,{ ])"?(\w[\w ]*)"?: "', part) for part in re.split(r"\n    (?:en|ko): \{", script)[1:3]
    ]
    tables[1] = tables[1][: len(tables[0])]
    assert len(tables[0]) > 50 and tables[0] == tables[1]
    asked = set(re.findall(r'data-say="(\w+)"', script)) | set(re.findall(r'\bsay\("(\w+)"', script))
    assert asked <= set(tables[0])


def test_events_come_while_they_are_watched_and_end_with_the_server() -> None:
    made = hostile()
    with running(made) as url, httpx.Client(base_url=url, trust_env=False, headers=KEY, timeout=20) as client:
        ask(url, 3)
        settled(made, 3)
        with client.stream("GET", "/admin/events") as stream:
            lines = stream.iter_lines()
            found = json.loads(next(line for line in lines if line.startswith("data: "))[6:])
            made.draining = True
            list(lines)
        assert (
            made.controller.state.stage == 0
            and found["weight"] == 0
            and found["agreements"] == [pytest.approx(0.9, abs=0.01)] * 3
        )
        assert found["because"]["en"].startswith("still to come") and "비교" in found["because"]["ko"]
        assert found["history"][0]["event"] == "new" and sum(found["sides"]["original"]["requests"]) == 3
        assert found["pairs_kept"][0]["lighter"] == HOSTILE + " no"
        made.draining = False
        made.dashboard.watchers = 8
        refused = client.get("/admin/events")
        assert refused.status_code == 429 and refused.headers["retry-after"]


def test_a_test_at_its_boundary_is_told_to_be_full() -> None:
    made = hostile()
    made.controller.whole.agreement.wealth = [0.99 / (level(made.controller.rules.error, 1) * PARTS["agreement"])]
    made.controller.proof.wealth = [1e-280]
    shares = {(one["name"], one["stops"]): one["share"] for one in snapshot(made)["evidence"]}
    assert 0.99 < shares["agreement", True] < 1 and shares["agreement", False] == 0 == shares["errors", True]
    made.controller.whole.agreement.wealth[0] /= 0.98
    assert snapshot(made)["evidence"][1]["share"] == 1 and made.controller.judge().verdict == "fail"
    assert "en" in snapshot(made)["because"] and isinstance(made.controller.judge().reason, Message)


def test_what_the_lighter_model_does_besides_is_told() -> None:
    assert snapshot(hostile())["draft"] is None and snapshot(hostile())["escalation"] is None
    made = hostile(escalation={"doubt": 0.2, "limit": 0.009, "share": 0.01})
    made.pair.original.engine.faster = {"alone": 20.0, "drafted": 30.0, "kept": 0.8, "length": 4}
    made.pair.original.engine.draft = {"proposed": 10, "kept": 7}
    found = snapshot(made)
    assert found["draft"] == {"times": 1.5, "length": 4, "proposed": 10, "kept": 7, "failed": None}
    assert found["escalation"] == {"doubt": 0.2, "limit": 0.009, "share": 0.01, "began": 0, "gave_up": 0}
    with running(made) as url:
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
    assert 'whet_draft_tokens{outcome="kept"} 7' in metrics and "whet_draft_speedup 1.5" in metrics


def test_pairs_are_few_masked_cut_and_forgotten() -> None:
    now = [0.0]
    kept = Pairs(2, lambda: now[0])
    kept.add("same", "a", "a", 0.9)
    assert not kept.told()
    for number in range(3):
        kept.add(f"{number} ann@example.com", "x" * 9000, "010-1234-5678", 0.5)
    kept.add([{"role": "user", "content": "hi"}], "a", "b", 0.5)
    assert [pair.prompt for pair in kept.told()] == ["user: hi", "2 <EMAIL>"]
    assert kept.told()[1].lighter == "<PHONE>" and len(kept.told()[1].original) == LETTERS + 2
    now[0] = SECONDS + 1
    assert not kept.told()
    off = Pairs(0, lambda: 0.0)
    off.add("x", "a", "b", 0.5)
    assert not off.told()


def test_no_text_is_kept_unless_asked_for() -> None:
    made = hostile(pairs=0)
    with running(made) as url:
        ask(url, 2)
        settled(made, 2)
        assert HOSTILE not in json.dumps(snapshot(made)) and made.pair.lighter.engine.begun == 0


def test_the_last_minutes_are_counted_and_no_more() -> None:
    now = [1000 * CELL]
    recent = Recent(lambda: now[0])
    for _ in range(6):
        recent.add(True, 20, (0.5, 0.01))
        now[0] += CELL
    told = recent.told()
    assert told["requests"][-7:] == [1, 1, 1, 1, 1, 1, 0] and told["errors"] == told["requests"]
    assert told["tokens_per_second"] == 2.0 and told["first"] == {"median": 0.5, "p95": 0.5}
    now[0] += CELL * CELLS
    assert sum(recent.told()["requests"]) == 0 and len(recent.told()["requests"]) == CELLS


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = chromium()
    if binary is None:
        pytest.skip("no Chromium here: apt-get install chromium (or name one in WHET_CHROMIUM)")
    opened = Browser(binary, tmp_path_factory.mktemp("chromium"))
    try:
        yield opened
    finally:
        opened.close()


def until(browser: Browser, expression: str) -> None:
    for _ in range(300):
        if browser.evaluate(expression):
            return
        time.sleep(0.05)
    raise AssertionError(expression)


def opened(browser: Browser, url: str) -> None:
    browser.events.clear()
    browser.call("Page.navigate", url=f"{url}/dashboard")
    until(browser, "location.pathname === '/dashboard' && document.readyState === 'complete'")


def enter(browser: Browser, key: str) -> None:
    until(browser, "document.getElementById('enter').checkVisibility()")
    browser.evaluate(f"document.getElementById('key').value = {json.dumps(key)}; enter.requestSubmit()")


def press(browser: Browser, action: str) -> None:
    browser.evaluate(f"document.querySelector('[data-act={action}]').click()")


def test_what_models_write_is_shown_as_text(browser: Browser, tmp_path: Path) -> None:
    made = hostile()
    with running(made) as url:
        ask(url, 3)
        settled(made, 3)
        opened(browser, url)
        enter(browser, "wrong")
        until(browser, "document.getElementById('wrong').textContent.length > 5")
        enter(browser, ADMIN)
        until(browser, "document.querySelectorAll('#pairs details').length === 3")
        browser.evaluate("document.querySelectorAll('#pairs details').forEach((one) => { one.open = true; })")
        shown = browser.evaluate("document.querySelector('#pairs .both').innerText")
        assert shown.count(HOSTILE) == 3
        assert browser.evaluate("document.querySelectorAll('main img, main script').length") == 0
        assert browser.evaluate("window.hacked === undefined && sessionStorage.length === 1")
        assert browser.evaluate("(() => { try { document.body.innerHTML = '<b>'; } catch { return true; } })()")
        asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
        assert {httpx.URL(one).path for one in asked if one.startswith("http")} == {"/dashboard", "/admin/events"}
        assert not [e for e in browser.events if e["method"] == "Runtime.exceptionThrown"]
        made.draining = True
        browser.evaluate("leave.click()")


def test_buttons_steer_and_the_page_fits_everywhere(browser: Browser) -> None:
    made = hostile()
    with running(made) as url:
        ask(url, 3)
        opened(browser, url)
        enter(browser, ADMIN)
        until(browser, "document.getElementById('board').checkVisibility()")
        press(browser, "promote")
        assert made.controller.weight == 0  # it asks whether that is meant
        press(browser, "promote")
        until(browser, "document.getElementById('weight').textContent === '5 %'")
        press(browser, "hold")
        until(browser, "document.querySelector('[data-act=hold]').disabled")
        assert made.controller.state.status == "held"
        ask(url, 20, "the other one")
        for (width, height), language, theme in product(((360, 800), (1280, 900)), ("en", "ko"), ("light", "dark")):
            browser.resize(width, height)
            browser.evaluate(f"document.getElementById('language-{language}').click()")
            browser.evaluate(f"document.getElementById('theme-{theme}').click()")
            assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth"), (width, language)
            faint = browser.evaluate(FAINT)
            assert faint["pairs"] > 3 and faint["found"] == [], (language, theme)
            assert browser.evaluate("document.getElementById('weight').checkVisibility()")
        press(browser, "abort")
        press(browser, "abort")
        until(browser, "document.getElementById('head').classList.contains('fail')")
        assert made.controller.state.status == "aborted"
        made.draining = True
        browser.evaluate("leave.click(); localStorage.clear()")


def test_what_is_saved_is_the_time_that_the_original_would_have_taken() -> None:
    made = hostile()
    original, lighter = made.pair.sides
    assert snapshot(made)["saved"] is None
    original.tokens, original.working, lighter.tokens, lighter.working = 1000, 100.0, 500, 20.0
    told = {"seconds": pytest.approx(30.0), "tokens": 500, "energy": None, "money": None}
    assert saved(original, lighter, Worth()) == told
    made.worth = Worth(watts=120.0, hourly=6.0)
    found = snapshot(made)["saved"]
    assert found["energy"] == pytest.approx(0.001) and found["money"] == pytest.approx(0.05)
    lighter.working = 100.0
    assert saved(original, lighter, Worth())["seconds"] == pytest.approx(-50.0)
    with running(made) as url:
        ask(url)
        assert "whet_saved_money" in httpx.get(f"{url}/metrics", trust_env=False).text
    assert original.working > 100.0 and original.tokens > 1000
