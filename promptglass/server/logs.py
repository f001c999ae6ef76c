"""Which request a line of the log belongs to, and a line for each request. Never a body, a query, a key."""

from __future__ import annotations

import logging
import re
import time
import uuid
from contextvars import ContextVar
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import visible

log = logging.getLogger("promptglass")

HEADER = "X-Request-ID"
_SANE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_id: ContextVar[str] = ContextVar("promptglass_request", default="")
_QUIET = frozenset(("/healthz",))  # asked every few seconds by whatever watches the service


class Requests:
    """Around an app: every request gets a name, taken from its X-Request-ID where that is sane."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        id_ = given if _SANE.fullmatch(given) else uuid.uuid4().hex[:16]
        began, status = time.monotonic(), 0

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = id_
            await send(message)

        token = _id.set(id_)
        try:
            await self._app(scope, receive, told)
        finally:
            level = logging.DEBUG if scope["path"] in _QUIET else logging.INFO
            took_ms = (time.monotonic() - began) * 1000
            path = visible(scope["path"])[:200]
            log.log(level, "%s %s %s %.0f ms", scope["method"], path, status or "not answered", took_ms)
            _id.reset(token)


class OfRequest(logging.Filter):
    """For the log: puts a request's name before what is said on its behalf."""

    def filter(self, record: logging.LogRecord) -> bool:
        if name := _id.get():
            record.msg = f"[{name}] {record.msg}"
        return True


def described() -> dict[str, Any]:
    """For /docs."""
    return {HEADER: {"description": "Names the request in the log.", "schema": {"type": "string"}}}
