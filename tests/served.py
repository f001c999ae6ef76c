"""The real service behind a real server, for clients.

    python tests/served.py

serves toy models that take their time, until its input ends; it prints its address, and /jobs lists its jobs.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
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
    """All routes that clients ask."""
    from fastapi import FastAPI

    from promptglass.server import analyze_routes, api
    from promptglass.server.access import Access

    access = Access(lambda: credentials or {}, set(), key=key)
    app = FastAPI()
    app.include_router(api.router(service, access))
    app.include_router(analyze_routes.router(service, access))
    return app


def serve() -> None:
    from fakes.word_host import WordHost

    from promptglass.service import Service

    class Slow(Service):
        def label(self, *given: Any, **more: Any) -> Any:
            def work(job: Any) -> Any:
                for _ in range(150):
                    job.check()
                    time.sleep(0.01)
                return super(Slow, self).label(*given, **more).wait()

            return self.jobs.start("slow", work)

    with tempfile.TemporaryDirectory() as root:
        host = WordHost(roots=[root], endpoints=["eyes"])
        host.encoder.is_blind = True  # it knows painted pictures only
        service = Slow(host)
        app = app_of(service)
        app.get("/jobs")(lambda: [job.state for job in service.jobs.of("slow")])
        with running(app) as address:
            print(address, flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    serve()
