"""The gateway: routes of the OpenAI API, who may ask them, and what becomes of every answer.

Notable: only the routes of `Gateway.app` exist, and all but /health, /ready and
/dashboard, which hold no data, need a key where keys are given. What a prompt says is never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from typing import Any, get_args

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from whet.errors import UsageError
from whet.messages import to_json
from whet.serving import asked, wire
from whet.serving.asked import Refused, Wanted
from whet.serving.dashboard import Dashboard
from whet.serving.guard import OWNER, Guard
from whet.serving.jobs import AskedWrongly
from whet.serving.keys import Keys
from whet.serving.manner import Drift, changes_language, refuses
from whet.serving.metrics import Metrics
from whet.serving.pairs import Pairs, text_of
from whet.serving.quality import Quality
from whet.serving.rates import Limited, Rates
from whet.serving.rollout import Controller, Verdict
from whet.serving.sides import Busy, GaveUp, Limits, Pair, Served, Stops, loops
from whet.serving.streams import EventStream, merged, unless_gone
from whet.serving.watch import Recent
from whet.serving.wire import Choice, Wire

_REMEMBERED = 10_000  # answers that can still be rated
_TICK = 1.0  # seconds between verdicts
_PING = 15.0  # seconds of silence after which a comment is sent


class Gateway:
    """Everything that requests need, and the Starlette application that they come to."""

    def __init__(
        self,
        model: str,
        pair: Pair,
        controller: Controller,
        keys: Keys,
        history: Callable[[], list[Any]] = list,
        pairs: int = 0,
        escalation: dict[str, Any] | None = None,
        drift: Drift | None = None,
    ) -> None:
        """history: of the roll-out, oldest first. pairs: how many answers that differ are kept for the dashboard.
        escalation: fields of `measure.escalation.Choice`, and the `share` it promises. drift: of the prompts,
        where the text is known that the lighter model was made with."""
        self.model, self.pair, self.controller, self.keys, self.history = model, pair, controller, keys, history
        self.limits: Limits = pair.limits
        self.rates = Rates(self.limits.requests_per_minute, self.limits.tokens_per_minute, time.monotonic)
        self.metrics = Metrics()
        self.watch = {side.name: Recent(time.monotonic) for side in (pair.original, pair.lighter)}
        self.quality = Quality(pair, controller, self.metrics, Pairs(pairs, time.time))
        self.dashboard = Dashboard(self)
        self.escalation, self.drift = escalation, drift
        self.escalated = self.begun = 0  # answers that the lighter side gave up for doubt, and all that it began
        self.draining = False
        self._rated: OrderedDict[str, bool] = OrderedDict()
        self._created = int(time.time())
        self._ticker: asyncio.Task[None] | None = None

    def app(self) -> Any:
        """The application, with its guard before it."""
        routes = [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completion, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/health", self._health),
            Route("/ready", self._ready),
            Route("/metrics", self._metrics),
            Route("/feedback", self._feedback, methods=["POST"]),
            Route("/admin/rollout", self._status),
            Route("/admin/rollout/{action}", self._act, methods=["POST"]),
            *self.dashboard.routes(),
        ]
        app = Starlette(routes=routes, lifespan=self._lifespan, exception_handlers={Exception: _failed})
        app.router.redirect_slashes = False  # it would send to whatever the header Host says
        return Guard(app, self.keys, self.metrics)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncGenerator[None, None]:
        self.quality.start()
        self._ticker = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            self._ticker.cancel()
            await self.quality.stop()
            await asyncio.gather(self.pair.lighter.engine.stop(), self.pair.original.engine.stop())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            with contextlib.suppress(OSError):  # a state that cannot be stored is not applied, and tried again
                self.controller.tick()

    # -- answers -----------------------------------------------------------------------------------------------------

    async def _chat(self, request: Request) -> Response:
        return await self._told(request, chat=True)

    async def _completion(self, request: Request) -> Response:
        return await self._told(request, chat=False)

    async def _told(self, request: Request, chat: bool) -> Response:
        """An answer, or the reason why there is none."""
        try:
            if owner := request.scope.get(OWNER):
                self.rates.admit(owner)
            return await self._answer(request, chat)
        except Refused as error:
            status, said = error.status, wire.error(str(error), error.code, error.field)
        except AskedWrongly as error:
            status, said = 400, wire.error(str(error), "invalid_request")
        except Busy as error:
            status, said = 429, wire.error(f"All places are taken. Come again in {error.seconds} s.", "busy")
            return self._refusal(status, said, {"Retry-After": str(error.seconds)})
        except Limited as error:
            told = f"This key has had its {error.what} of the minute. Come again in {error.seconds} s."
            return self._refusal(429, wire.error(told, "rate_limit_exceeded"), {"Retry-After": str(error.seconds)})
        except GaveUp as error:
            status, said = 503, wire.error(f"No model answers ({error}). Try again later.", "unavailable")
            return self._refusal(status, said, {"Retry-After": "5"})
        except ClientDisconnect:
            return Response(status_code=499)
        return self._refusal(status, said, {})

    def _refusal(self, status: int, said: dict[str, Any], headers: dict[str, str]) -> Response:
        self.metrics.count("whet_refused_total", status=str(status))
        return JSONResponse(said, status, headers)

    async def _answer(self, request: Request, chat: bool) -> Response:
        wanted = asked.read(await self._body(request), chat, self.limits)
        if wanted.model not in (None, self.model):
            raise Refused(
                404, f"There is no model {wanted.model!r} here, only {self.model!r}.", "model_not_found", "model"
            )
        frame = Wire(chat, self.model)
        lighter = self.controller.lighter_serves(self._user(request, wanted))
        choices = [Choice(number, Served(job), request.scope.get(OWNER)) for number, job in enumerate(wanted.jobs)]
        self._rated[frame.name] = lighter
        if len(self._rated) > _REMEMBERED:
            self._rated.popitem(last=False)
        parts = merged([self._events(frame, choice, wanted, lighter) for choice in choices])
        try:
            first = await unless_gone(request, anext(parts))
        except BaseException:
            await parts.aclose()
            raise
        if wanted.stream:
            headers = {"x-whet-served-by": wire.served_by(choices), "cache-control": "no-store"}
            headers |= wire.precisions(choices)
            return EventStream(self._stream(frame, choices, wanted, first, parts), headers, _PING)
        async with contextlib.aclosing(parts):
            while await unless_gone(request, anext(parts, None)) is not None:
                pass
        headers = {"x-whet-served-by": wire.served_by(choices)} | wire.precisions(choices)
        return JSONResponse(frame.whole(choices), headers=headers)

    async def _stream(
        self, frame: Wire, choices: list[Choice], wanted: Wanted, first: bytes, parts: AsyncGenerator[bytes, None]
    ) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(parts):
            yield first
            try:
                async for part in parts:
                    yield part
            except (Busy, GaveUp, AskedWrongly) as error:
                yield wire.event(wire.error(f"The answer could not be ended ({error}).", "unavailable"))
                return
        if wanted.usage:
            yield frame.usage_event(choices)
        yield wire.DONE

    async def _events(self, frame: Wire, choice: Choice, wanted: Wanted, lighter: bool) -> AsyncGenerator[bytes, None]:
        """The events of one answer; what it was is kept in `choice`."""
        served, stops = choice.served, Stops(wanted.stop)
        ended = False
        try:
            async with contextlib.aclosing(self.pair.answer(served, lighter)) as pieces:
                async for piece in pieces:
                    if not choice.text and (opening := frame.first(choice)):
                        yield opening
                    text = stops.add(piece.text, last=piece.end is not None)
                    told = [frame.token(choice, piece)] if piece.logprob is not None else []
                    choice.end = "stop" if stops.stopped else piece.end
                    choice.text.append(text)
                    choice.tokens += told
                    ended = choice.end is not None
                    if text or told or ended:
                        yield frame.chunk(choice, text, told, choice.end)
                    if ended:
                        break
        finally:
            self._over(choice, lighter, ended)

    def _over(self, choice: Choice, lighter: bool, ended: bool) -> None:
        """Tell the roll-out what became of an answer."""
        served = choice.served
        side = "lighter" if lighter else "original"
        if choice.owner:
            self.rates.spend(choice.owner, served.job.prompt_tokens + served.count)
        ours = [why for name, why in served.faults if name == side]
        hard = bool(ours) and ours[0] != "out of time"
        for name, why in served.faults:
            self.metrics.count("whet_faults_total", side=name, why=why)
        if lighter and ours:
            self.metrics.count("whet_failovers_total")
        if served.escalated:
            self.metrics.count("whet_escalations_total")
            self.escalated += 1
        self.begun += lighter and ended
        for share in served.shares:
            self.metrics.count("whet_tokens_total", share.end - share.start, side=share.side)
        if not ended and not served.faults:  # refused, or the client is gone
            self.metrics.count("whet_requests_total", side=side, outcome="not ended")
            return
        loop = loops(served.job.sent)
        outcome = "fault" if ours else "loop" if loop else "ok"
        self.metrics.count("whet_requests_total", side=side, outcome=outcome)
        times = served.times if not served.faults and not served.escalated else None
        if times is not None:
            self.metrics.time("gen_ai_server_time_to_first_token_seconds", times[0], side=side)
            self.metrics.time("gen_ai_server_time_per_output_token_seconds", times[1], side=side)
            seconds = time.monotonic() - served.began
            self.metrics.time("gen_ai_server_request_duration_seconds", seconds, side=side)
        odd = self._odd(served, side) if ended and not served.faults and not served.escalated else None
        self.controller.served(lighter, error=bool(ours) or loop, hard=hard, times=times, odd=odd)
        self.watch[side].add(outcome != "ok", served.count, times)
        if ended and not served.faults:
            self.quality.offer(served.job, lighter)

    def _odd(self, served: Served, side: str) -> bool:
        """Whether an answer refuses, or is in another language than its prompt."""
        prompt, text = text_of(served.job.prompt), served.job.text
        if self.drift is not None:
            self.drift.add(prompt)
        for what, found in (("refuses", refuses(text)), ("language", changes_language(prompt, text))):
            if found:
                self.metrics.count("whet_odd_answers_total", side=side, what=what)
                return True
        return False

    def _user(self, request: Request, wanted: Wanted) -> str:
        """Whom an answer is for: a header, a field of the request, else the conversation by how it begins."""
        if key := request.headers.get("x-whet-user") or wanted.key:
            return f"user {key}"
        prompt = wanted.jobs[0].prompt
        if wanted.chat and isinstance(prompt, list):
            return f"talk {_first_turn(prompt)}"
        return secrets.token_hex(8)

    async def _body(self, request: Request) -> bytes:
        """The body, if it is JSON, small enough and comes in time. Raises Refused."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise Refused(415, "The body must be application/json.")
        body = bytearray()
        try:
            async with asyncio.timeout(self.limits.header):
                async for part in request.stream():
                    body += part
                    if len(body) > self.limits.body:
                        raise Refused(413, f"The body is larger than {self.limits.body} bytes.", "too_long")
        except TimeoutError:
            raise Refused(408, "The body took too long to come.") from None
        return bytes(body)

    # -- about itself ------------------------------------------------------------------------------------------------

    async def _models(self, request: Request) -> Response:
        entry = {"id": self.model, "object": "model", "created": self._created, "owned_by": "whet"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        ready = self.pair.original.engine.ready and not self.draining
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        report = self.controller.report()
        gauges: list[tuple[str, str, dict[str, str], float]] = [
            ("whet_rollout_weight", "Percent of users that the lighter model serves.", {}, report["weight"]),
            ("whet_rollout_stage", "Number of the step; 0 is Shadow.", {}, report["stage"]),
            ("whet_rollout_stopped", "1 where it failed, was aborted or is unknown.", {}, _stopped(report)),
        ]
        for verdict in get_args(Verdict):
            now = float(report["verdict"] == verdict)
            gauges.append(("whet_verdict", "1 for the verdict now.", {"verdict": verdict}, now))
        if report["agreement"] is not None:
            gauges.append(("whet_agreement", "Mean agreement with the original.", {}, report["agreement"]))
        if losses := self.quality.losses:
            gauges.append(("whet_divergence_nats", "Nats a token.", {}, sum(losses) / len(losses)))
        for name, told, read in (
            ("whet_queue", "Requests that wait for a place.", lambda side: side.queued),
            ("whet_running", "Answers that are being written.", lambda side: side.busy),
            ("whet_ready", "Whether the engine is ready.", lambda side: side.engine.ready),
        ):
            gauges += [(name, told, {"side": s.name}, float(read(s))) for s in (self.pair.original, self.pair.lighter)]
        if self.escalation is not None:
            gauges += [
                ("whet_escalation_doubt", "Doubt at which the original goes on.", {}, self.escalation["doubt"]),
                ("whet_escalation_limit", "Upper limit of harmful flips, 95 %.", {}, self.escalation["limit"]),
            ]
        if self.drift is not None:
            told = self.drift.told()["distance"]
            gauges.append(("whet_prompt_drift", "How far prompts are from the text, 0 to 1.", {}, told))
        if (ladder := self.pair.lighter.ladder) is not None:
            gauges.append(("whet_precision", "Bits of the next answer of the lighter model.", {}, ladder.now))
            for bits, mean in self.quality.by_precision().items():
                gauges.append(("whet_agreement_at", "Mean agreement at so many bits.", {"bits": str(bits)}, mean))
        draft = self.draft()
        if draft is not None:
            gauges += [
                ("whet_draft_speedup", "Times as fast with the draft, measured at the start.", {}, draft["times"]),
                ("whet_draft_tokens", "Tokens that the draft guessed.", {"outcome": "proposed"}, draft["proposed"]),
                ("whet_draft_tokens", "Tokens that the draft guessed.", {"outcome": "kept"}, draft["kept"]),
            ]
        return PlainTextResponse(self.metrics.text(gauges), media_type="text/plain; version=0.0.4")

    def draft(self) -> dict[str, Any] | None:
        """What the original's draft is worth; None where it has none. times: as fast as without, measured at the start;
        proposed, kept: tokens since then; failed: why it is done without."""
        engine = self.pair.original.engine
        faster, done = getattr(engine, "faster", None), getattr(engine, "draft", {})
        if not faster:
            return None
        told = {"times": faster["drafted"] / faster["alone"], "length": faster["length"]}
        return told | {"proposed": done.get("proposed", 0), "kept": done.get("kept", 0), "failed": done.get("failed")}

    def escalations(self) -> dict[str, Any] | None:
        """What was chosen, and how many answers the lighter model began and gave up since; None where it never does."""
        if self.escalation is None:
            return None
        return {**self.escalation, "began": self.begun, "gave_up": self.escalated}

    async def _feedback(self, request: Request) -> Response:
        try:
            found = asked.read_feedback(await self._body(request))
        except Refused as error:
            return self._refusal(error.status, wire.error(str(error), error.code, error.field), {})
        lighter = self._rated.pop(found.id, None)
        if lighter is None:
            return self._refusal(404, wire.error("There is no such answer, or it is rated already.", "not_found"), {})
        self.controller.rated(lighter, down=found.rating == "down")
        return JSONResponse({"id": found.id, "rating": found.rating})

    async def _status(self, request: Request) -> Response:
        losses = self.quality.losses
        more: dict[str, Any] = {
            "model": self.model,
            "history": self.history(),
            "nats": sum(losses) / len(losses) if losses else None,
        }
        more |= {"draft": self.draft(), "escalation": self.escalations()}
        more["drift"] = self.drift.message() if self.drift is not None else None
        return JSONResponse(to_json({**self.controller.report(), **more}))

    async def _act(self, request: Request) -> Response:
        try:
            self.controller.act(request.path_params["action"])
        except UsageError as error:
            return JSONResponse({"refused": to_json(error.message)}, 409)
        except OSError as error:
            return JSONResponse({"refused": f"The state cannot be stored, so nothing changed: {error}"}, 507)
        return await self._status(request)


def _first_turn(prompt: list[Any]) -> str:
    """The turn that a conversation keeps however long it gets: the user's first."""
    return str(next((turn for turn in prompt if turn["role"] == "user"), prompt[0]))


def _stopped(report: dict[str, Any]) -> float:
    return float(report["status"] not in ("running", "held"))


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(wire.error("The server made a mistake.", "internal"), 500)
