"""Those who mean no good: whatever they send, nobody in unasked, and no answer of 500 or more."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.routing import Route

from gateways import ADMIN, Engine, gateway, running
from whet.serving.gateway import Gateway

USER = b"Authorization: Bearer key of ann\r\n"
MIB = 1 << 20


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Gateway, tuple[str, int]]]:
    made = gateway(Engine(), Engine(), keys={"ann": "key of ann"}, header=0.5, requests_per_minute=10_000)
    with running(made) as url:
        yield made, ("127.0.0.1", int(url.rpartition(":")[2]))


def said(place: tuple[str, int], sent: bytes, then: bytes = b"") -> bytes:
    """The first line that comes back, b"" where the server hangs up."""
    with socket.create_connection(place, timeout=10) as wire:
        with contextlib.suppress(ConnectionError):
            wire.sendall(sent)
            if then:
                wire.sendall(then)
        got = b""
        with contextlib.suppress(ConnectionError):
            while b"\r\n" not in got and (part := wire.recv(4096)):
                got += part
        return got.partition(b"\r\n")[0]


def status(place: tuple[str, int], sent: bytes, then: bytes = b"") -> int:
    """0 where the server hangs up without a word."""
    line = said(place, sent, then)
    return int(line.split()[1]) if line else 0


def request(method: str, path: str, more: bytes = b"", body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n".encode()
    if body:
        more += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
    return head + more + b"\r\n" + body


def alive(place: tuple[str, int]) -> bool:
    return status(place, request("GET", "/health")) == 200


def paths(made: Gateway) -> list[str]:
    """Every route that there is, read from the application itself."""
    found = [route.path for route in made.app().app.routes if isinstance(route, Route)]
    assert len(found) >= 11
    return [path.replace("{action}", "promote") for path in found]


def test_every_route_but_health_and_the_empty_page_needs_a_key(served) -> None:
    made, place = served
    keys = [b"", b"Authorization: Bearer wrong\r\n", b"Authorization: Basic YTph\r\n", b"Authorization: \xff\xfe\r\n"]
    keys += [b"Authorization: Bearer " + b"x" * 20_000 + b"\r\n", b"Authorization: Bearer\r\n", b"Cookie: key=1\r\n"]
    for path, method in itertools.product(paths(made), ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE")):
        body = b"{}" if method in ("POST", "PUT") else b""
        for key in keys[: 7 if method == "POST" else 2]:
            got = status(place, request(method, path, key, body))
            if path in ("/health", "/ready", "/dashboard"):
                assert got == (200 if method in ("GET", "HEAD") else 405), (path, method)
            else:
                assert got == 401, (path, method, key[:30])
        if path.startswith("/admin"):
            assert status(place, request(method, path, USER, body)) == 401, path
    assert made.controller.weight == 0 and made.controller.state.status == "running"


TRICKS = [
    "/health/../admin/rollout",
    "/dashboard/../admin/rollout",
    "/dashboard%2f..%2fadmin/rollout",
    "/%61dmin/rollout",
    "/admin%2frollout",
    "/ADMIN/rollout",
    "//admin/rollout",
    "/admin/rollout/",
    "/admin/rollout;/health",
    "/admin/rollout?/health",
    "/admin/rollout#/health",
    "/admin/rollout%00",
    "/admin/rollout/%2e%2e/rollout",
    "/.%00./health",
    "/health%0d%0aX: y",
    "/health\\..\\admin\\rollout",
    "/v1/models/../../admin/rollout",
    "/../../etc/passwd",
    "/%c0%ae%c0%ae/etc/passwd",
    "/%ff%fe",
    "/dashboard/",
    "/dashboard/dashboard.js",
    "http://localhost/admin/rollout",
    "*",
    "/" + "a" * 30_000,
    "/" + "../" * 5_000,
]


def test_no_path_leads_around_the_guard(served) -> None:
    _, place = served
    for path, method, key in itertools.product(TRICKS, ("GET", "POST"), (b"", USER)):
        got = status(place, request(method, path, key))
        assert 400 <= got < 500, (path[:50], method, got)
        assert key or got in (400, 401, 404), (path[:50], method, got)
    assert alive(place)


BOMBS = [
    b"X: " + b"y" * MIB + b"\r\n",
    b"".join(b"X-%d: y\r\n" % number for number in range(50_000)),
    b"X" * 200_000 + b": y\r\n",
    b"X: y\r\n z\r\n" * 20_000,
    b"X y\r\n",
    b": y\r\n",
    b"X: \x00\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99999999999999999999999\r\n",
    b"Transfer-Encoding: gzip\r\n",
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    b"Expect: 999-nothing\r\n",
    b"Host: evil.example\r\n",
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
]
LINES = [
    b"GET / HTTP/9.9\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
    b"GET /health\r\n\r\n",
    b"G\x00T /health HTTP/1.1\r\n\r\n",
    b"\r\n" * 50_000,
    b"A" * MIB,
    b"GET /health HTTP/1.1\r\n\r\n",  # without a host
]


def test_headers_that_are_bombs_are_refused(served) -> None:
    _, place = served
    for bomb in BOMBS:
        got = status(place, request("POST", "/v1/completions", USER + bomb))
        assert got == 0 or 400 <= got < 500, (bomb[:50], got)
    for line in LINES:
        got = status(place, line)
        assert got == 0 or 400 <= got < 500, (line[:50], got)
    assert alive(place)


def bodies() -> Iterator[bytes]:
    yield b"x" * (3 * MIB)
    yield b'{"prompt": "' + b"a" * (2 * MIB) + b'"}'
    yield b"[" * 500_000
    yield b'{"a":' * 100_000
    yield b'{"prompt": "x", "seed": ' + b"9" * 100_000 + b"}"
    yield b'{"prompt": "x", "temperature": 1e999}'
    yield b'{"prompt": "x", "temperature": NaN}'
    yield b'{"prompt": "x", "max_tokens": 1e400}'
    yield b'{"prompt": "x", "n": true, "stop": [[]]}'
    yield b'{"prompt": [1e308]}'
    yield b'{"prompt": ' + json.dumps([[1] * 10] * 5000).encode() + b"}"
    yield b'{"prompt": "x", "user": {"$ne": 1}}'
    yield b'{"prompt": "x", "stop": ' + json.dumps(["a"] * 100_000).encode() + b"}"
    yield b'{"prompt": "x", "' + b"k" * 500_000 + b'": 1}'
    yield b'{"messages": [{"role": "\\ud800", "content": [{"type": "image_url", "text": "x"}]}]}'
    yield b"\xef\xbb\xbf{}"
    yield "{}".encode("utf-16")
    yield b"\x00" * 1000


def test_bodies_that_are_too_large_or_mean_nothing_are_refused(served) -> None:
    made, place = served
    begun = made.pair.original.engine.begun
    for body, path in itertools.product(bodies(), ("/v1/completions", "/v1/chat/completions", "/feedback")):
        got = status(place, request("POST", path, USER, body))
        assert got == 0 or 400 <= got < 500, (path, body[:50], got)
    chunk = b"%x\r\n" % MIB + b"x" * MIB + b"\r\n"
    head = USER + b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    assert status(place, request("POST", "/v1/completions", head), chunk * 3) in (0, 413)
    assert status(place, request("POST", "/v1/completions", head), b"zz\r\n") in (0, 400)
    assert made.pair.original.engine.begun == begun and alive(place)


def test_letters_that_no_encoding_has_are_answered_or_refused(served) -> None:
    _, place = served
    for text in ("\\ud800", "\\u0000", "\\u202e\\u2066", "\\ud83d"):
        for fields in (f'"prompt": "{text}"', f'"prompt": "x", "stop": "{text}"', f'"prompt": "x", "user": "{text}"'):
            got = status(place, request("POST", "/v1/completions", USER, b"{%s}" % fields.encode()))
            assert got == 200 or 400 <= got < 500, (fields, got)
        body = b'{"model": "%s", "messages": [{"role": "user", "content": "%s"}]}' % (text.encode(), text.encode())
        assert status(place, request("POST", "/v1/chat/completions", USER, body)) < 500, text
        body = b'{"id": "%s", "rating": "up"}' % text.encode()
        assert 400 <= status(place, request("POST", "/feedback", USER, body)) < 500, text
    admin = f"Authorization: Bearer {ADMIN}\r\n".encode()
    for action in ("%ed%a0%80", "%00", "hold%2f", "x" * 10_000, "{0.__class__}"):
        got = status(place, request("POST", f"/admin/rollout/{action}", admin))
        assert 400 <= got < 500, (action[:20], got)


def test_a_hundred_who_are_slow_keep_nobody_else_out(served) -> None:
    _, place = served
    head = request("POST", "/v1/completions", USER + b"Content-Type: application/json\r\nContent-Length: 900\r\n")
    slow = []
    try:
        for number in range(100):
            wire = socket.create_connection(place, timeout=10)
            wire.sendall(head[: 20 + number] if number % 2 else head + b"{")
            slow.append(wire)
        began = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(lambda _: alive(place), range(8)))
        assert time.monotonic() - began < 5
        ends = [wire.recv(100) for wire in slow]  # each is hung up on, or told that it took too long
        assert all(end == b"" or end.startswith(b"HTTP/1.1 408") for end in ends)
    finally:
        for wire in slow:
            wire.close()
    assert alive(place)


def test_who_drips_a_header_is_hung_up_on_all_the_same(served) -> None:
    _, place = served
    began = time.monotonic()
    with socket.create_connection(place, timeout=10) as wire, contextlib.suppress(ConnectionError):
        for byte in itertools.chain(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", itertools.repeat(97)):
            wire.sendall(bytes([byte]))
            time.sleep(0.02)
            assert time.monotonic() - began < 5
    assert alive(place)
