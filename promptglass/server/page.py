"""What a browser finds at "/": the page of `promptglass ui` where gradio is here, or else a way to /docs."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import DependencyMissing
from .access import Visits
from .door import as_response

if TYPE_CHECKING:
    from ..service import Service

log = logging.getLogger("promptglass")

_PLAIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>promptglass</title>
<h1>promptglass</h1><p>The service is here. <a href="docs">What can be asked</a>, and
<a href="v1/health">what is here</a>. With <code>pip install gradio</code>, a page is here, too.</p></html>"""
_LARGEST_UPLOAD = "20mb"


class Page:
    """At "/", behind everything else. Whoever may not ask the API may not see it."""

    def __init__(self, service: Service, access: Visits, is_wanted: bool = True) -> None:
        self._access = access
        self._app = _gradio(service) if is_wanted else None
        self._visits: set[asyncio.Task[Any]] = set()
        self._is_over = False

    @contextlib.asynccontextmanager
    async def alive(self) -> AsyncIterator[None]:
        if self._app is None:
            yield
            return
        async with self._app.router.lifespan_context(self._app):
            yield

    def close(self) -> None:
        """On the event loop: whoever has it open is let go. A page keeps a connection for as long as that."""
        self._is_over = True
        for visit in self._visits:
            visit.cancel()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._access.refusal(scope["method"], Headers(scope=scope))
        if refused is not None:
            answer = as_response({"error": refused.line}, refused.status, refused.headers)
            await answer(scope, receive, send)
        elif self._app is None:
            await _plain(scope)(scope, receive, send)
        else:
            await self._visited(self._app, scope, receive, send)

    async def _visited(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        visit = asyncio.current_task()
        assert visit is not None
        has_started = is_complete = False

        async def told(message: Message) -> None:
            nonlocal has_started, is_complete
            has_started = True
            is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        self._visits.add(visit)
        try:
            await app(scope, receive, told)
        except asyncio.CancelledError:
            if not self._is_over:
                raise
            if not has_started:
                await as_response({"error": "the server stops"}, 503)(scope, receive, send)
            elif not is_complete:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._visits.discard(visit)


def _plain(scope: Scope) -> Response:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if path not in ("", "/"):
        return as_response({"detail": "Not Found"}, 404)
    if scope["method"] not in ("GET", "HEAD"):
        return as_response({"detail": "Method Not Allowed"}, 405, {"Allow": "GET, HEAD"})
    return HTMLResponse(_PLAIN, headers={"X-Frame-Options": "DENY"})


def _gradio(service: Service) -> FastAPI | None:
    try:
        from ..ui import build

        page, launching = build(service)
        import gradio

        from ..ui.gradio_versions import MAJOR, queue
    except DependencyMissing:
        return None
    except Exception:  # whatever a broken gradio raises: the API is there all the same
        log.warning("the page cannot be shown; the API is there", exc_info=True)
        return None
    if MAJOR < 5:  # which serves the files of the folder it was started in
        log.warning("the page wants gradio 5 or newer: pip install -U gradio")
        return None
    settings = {
        **launching,
        "show_error": False,
        "ssr_mode": False,
        "max_file_size": _LARGEST_UPLOAD,
        "enable_monitoring": False,
        "run_history": False,
    }
    known = inspect.signature(gradio.mount_gradio_app).parameters
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    settings = {name: value for name, value in settings.items() if name in known}
    return gradio.mount_gradio_app(app, queue(page), path="/", **settings)
