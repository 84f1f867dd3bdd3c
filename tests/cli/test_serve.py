"""`whet serve` and `whet rollout` as they are typed: what is wrong is said before a model is opened."""

from __future__ import annotations

import builtins
import json
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

import models
from gateways import Engine, gateway, running

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.make(tmp_path_factory.mktemp("model") / "original")


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr("whet.serving.server.ProcessEngine", opened)


WRONG = [
    (["--steps", "5,50"], "100"),
    (["--steps", "5;50"], "commas"),
    (["--margin", "0.9"], "margin"),
    (["--sample", "0"], "sample"),
    (["--host", "0.0.0.0"], "--keys"),
    (["--keys", "no-such-file"], "no such file of keys"),
    (["--hodl", "5"], "--hold"),
    (["--port", "70000"], "65535"),
]


def test_what_is_wrong_is_said_first(command: Callable, folder: Path, tmp_path: Path) -> None:
    for options, said in WRONG:
        ended = command("serve", folder, folder, "--state", tmp_path / "state", *options)
        assert ended.code == 2 and said in ended.err and not (tmp_path / "state").exists(), options
    for pair in ((folder, "http://127.0.0.1:9"), (folder, tmp_path / "nowhere"), ("nowhere/x/y", folder)):
        assert command("serve", *pair, "--state", tmp_path / "state").code == 2
    keys = tmp_path / "keys.txt"
    for text, said in (("ann secret", "line 1"), ("# nobody", "holds no key")):
        keys.write_text(text)
        ended = command("serve", folder, folder, "--keys", keys, "--state", tmp_path / "state")
        assert ended.code == 2 and said in ended.err


def test_a_port_that_is_taken_is_said_before_a_model_is_opened(command: Callable, folder: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = command("serve", folder, folder, "--port", port, "--state", tmp_path / "state")
    assert ended.code == 3 and str(port) in ended.err and not (tmp_path / "state").exists()


def test_a_url_that_does_not_answer_is_named(command: Callable, tmp_path: Path) -> None:
    ended = command("serve", "http://127.0.0.1:9", "http://127.0.0.1:9/v1", "--port", 0, "--state", tmp_path)
    assert ended.code == 2 and "http://127.0.0.1:9" in ended.err and "OpenAI-compatible" in ended.err


def test_without_the_extra_it_says_what_to_install(command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def lacking(name: str, *rest: object) -> object:
        if name == "uvicorn":
            raise ImportError("No module named 'uvicorn'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    for arguments in (("serve", "a", "b"), ("rollout", "status")):
        ended = command(*arguments)
        assert ended.code == 3 and "whet[serve]" in ended.err


def test_a_rollout_is_steered_from_the_command_line(command: Callable, tmp_path: Path) -> None:
    ended = command("rollout", "status", "--state", tmp_path)
    assert ended.code == 2 and "--state" in ended.err
    assert command("rollout", "fly").code == 2
    (tmp_path / "admin.key").write_text("the admin's key\n")
    with running(gateway(Engine(), Engine())) as url:
        (tmp_path / "address.json").write_text(json.dumps({"url": url}))
        for action, said in (("promote", "5 %"), ("hold", "held"), ("abort", "aborted")):
            ended = command("rollout", action, "--state", tmp_path)
            assert ended.code == 0 and said in ended.out
        ended = command("rollout", "promote", "--state", tmp_path)
        assert ended.code == 2 and "resume" in ended.err
        report = json.loads(command("rollout", "resume", "--state", tmp_path, "--json").out)
        assert (report["status"], report["weight"]) == ("running", 0)
    ended = command("rollout", "status", "--state", tmp_path)
    assert ended.code == 2 and "does not answer" in ended.err


@pytest.mark.parametrize("page", ["README.md", "README.ko.md", "docs/serving.md"])
def test_the_requests_in_the_documents_are_answered(page: str) -> None:
    import httpx

    text = (ROOT / page).read_text(encoding="utf-8")
    curl = r"^curl localhost:8000(\S+) -H 'Content-Type: application/json'(?: -H '([\w-]+): (\S+)')? -d '(.*)'$"
    lines = re.findall(curl, text, re.MULTILINE)
    assert len(lines) == text.count("curl localhost:8000/v1")
    with running(gateway(Engine(), Engine())) as url:
        for path, name, value, body in lines:
            headers = {"content-type": "application/json"} | ({name: value} if name else {})
            answer = httpx.post(url + path, content=body.encode(), headers=headers, trust_env=False)
            assert answer.status_code == 200, (page, path)
