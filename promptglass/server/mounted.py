"""All that `promptglass serve` answers but its page, below a path of a host's own server.

It is made when somebody first asks: a host that nobody asks starts no slower, and needs no FastAPI.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from ..errors import DependencyMissing, PromptglassError
from .access import Access

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import Receive, Scope, Send

    from ..service import Service

PATH = "/promptglass"
MOST_QUESTIONS = 32  # at a time: each takes a thread, of which Starlette has 40 for all that the host answers


class Mounted:
    """An ASGI app. The host's scope says where it is: root_path."""

    def __init__(self, service: Service, access: Access) -> None:
        self._service = service
        self._access = access
        self._app: FastAPI | None = None
        self._making = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        try:
            async with self._making:
                if self._app is None:
                    self._app = await asyncio.to_thread(self._made)
        except PromptglassError as error:
            status = 501 if isinstance(error, DependencyMissing) else 500
            await _say({"error": str(error)}, status, send)
            return
        await self._app(scope, receive, send)

    def _made(self) -> FastAPI:
        from .app import create_app, own_library

        return create_app(self._service, self._access, own_library(), has_page=False)


async def _say(content: Any, status: int, send: Send) -> None:
    """Without Starlette, which may be what is missing."""
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(content).encode()})
