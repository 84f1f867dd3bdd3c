"""What stands before every route: who asks, and by which name this machine was called."""

from __future__ import annotations

from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response

from whet.serving import wire
from whet.serving.keys import LOOPBACK, Keys
from whet.serving.metrics import Metrics

_OPEN = ("/health", "/ready")
_PAGE = "/dashboard"  # holds no data, and a browser that opens a page sends no key


OWNER = "whet.owner"  # in a request's scope: the name of its key


class Guard:
    """An ASGI application around another: refuses before a body is read."""

    def __init__(self, app: Any, keys: Keys, metrics: Metrics) -> None:
        self.app, self.keys, self.metrics = app, keys, metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            refused = self._refused(scope["path"], Headers(scope=scope), scope)
            if refused is not None:
                self.metrics.count("whet_refused_total", status=str(refused.status_code))
                await refused(scope, receive, send)
                return
        elif scope["type"] != "lifespan":
            await send({"type": "websocket.close", "code": 1008})
            return
        await self.app(scope, receive, send)

    def _refused(self, path: str, headers: Headers, scope: Any) -> Response | None:
        if path in _OPEN:
            return None
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else ""
        admin = self.keys.is_admin(key)
        if path.startswith("/admin") and not admin:
            return _unknown("This needs the admin's key.")
        if self.keys.users:
            if path == _PAGE:
                return None
            scope[OWNER] = self.keys.user(key)
            allowed = scope[OWNER] is not None or (admin and path == "/metrics") or path.startswith("/admin")
            return None if allowed else _unknown("This needs a key: Authorization: Bearer KEY.")
        # without keys only this machine may ask, and no web page that calls it by another name
        host = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if host.strip("[]") not in LOOPBACK:
            return JSONResponse(wire.error("This server answers to localhost alone.", "forbidden"), 403)
        return None


def _unknown(message: str) -> Response:
    return JSONResponse(wire.error(message, "invalid_api_key"), 401, {"WWW-Authenticate": "Bearer"})
