"""The gateway: routes of the OpenAI API, who may ask them, and what becomes of every answer.

Notable: only the routes of `Gateway.app` exist, and all but /health, /ready and
/dashboard, which hold no data, need a key where keys are given. What a prompt says is never logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from whet.errors import UsageError
from whet.measure.items import Item
from whet.messages import to_json
from whet.serving import asked, wire
from whet.serving.asked import Refused, Wanted
from whet.serving.compression import LEAST, Compressor, Unable, share_of
from whet.serving.dashboard import Dashboard
from whet.serving.description import description
from whet.serving.gauges import gauges
from whet.serving.guard import OWNER, Guard
from whet.serving.jobs import AskedWrongly, Fault
from whet.serving.keys import Keys
from whet.serving.manner import Drift, changes_language, refuses
from whet.serving.metrics import Metrics
from whet.serving.pairs import Pairs, text_of
from whet.serving.quality import Quality
from whet.serving.rates import Limited, Rates
from whet.serving.replay import Replay
from whet.serving.rollout import Controller
from whet.serving.saving import Worth, saved
from whet.serving.sides import Busy, GaveUp, Limits, Pair, Served, Stops, loops
from whet.serving.streams import EventStream, all_of, merged, unless_gone
from whet.serving.watch import Recent
from whet.serving.wire import Choice, Wire

_REMEMBERED = 10_000  # answers that can still be rated
_TICK = 1.0  # seconds between verdicts
COMPRESS = "x-whet-compress"  # a header: the share of a prompt to keep
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
        questions: Sequence[Item] = (),
        every: float = 2.0,
        compress: str | None = None,
        worth: Worth | None = None,
    ) -> None:
        """history: of the roll-out, oldest first. pairs: how many answers that differ are kept for the dashboard.
        escalation: fields of `measure.escalation.Choice`, and the `share` it promises. drift: of the prompts, where the
        text is known that the lighter model was made with. questions: asked of both models, one of them `every` so many
        seconds. compress: the share of prompts to keep where a request does not say. worth: of time saved."""
        self.model, self.pair, self.controller, self.keys, self.history = model, pair, controller, keys, history
        self.limits: Limits = pair.limits
        self.rates = Rates(self.limits.requests_per_minute, self.limits.tokens_per_minute, time.monotonic)
        self.metrics = Metrics()
        self.watch = {side.name: Recent(time.monotonic) for side in (pair.original, pair.lighter)}
        self.quality = Quality(pair, controller, self.metrics, Pairs(pairs, time.time))
        self.replay = Replay(questions, pair, controller, self.metrics, every, random.Random())
        self.compressor, self.compress = Compressor(pair), compress
        self.dashboard = Dashboard(self)
        self.escalation, self.drift, self.worth = escalation, drift, worth or Worth()
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
            Route("/openapi.json", self._description),
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
        self.replay.start()
        self._ticker = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            self._ticker.cancel()
            await asyncio.gather(self.quality.stop(), self.replay.stop(), self.compressor.stop())
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
        tools = all(getattr(side.engine, "tools", False) for side in self.pair.sides)
        wanted = asked.read(await self._body(request), chat, self.limits, tools)
        if wanted.model not in (None, self.model):
            raise Refused(
                404, f"There is no model {wanted.model!r} here, only {self.model!r}.", "model_not_found", "model"
            )
        headers, whole = await self._compressed(request, wanted)
        frame = Wire(chat, self.model)
        lighter = self.controller.lighter_serves(asked.user_of(request.headers.get("x-whet-user"), wanted))
        choices = [Choice(number, Served(job), request.scope.get(OWNER)) for number, job in enumerate(wanted.jobs)]
        self._rated[frame.name] = lighter
        if len(self._rated) > _REMEMBERED:
            self._rated.popitem(last=False)
        parts = merged([self._events(frame, choice, wanted, lighter) for choice in choices])
        try:
            if not wanted.stream:
                await unless_gone(request, all_of(parts))
                headers |= {"x-whet-served-by": wire.served_by(choices)} | wire.precisions(choices)
                self._judge_compression(whole, wanted)
                return JSONResponse(frame.whole(choices), headers=headers)
            first = await unless_gone(request, anext(parts))
        except BaseException:
            await parts.aclose()
            raise
        self._judge_compression(whole, wanted)
        headers |= {"x-whet-served-by": wire.served_by(choices), "cache-control": "no-store"}
        headers |= wire.precisions(choices)
        return EventStream(self._stream(frame, choices, wanted, first, parts), headers, _PING)

    async def _compressed(self, request: Request, wanted: Wanted) -> tuple[dict[str, str], list[Any]]:
        """Shorten the prompts where that is asked for: headers that say so, and the prompts as they were, [] where they
        are still so. Raises Refused."""
        try:
            share = share_of(request.headers.get(COMPRESS, self.compress))
        except ValueError:
            raise Refused(400, f"{COMPRESS} takes a share from {LEAST:g} to 1, as 0.5.", field=COMPRESS) from None
        if share is None:
            return {}, []
        whole, left, made = [job.prompt for job in wanted.jobs], 1.0, {}
        try:
            for job in wanted.jobs:
                if (name := repr(job.prompt)) not in made:
                    made[name] = await self.compressor.shorten(job.prompt, share)
                job.prompt, left = made[name]
        except Unable:
            raise Refused(400, "Nothing tells what could be left out here.", "unsupported", COMPRESS) from None
        except Fault:  # the prompt is answered as it came
            self.metrics.count("whet_faults_total", side="lighter", why="prompt not shortened")
            return {}, []
        return {"x-whet-compressed": f"{left:.2f}"}, whole

    def _judge_compression(self, whole: list[Any], wanted: Wanted) -> None:
        if whole and whole[0] != wanted.jobs[0].prompt and random.random() < self.controller.sample:
            self.compressor.judge(whole[0], wanted.jobs[0])

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
        """The events of one answer, empty where nobody reads them; what it was is kept in `choice`."""
        served, stops = choice.served, Stops(wanted.stop)
        ended = False
        try:
            async with contextlib.aclosing(self.pair.answer(served, lighter)) as pieces:
                async for piece in pieces:
                    if wanted.stream and not choice.text and (opening := frame.first(choice)):
                        yield opening
                    text = stops.add(piece.text, last=piece.end is not None)
                    told = [frame.token(choice, piece)] if piece.logprob is not None else []
                    choice.end = "stop" if stops.stopped else piece.end
                    choice.text.append(text)
                    choice.calls = piece.calls
                    choice.tokens += told
                    ended = choice.end is not None
                    if text or told or ended:
                        yield frame.chunk(choice, text, told, choice.end) if wanted.stream else b""
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
        cut = choice.end == "length" if ended and not served.faults and not served.escalated else None
        self.controller.served(lighter, error=bool(ours) or loop, hard=hard, times=times, odd=odd, cut=cut)
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

    async def _description(self, request: Request) -> Response:
        return JSONResponse(description())

    async def _health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _ready(self, request: Request) -> Response:
        ready = self.pair.original.engine.ready and not self.draining
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        return PlainTextResponse(self.metrics.text(gauges(self)), media_type="text/plain; version=0.0.4")

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
        more["saved"] = saved(*self.pair.sides, self.worth)
        more["compression"] = self.compressor.told()
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


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(wire.error("The server made a mistake.", "internal"), 500)
