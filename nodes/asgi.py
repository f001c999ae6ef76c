"""An ASGI app on ComfyUI's server, which is aiohttp's.

Not by aiohttp-asgi: its `receive` never waits, and one event stream of Starlette's froze the whole host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiohttp import web

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Coroutine[Any, Any, None]]

# Of one connection: aiohttp says these itself.
_HOP_BY_HOP = frozenset((b"connection", b"transfer-encoding", b"keep-alive"))
_EVERY_S = 0.25


async def answer(app: App, request: web.Request, path: str) -> web.StreamResponse:
    """What the app answers. path: where it is mounted; the host serves the same below /api."""
    from aiohttp import web

    response: web.StreamResponse | None = None
    is_gone = asyncio.Event()
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:  # only that somebody leaves can follow
            await is_gone.wait()
            return {"type": "http.disconnect"}
        try:
            piece = await request.content.readany()
        except OSError:  # gone in the middle of it
            is_read = True
            return {"type": "http.disconnect"}
        is_read = request.content.at_eof()
        return {"type": "http.request", "body": piece, "more_body": not is_read}

    async def send(message: Message) -> None:
        nonlocal response
        if message["type"] == "http.response.start":
            response = web.StreamResponse(status=message["status"])
            for name, value in message.get("headers", ()):
                if name.lower() not in _HOP_BY_HOP:
                    response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
            await response.prepare(request)
        elif response is not None:
            if message.get("body") and request.method != "HEAD":  # which aiohttp would send
                await response.write(message["body"])
            if not message.get("more_body"):
                await response.write_eof()

    answering = asyncio.ensure_future(app(_scope(request, path), receive, send))
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait([answering, leaving], return_when=asyncio.FIRST_COMPLETED)
        is_gone.set()
        await answering
    except Exception:  # Starlette has a name of its own for a send that fails
        if not _is_gone(request):
            raise
    finally:
        is_gone.set()
        leaving.cancel()
        answering.cancel()  # where the host ends us
    return response if response is not None else web.Response(status=500)


async def _left(request: web.Request) -> None:
    """aiohttp tells a handler that somebody has left only when it writes."""
    while not _is_gone(request):
        await asyncio.sleep(_EVERY_S)


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _scope(request: web.Request, path: str) -> Message:
    root = request.path[: request.path.index(path) + len(path)]
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return {
        "type": "http",
        # From 2.4 on, `send` may raise an OSError where nobody is there any more.
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.scheme,
        "path": request.path,
        "raw_path": request.raw_path.partition("?")[0].encode(),
        "root_path": root,
        "query_string": request.raw_path.partition("?")[2].encode(),
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": (peer[0], peer[1]) if peer else None,
        "server": None,  # the Host header may be anything: who needs it reads it there
    }
