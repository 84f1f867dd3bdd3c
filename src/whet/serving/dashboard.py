"""`/dashboard`: how the roll-out goes, for people.

Notable: the page holds no data and needs no key; what it shows comes as events from `/admin/events`, which the admin's
key opens. It asks no other server, and its Content-Security-Policy lets run only the one script that is in it, which
may set text and nothing that is read as HTML (`require-trusted-types-for`).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
import time
from collections.abc import AsyncGenerator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from whet.messages import Message, in_language
from whet.serving import wire
from whet.serving.boundaries import PARTS
from whet.serving.evidence import level
from whet.serving.rollout import PROVEN, Controller
from whet.serving.saving import saved
from whet.serving.sides import Side
from whet.serving.streams import EventStream
from whet.serving.watch import CELL, Recent

if TYPE_CHECKING:
    from whet.serving.gateway import Gateway

_HERE = Path(__file__).parent
_EVERY = 2.0  # seconds between events
_LOOK = 0.25  # seconds between looks whether the server ends
_WATCHERS = 8
_EVENTS = 100  # of the history
_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Dashboard:
    """The page and its events."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.watchers = 0

    def routes(self) -> list[Route]:
        return [Route("/dashboard", self._page), Route("/admin/events", self._events)]

    async def _page(self, request: Request) -> Response:
        html, policy = page()
        return Response(html, headers={**_HEADERS, "content-security-policy": policy}, media_type="text/html")

    async def _events(self, request: Request) -> Response:
        if self.watchers >= _WATCHERS:
            said = wire.error(f"{_WATCHERS} pages watch already. Close one.", "busy")
            return JSONResponse(said, 429, {"Retry-After": "10"})
        return EventStream(self._told(), {"cache-control": "no-store", "x-content-type-options": "nosniff"}, 15.0)

    async def _told(self) -> AsyncGenerator[bytes, None]:
        self.watchers += 1
        try:
            while not self.gateway.draining:
                yield b"data: " + json.dumps(snapshot(self.gateway), ensure_ascii=False).encode() + b"\n\n"
                until = time.monotonic() + _EVERY
                while time.monotonic() < until and not self.gateway.draining:
                    await asyncio.sleep(_LOOK)
        finally:
            self.watchers -= 1


@cache
def page() -> tuple[bytes, str]:
    """The page, and the policy under which its style and its script may run."""
    style, script = ((_HERE / f"dashboard.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    html = (_HERE / "dashboard.html").read_text(encoding="utf-8")
    html = html.replace("/* style */", style).replace("/* script */", script)
    policy = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "connect-src": "'self'",
        "img-src": "data:",  # the icon, which is empty
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    return html.encode(), "; ".join(f"{name} {value}" for name, value in policy.items())


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def snapshot(gateway: Gateway) -> dict[str, Any]:
    """Everything that the page shows, with sentences in both languages."""
    controller = gateway.controller
    report, rules, step = controller.report(), controller.rules, controller.step
    sides = {"original": gateway.pair.original, "lighter": gateway.pair.lighter}
    needs = {
        "seconds": rules.hold,
        "requests": rules.requests if controller.state.stage else 0,
        "pairs": rules.pairs if not controller.state.stage else max(1, rules.pairs // 10),
        "questions": controller.questions * len(controller.skills),
    }
    return _both(
        {
            **report,
            "model": gateway.model,
            "draft": gateway.draft(),
            "escalation": gateway.escalations(),
            "drift": gateway.drift.message() if gateway.drift is not None else None,
            "saved": saved(*gateway.pair.sides, gateway.worth),
            "now": time.time(),
            "step": {**report["step"], "start": step.start, "needs": needs},
            "skills": skills(controller),
            "bounds": {"agreement": rules.agreement, "least": rules.agreement - rules.margin},
            "agreements": list(gateway.quality.agreements),
            "evidence": evidence(controller),
            "cell": CELL,
            "sides": {name: _side(side, gateway.watch[name]) for name, side in sides.items()},
            "history": history(gateway.history()[-_EVENTS:], rules.steps),
            "kept": gateway.quality.pairs.most,
            "pairs_kept": [asdict(pair) for pair in gateway.quality.pairs.told()],
        }
    )


def _side(side: Side, recent: Recent) -> dict[str, Any]:
    return {**recent.told(), "queue": side.queued, "running": side.busy, "ready": bool(side.engine.ready)}


def skills(controller: Controller) -> list[dict[str, Any]]:
    """What both models answered rightly, and how near each skill is to stopping the roll-out, 0 to 1."""
    whole, part = controller.whole.skills, PARTS["skills"]
    bound = len(whole.found) / (level(controller.rules.error, 1) * part)
    return [{**one, "share": _reached(whole.found[one["skill"]].evidence, bound)} for one in whole.told()]


def evidence(controller: Controller) -> list[dict[str, Any]]:
    """How far each test has come to its boundary: the logarithm of a bet's wealth over that of the boundary, 0 to 1."""
    error, step = controller.rules.error, controller.step
    made = []
    unused = {"skills": not controller.skills, "harmful": controller.rules.harmful is None}
    for name, part in PARTS.items():
        if unused.get(name):
            continue
        shares = [_reached(getattr(controller.whole, name).evidence, 1 / (level(error, 1) * part))]
        if step.start > 1:
            shares.append(_reached(getattr(step.tests, name).evidence, 1 / (level(error, step.start) * part)))
        made.append({"name": name, "stops": True, "share": max(shares)})
    made.append({"name": "agreement", "stops": False, "share": _reached(controller.proof.evidence, PROVEN)})
    if controller.state.stage:
        proven = _reached(step.tests.errors.proven, PROVEN)
        made.append({"name": "errors", "stops": False, "share": proven})
    return made


def _reached(wealth: float, bound: float) -> float:
    return min(1.0, max(0.0, math.log(wealth) / math.log(bound))) if wealth > 0 else 0.0


def history(rows: list[dict[str, Any]], steps: tuple[float, ...]) -> list[dict[str, Any]]:
    """What happened, with the weight after it."""
    made = []
    for row in rows:
        stage = row["stage"] if row["status"] in ("running", "held") else 0
        weight = steps[stage - 1] if 0 < stage <= len(steps) else 0.0
        made.append({**row, "reason": Message.read(row["reason"]), "weight": weight})
    return made


def _both(value: Any) -> Any:
    """`value` with every message in it in both languages."""
    if isinstance(value, Message):
        return {"en": str(value), "ko": in_language(value, "ko")}
    if isinstance(value, dict):
        return {key: _both(one) for key, one in value.items()}
    return [_both(one) for one in value] if isinstance(value, list | tuple) else value
