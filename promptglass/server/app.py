"""promptglass as a server of its own: one app with everything that it answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from .. import __version__
from ..errors import DependencyMissing, PromptglassError
from .access import Access, Visits

if TYPE_CHECKING:
    from fastapi import APIRouter, FastAPI

    from ..library import Library
    from ..service import Service

log = logging.getLogger("promptglass")

STOPS_WITHIN_S = 30.0
_DESCRIPTION = """\
From a picture to a prompt. Pictures go in as base64; an error is one line with a status of its own, and 429
means: ask again after as many seconds as Retry-After says. A request that is broken off is not worked on.

With a key: `Authorization: Bearer KEY`, `X-API-Key: KEY`, or HTTP Basic with the key for the password."""
# The threads that wait for answers, beside those of the questions that may be under way.
_SPARE_THREADS = 24


def create_app(
    service: Service,
    access: Access,
    library: Library | None = None,
    has_page: bool = True,
    stops_within_s: float = STOPS_WITHIN_S,
) -> FastAPI:
    """access: asked for every route but /healthz. library: images and prompts of it at /api/v1.

    stops_within_s: when the server ends, jobs are waited for that long, and then stopped.
    Raises DependencyMissing.
    """
    try:
        from fastapi import FastAPI
        from starlette.middleware.cors import CORSMiddleware

        from .docs import add_docs
        from .logs import HEADER, Requests
        from .page import Page
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette"):
            raise
        raise DependencyMissing("the service", "fastapi", "uvicorn", "python-multipart") from error
    visits = Visits.of(access)
    page = Page(service, visits, has_page)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        _make_room(access)
        async with page.alive():
            yield
            await asyncio.to_thread(service.jobs.wind_up, stops_within_s)

    app = FastAPI(
        title="promptglass",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.router.redirect_slashes = False  # to wherever the asker's Host header says
    for router in _routers(service, access, library):
        app.include_router(router)
    add_docs(app, visits)
    app.mount("/", page)
    app.state.page = page
    if access.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[*access.cors],
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key", HEADER, "Last-Event-ID"],
            expose_headers=[HEADER, "Retry-After"],
        )
    app.add_middleware(Requests)
    return app


def own_library() -> Library | None:
    """The user's; None where it cannot be used, which the log says."""
    from ..library import Library

    try:
        return Library()
    except PromptglassError as error:
        log.warning("no library: %s", error)
        return None


def _make_room(access: Access) -> None:
    """Every question that waits for the models holds a thread; others must not wait for one."""
    from anyio.to_thread import current_default_thread_limiter

    if access.room.most is not None:
        limiter = current_default_thread_limiter()
        limiter.total_tokens = max(limiter.total_tokens, access.room.most + _SPARE_THREADS)


def _routers(service: Service, access: Access, library: Library | None) -> Iterator[APIRouter]:
    from . import analyze_routes, api, classify_routes, interrogator_ext, sdapi

    yield api.router(service, access, "/v1")
    yield api.router(service, access)
    yield interrogator_ext.router(service, access)
    yield sdapi.router(service, access)
    yield analyze_routes.router(service, access)
    yield classify_routes.router(service, access)
    if library is not None:
        from . import library_routes

        yield library_routes.router(service, access, library)
