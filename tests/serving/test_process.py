"""Real processes: engines that are killed, hang, drip and talk nonsense, a server that is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import models
from serving_stub import answer_to
from whet.errors import UsageError
from whet.serving import server
from whet.serving.jobs import Fault, Job
from whet.serving.process import Opened, ProcessEngine
from whet.serving.sides import Limits, Pair, Served, Side

STUB = Path(__file__).parents[1] / "serving_stub.py"


def engine(name: str) -> ProcessEngine:
    return ProcessEngine(Opened(name), [sys.executable, str(STUB), name])


async def answered(pair: Pair, prompt: str, seed: int = 0) -> tuple[str, Served]:
    served = Served(Job(prompt, tokens=1000, seed=seed))
    text = ""
    async with contextlib.aclosing(pair.answer(served, lighter=True)) as pieces:
        async for piece in pieces:
            text += piece.text
    return text, served


def test_every_stream_is_whole_whatever_becomes_of_the_engines() -> None:
    """Four at once, so that those who did nothing go over with the one whose engine died."""

    async def run() -> None:
        limits = Limits(first_token=5.0, between_tokens=0.5)
        pair = Pair(Side("original", engine("original"), 8, 64), Side("lighter", engine("lighter"), 8, 64), limits)
        await asyncio.gather(pair.original.engine.start(), pair.lighter.engine.start())
        try:
            for what in ("die", "nan", "garbage", "nonsense", "drip", "hang"):
                assert await pair.lighter.engine.wait(10), "not started again"
                prompts = [f"FAIL lighter {what} {at} of {what}" for at in (0, 1, 30)] + [f"calm {what}"]
                if what == "die":
                    prompts.append("FAIL original die 20")  # it is started again, and goes on
                found = await asyncio.gather(*(answered(pair, prompt, seed) for seed, prompt in enumerate(prompts)))
                for seed, (prompt, (text, served)) in enumerate(zip(prompts, found, strict=True)):
                    whole = answer_to(prompt.encode(), seed)
                    assert text == whole.decode() and bytes(served.job.sent) == whole, (what, prompt)
                    assert (served.count, served.shares[-1].end) == (len(whole), len(whole))
            assert pair.lighter.engine.starts >= 3 and pair.original.engine.starts == 2
        finally:
            await asyncio.gather(pair.original.engine.stop(), pair.lighter.engine.stop())

    asyncio.run(run())


def test_what_is_cancelled_is_not_written_on_and_a_dead_engine_says_so() -> None:
    async def run() -> None:
        made = engine("lighter")
        await made.start()
        pieces = made.ask(Job("FAIL lighter drip 2", tokens=1000))
        await anext(pieces)
        await pieces.aclose()
        assert not made._jobs
        os.kill(made.pid or 0, signal.SIGKILL)
        with pytest.raises(Fault):
            async for _ in made.ask(Job("x", tokens=1000)):
                pass
        await made.stop()

    asyncio.run(run())


SERVER = """
import json, pathlib, sys
sys.path[:0] = [sys.argv[2]]
from whet.serving import server
from whet.serving.process import Opened, ProcessEngine
from whet.serving.rules import Rules
stub, state = sys.argv[1:4:2]
server.ProcessEngine = lambda opened: ProcessEngine(opened, [sys.executable, stub, opened.model])
rules = Rules(hold=0.0, requests=5, pairs=5)
serving = server.Serving("original", "lighter", pathlib.Path(state), port=0, rules=rules, device="cpu")
server.serve(serving, lambda event, values: print(json.dumps(values), flush=True))
print("ended", flush=True)
"""


@contextlib.contextmanager
def serving(state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    code = [sys.executable, "-c", SERVER, str(STUB), str(STUB.parent), str(state)]
    process = subprocess.Popen(code, stdout=subprocess.PIPE, text=True)
    try:
        yield process, json.loads(process.stdout.readline())["url"]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def act(url: str, state: Path, action: str) -> dict:
    key = (state / "admin.key").read_text().strip()
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{url}/admin/rollout/{action}", headers=headers, trust_env=False).json()


def test_a_server_ends_what_it_began_and_remembers_its_roll_out(tmp_path: Path) -> None:
    body = {"prompt": "FAIL original drip 3", "max_tokens": 1000, "seed": 0, "stream": True}
    with serving(tmp_path) as (process, url):
        assert act(url, tmp_path, "promote")["weight"] == 5
        assert act(url, tmp_path, "hold")["status"] == "held"
        with httpx.stream("POST", f"{url}/v1/completions", json=body, trust_env=False) as answer:
            lines = answer.iter_lines()
            assert next(lines).startswith("data: ")
            process.send_signal(signal.SIGTERM)
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert process.stdout.readline() == "ended\n" and process.wait(10) == 0
    assert not (tmp_path / "address.json").exists() and (tmp_path / "admin.key").stat().st_mode & 0o77 == 0
    with serving(tmp_path) as (process, url):
        process.kill()  # at any moment: what was said before is stored
        process.wait()
    with serving(tmp_path) as (_, url):
        assert act(url, tmp_path, "resume")["weight"] == 5
    (tmp_path / "rollout.sqlite").write_bytes(b"no database" * 1000)
    with serving(tmp_path) as (_, url):
        key = (tmp_path / "admin.key").read_text().strip()
        report = httpx.get(f"{url}/admin/rollout", headers={"authorization": f"Bearer {key}"}, trust_env=False).json()
        assert report["status"] == "unknown" and report["weight"] == 0


def test_an_engine_that_never_opens_is_told(tmp_path: Path) -> None:
    from whet.errors import UsageError

    made = ProcessEngine(Opened("model"), [sys.executable, "-c", "print('no json')"])
    with pytest.raises(UsageError, match="model cannot be served"):
        asyncio.run(made.start())


def test_a_draft_works_in_the_originals_process_and_is_refused_where_it_is_not_faster(tmp_path) -> None:
    folder = str(models.make(tmp_path / "model", "qwen3"))

    async def run() -> None:
        alone, drafted = ProcessEngine(Opened(folder, most=96)), ProcessEngine(Opened(folder, most=96, draft=folder))
        try:
            await alone.start()
            await drafted.start()
            told = []
            for one in (alone, drafted):
                job = Job("ab cd", tokens=40, temperature=0.7, seed=3)
                told.append([piece.text async for piece in one.ask(job)])
            assert told[0] == told[1]
            assert alone.faster is None and drafted.faster is not None and drafted.faster["kept"] == 1
            assert set(drafted.draft) == {"proposed", "kept"}
            before, drafted.faster["kept"] = drafted.pid, 0.5
            os.kill(before, signal.SIGKILL)
            while drafted.pid == before or not drafted.ready:
                await asyncio.sleep(0.05)
            assert drafted.faster["kept"] == 0.5  # not measured again while users wait
        finally:
            await asyncio.gather(alone.stop(), drafted.stop())

    asyncio.run(run())
    asked = server.Serving("model", "lighter", tmp_path, draft="lighter")
    slow = {"alone": 20.0, "drafted": 18.0, "kept": 0.25, "length": 1}
    with pytest.raises(UsageError, match=r"0.90 times as fast \(18.0 instead of 20.0 tokens a second, 25%"):
        server._must_be_faster(asked, slow)
    server._must_be_faster(asked, slow | {"drafted": 30.0})
    for pair in (("http://a", "http://b", "c"), ("a", "b", "http://c")):
        with pytest.raises(UsageError, match="inside the process"):
            server.serve(server.Serving(*pair[:2], tmp_path, draft=pair[2]), lambda *_: None)
