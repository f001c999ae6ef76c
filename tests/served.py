"""The real service behind a real server, for clients: toy models, every route, a picture's folder."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """Its address; on a thread of this process."""
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def app_of(service: Any, credentials: dict[str, str] | None = None, key: str = "") -> Any:
    """All routes that clients ask. key: asked for as a bearer's, by a middleware of the test's."""
    from fastapi import FastAPI, Request
    from fastapi.responses import JSONResponse

    from promptglass.server import analyze_routes
    from promptglass.server.access import Access
    from promptglass.server.mount import mount

    app = FastAPI()
    mount(app, service, lambda: credentials or {}, set())
    app.include_router(analyze_routes.router(service, Access(lambda: credentials or {}, set())))

    @app.middleware("http")
    async def ask_for_the_key(request: Request, answer: Any) -> Any:
        if key and request.headers.get("Authorization") != f"Bearer {key}":
            return JSONResponse({"error": "the key is missing or wrong."}, 401)
        return await answer(request)

    return app
