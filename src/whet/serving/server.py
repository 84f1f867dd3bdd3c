"""`serve`: both models opened, the state read, and the gateway run until it is told to end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import secrets
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn

from whet.errors import MachineError, UsageError
from whet.measure.items import Item, read_skills
from whet.serving.beside import apart, must_be_alike
from whet.serving.compression import check_share
from whet.serving.escalation import check_escalation, escalation_of
from whet.serving.gateway import Gateway
from whet.serving.jobs import Engine
from whet.serving.journal import Journal
from whet.serving.keys import Keys, admin_key, hashed, must_be_guarded, read_keys
from whet.serving.ladder import Ladder
from whet.serving.manner import Drift
from whet.serving.patience import patient_for
from whet.serving.process import Opened, ProcessEngine
from whet.serving.remote import UrlEngine
from whet.serving.replay import free_answers
from whet.serving.replicas import Replicas, urls_of
from whet.serving.rollout import Controller
from whet.serving.rules import Rules
from whet.serving.saving import Worth
from whet.serving.sides import Limits, Pair, Side

ADDRESS = "address.json"  # in the folder of a server: where it is reached


@dataclass(frozen=True)
class Serving:
    """What is served and how. original, lighter: a folder, a .gguf, a URL, or URLs of replicas with commas between.
    state: the folder of what must outlive this process. sample: the share of requests that both answer, after Shadow,
    where all are. pairs: how many answers that differ are kept in memory, for the dashboard."""

    original: str
    lighter: str
    state: Path
    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    keys: Path | None = None
    rules: Rules = field(default_factory=Rules)
    limits: Limits = field(default_factory=Limits)
    sample: float = 0.1
    pairs: int = 0
    slots: int = 4
    most: int = 8192
    device: str = "auto"
    dtype: str | None = None
    threads: int | None = None
    trust_remote_code: bool = False  # of the original's folder
    fast: bool = False  # the lighter stays packed in memory
    precisions: tuple[int, ...] = ()  # the bits that the lighter answers with, by load; the last is the floor
    draft: str | None = None  # a model that guesses what the original then verifies
    escalate: float | None = None  # share of harmful flips that answers must stay below
    drift: Drift | None = None  # how prompts are compared with the text that the lighter model was made with
    skills: Path | None = None  # questions on which `escalate` is made sure of, and which are asked of both
    worth: Worth = field(default_factory=Worth)  # of time that is saved
    compress: float | None = None  # the share of prompts that is kept where a request does not say
    allow_differences: bool = False  # of tokenizer, template and settings
    replay: float = 2.0  # seconds between two of them, 0 for none


def is_url(model: str) -> bool:
    return model.startswith(("http://", "https://"))


def serve(asked: Serving, tell: Callable[[str, dict[str, Any]], None]) -> None:
    """Until SIGTERM or Ctrl-C; answers that have begun are ended first. tell: of what is going on, by name.

    Raises UsageError and MachineError before anything is served.
    """
    users = read_keys(asked.keys) if asked.keys is not None else {}
    must_be_guarded(asked.host, users)
    _must_be_a_pair(asked.original, asked.lighter)
    if asked.draft is not None and (is_url(asked.original) or is_url(asked.draft)):
        raise UsageError(
            "A draft works inside the process of the original, and {original} is a URL. Configure speculative decoding "
            "in the server behind it, and leave --draft out.",
            original=asked.original if is_url(asked.original) else asked.draft,
        )
    if asked.precisions:
        _must_have(asked)
    if not 0 < asked.sample <= 1:
        raise UsageError(
            "A sample of {sample:g} cannot be compared: without comparisons nothing is ever proven. Use a share above "
            "0, up to 1.",
            sample=asked.sample,
        )
    questions = free_answers(read_skills(asked.skills)) if asked.skills is not None and asked.replay else []
    if asked.skills is not None and asked.replay and not questions:
        raise UsageError(
            "{skills} has no question that is answered in words, so nothing can be asked of both models. Give others "
            "with --skills, or say --replay 0.",
            skills=asked.skills,
        )
    if asked.compress is not None:
        check_share(asked.compress, is_url(asked.lighter))
    if asked.escalate is not None:
        check_escalation(asked.escalate, asked.skills, is_url(asked.original))
    with _listening(asked.host, asked.port) as listening:
        _serve_at(asked, users, questions, listening, tell)


def _must_have(asked: Serving) -> None:
    """Raises UsageError unless the lighter folder has all the precisions, and keeps them packed in memory."""
    if is_url(asked.lighter):
        raise UsageError(
            "{lighter} is a URL: its server has its own precision. Leave --precisions out.", lighter=asked.lighter
        )
    if not asked.fast:
        raise UsageError(
            "Precisions are changed between two answers, which needs them packed in memory. Give --fast with "
            "--precisions."
        )
    from whet.engines.opening import must_have_precision

    for bits in asked.precisions:
        must_have_precision(asked.lighter, bits)


def _serve_at(
    asked: Serving,
    users: dict[str, bytes],
    questions: list[Item],
    listening: socket.socket,
    tell: Callable[[str, dict[str, Any]], None],
) -> None:
    asked.state.mkdir(parents=True, exist_ok=True)
    journal = Journal(asked.state / "rollout.sqlite")
    try:
        escalation = _escalation(asked, tell)
    except BaseException:
        journal.close()
        raise
    before = signal.signal(signal.SIGTERM, _end)  # uvicorn sends it to us again when answers have been ended
    try:
        asyncio.run(_serve(asked, users, questions, journal, listening, tell, escalation))
    except _Ended:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        journal.close()
        (asked.state / ADDRESS).unlink(missing_ok=True)


def _escalation(asked: Serving, tell: Callable[[str, dict[str, Any]], None]) -> dict[str, Any] | None:
    """What was chosen for --escalate, if it was asked for."""
    if asked.escalate is None:
        return None
    tell("choosing", {"skills": str(asked.skills)})
    wanted = {
        "original": asked.original,
        "lighter": asked.lighter,
        "skills": str(asked.skills),
        "share": asked.escalate,
    }
    trusted = asked.original if asked.trust_remote_code else None
    more = {"device": asked.device, "dtype": asked.dtype, "threads": asked.threads, "trusted": trusted}
    return escalation_of(asked.state, fingerprint(asked.original, asked.lighter), wanted | more)


class _Ended(KeyboardInterrupt):
    """SIGTERM came. It ends an event loop as Ctrl-C does."""


def _end(number: int, frame: Any) -> None:
    raise _Ended


def _listening(host: str, port: int) -> socket.socket:
    """A socket of this address. Raises MachineError before the models are opened, which takes long."""
    try:
        # with the protocol named, asyncio sends small parts at once and does not wait 40 ms for more
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
        except OSError:
            made.close()
            raise
    except OSError as error:
        raise MachineError(
            "Port {port} of {host} is not free, or may not be used. Name another one with --port.", port=port, host=host
        ) from error
    return made


async def _serve(
    asked: Serving,
    users: dict[str, bytes],
    questions: list[Item],
    journal: Journal,
    listening: socket.socket,
    tell: Callable[..., None],
    escalation: dict[str, Any] | None,
) -> None:
    doubt = escalation["doubt"] if escalation else None
    pair = Pair(_side(asked, "original"), _side(asked, "lighter"), asked.limits, doubt)
    try:
        if asked.draft is None:
            await asyncio.gather(pair.original.engine.start(), pair.lighter.engine.start())
        else:  # one after the other, so that nothing disturbs the clock
            await pair.original.engine.start()
            _must_be_faster(asked, getattr(pair.original.engine, "faster", None))
            await pair.lighter.engine.start()
        if _tokens(pair.original) != _tokens(pair.lighter):
            await asyncio.to_thread(_must_share_tokens, asked.original, asked.lighter)
        if not asked.allow_differences:
            must_be_alike(asked.lighter, apart(*(getattr(side.engine, "beside", None) for side in pair.sides)))
        controller = Controller(
            replace(asked.rules, harmful=asked.escalate if questions else None),
            journal,
            fingerprint(asked.original, asked.lighter, asked.fast, asked.precisions),
            secrets.token_hex(8),
            time.monotonic,
            time.time,
            random.SystemRandom().random,
            asked.sample,
            tuple(dict.fromkeys(item.skill for item in questions)),
        )
        admin = admin_key(asked.state)
        name = asked.name or Path(asked.original).name or asked.original
        gateway = Gateway(
            name,
            pair,
            controller,
            Keys(hashed(admin), users),
            journal.history,
            asked.pairs,
            escalation,
            asked.drift,
            questions,
            asked.replay,
            None if asked.compress is None else str(asked.compress),
            asked.worth,
        )
        await _run(asked, gateway, listening, tell)
    finally:
        await asyncio.gather(pair.original.engine.stop(), pair.lighter.engine.stop(), return_exceptions=True)


async def _run(asked: Serving, gateway: Gateway, listening: socket.socket, tell: Callable[..., None]) -> None:
    config = uvicorn.Config(
        gateway.app(),
        http=patient_for(asked.limits.header),
        ws="none",
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(asked.limits.total),
        h11_max_incomplete_event_size=64 << 10,
    )
    server = _Server(config)
    server.gateway = gateway

    async def announce() -> None:
        while not server.started:
            await asyncio.sleep(0.02)
        port = listening.getsockname()[1]
        host = "127.0.0.1" if asked.host in ("0.0.0.0", "::") else asked.host
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        (asked.state / ADDRESS).write_text(json.dumps({"url": url}), encoding="utf-8")
        engine = gateway.pair.original.engine
        told = {"url": url, "model": gateway.model, "weight": gateway.controller.weight}
        told["escalation"] = gateway.escalation
        seconds, faster = getattr(engine, "start_seconds", None), getattr(engine, "faster", None)
        tell("serving", {**told, "seconds": seconds, "draft": faster and {"model": asked.draft, **faster}})

    announced = asyncio.create_task(announce())
    try:
        await server.serve(sockets=[listening])
    finally:
        announced.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await announced


class _Server(uvicorn.Server):
    """Says that it is not ready any more from the moment it is told to end."""

    gateway: Gateway

    def handle_exit(self, sig: int, frame: Any) -> None:
        self.gateway.draining = True
        super().handle_exit(sig, frame)


def _must_be_a_pair(original: str, lighter: str) -> None:
    if is_url(original) != is_url(lighter):
        raise UsageError(
            "{original} and {lighter} are a URL and none: an answer can only go over from one to the other where both "
            "tell the same, token ids or text. Give two URLs, or two models on this machine.",
            original=original,
            lighter=lighter,
        )


def _must_be_faster(asked: Serving, measured: dict[str, float] | None) -> None:
    """Raises UsageError where the draft does not make the original faster."""
    from whet.engines.drafted import FASTER, Speedup

    found = Speedup(**measured) if measured else None  # type: ignore[arg-type]
    if found is not None and found.times < FASTER:
        raise UsageError(
            "{draft} as a draft makes {original} {times:.2f} times as fast ({drafted:.1f} instead of {alone:.1f} "
            "tokens a second, {kept:.0%} of its guesses kept). It must be {least:g} times at least. Leave --draft out, "
            "or name a model that is much faster or guesses better.",
            draft=asked.draft,
            original=asked.original,
            times=found.times,
            drafted=found.drafted,
            alone=found.alone,
            kept=found.kept,
            least=FASTER,
        )


def _tokens(side: Side) -> str | None:
    return getattr(side.engine, "tokens", None)


def _must_share_tokens(original: str, lighter: str) -> None:
    """Raises UsageError where a token's number is not the same to both; rows that a .gguf lacks do not count."""
    # torch and transformers, which the gateway does without otherwise
    from whet.checkpoint import rows_between
    from whet.checkpoint.model_files import model_file
    from whet.measure.sides import shared_tokenizer

    if rows_between(original, lighter) is not None:
        raise UsageError(
            "{lighter} has fewer tokens than {original}, so its answers cannot be gone on with token by token. Serve "
            "one whose vocabulary is whole.",
            lighter=lighter,
            original=original,
        )
    shared_tokenizer(model_file(original), model_file(lighter))


def _side(asked: Serving, name: str) -> Side:
    model = asked.original if name == "original" else asked.lighter
    engine: Engine
    slots = asked.slots
    trusted = asked.original if asked.trust_remote_code else None
    if is_url(model):
        urls = urls_of(model)
        slots *= len(urls)
        engine = Replicas([UrlEngine(url) for url in urls]) if urls[1:] else UrlEngine(model)
    else:
        engine = ProcessEngine(
            Opened(
                model,
                asked.device,
                asked.dtype,
                asked.threads,
                asked.slots,
                asked.most,
                trusted,
                asked.fast and name == "lighter",
                asked.draft if name == "original" else None,
                precisions=asked.precisions if name == "lighter" else (),
            )
        )
    ladder = Ladder(asked.precisions, slots) if asked.precisions and name == "lighter" else None
    return Side(name, engine, slots, asked.limits.waiting, ladder=ladder)


def fingerprint(original: str, lighter: str, fast: bool = False, precisions: tuple[int, ...] = ()) -> str:
    """Which two models these are: their names, the sizes and times of their files, and whether the lighter stays packed
    in memory, where it computes a little differently, and with which precisions."""
    digest = hashlib.sha256((b"fast" if fast else b"") + (repr(precisions).encode() if precisions else b""))
    for model in (original, lighter):
        digest.update(model.encode() if is_url(model) else str(Path(model).resolve()).encode())
        path = Path(model)
        files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
        for file in files if not is_url(model) else ():
            if file.is_file():
                about = file.stat()
                digest.update(f"{file.name} {about.st_size} {about.st_mtime_ns}".encode())
    return digest.hexdigest()
