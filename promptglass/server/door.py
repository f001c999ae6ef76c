"""The door that all routes share: who may ask, how long a question may be, what becomes of errors.

It stands before FastAPI's own handling, which would read and parse the body of a stranger, too; and before
the host's, which hands the text of any exception to whoever asked.

| error                                          | status |
|------------------------------------------------|--------|
| InputError, ImageError, SidecarError, …        | 400    |
| no name and password, or wrong ones            | 401    |
| another site; a name that is not the server's  | 403    |
| NotFound: no such job                          | 404    |
| ModelError, WeightsMissing, CaptionerMissing   | 409    |
| Stopped                                        | 409    |
| TooLarge                                       | 413    |
| a question that is not JSON                    | 415    |
| a field of a wrong type                        | 422    |
| Busy                                           | 429    |
| anything else                                  | 500    |
| DependencyMissing, a package that is not here  | 501    |
| EndpointError                                  | 502    |
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..errors import (
    Busy,
    DependencyMissing,
    EndpointError,
    InputError,
    ModelError,
    PromptglassError,
    Stopped,
    visible,
)
from ..jobs import Job
from .access import Access
from .uploads import MOST_BYTES_OF_QUESTION, TooLarge

log = logging.getLogger("promptglass")

UNEXPECTED = "promptglass failed. The server's console says where; please report it."
_MOST_CHARS = 1000  # of an error: it may quote what was sent
_RETRY_AFTER_S = 5
_EVERY_S = 0.25
_IS_GONE = "promptglass.is_gone"  # in a request's scope


class NotFound(InputError):
    """There is no such thing here, or no more."""


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, 404),
    (TooLarge, 413),
    (InputError, 400),
    (ModelError, 409),
    (Stopped, 409),
    (Busy, 429),
    (DependencyMissing, 501),
    (EndpointError, 502),
)

Shape = Callable[[str], dict[str, Any]]  # the JSON that says an error


def door(access: Access, shape: Shape = lambda line: {"error": line}) -> type[APIRoute]:
    """A class of routes."""

    class Door(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer = super().get_route_handler()

            async def handle(request: Request) -> Response:
                status, line, headers = 0, "", {}
                try:
                    refused = access.refusal(request.method, request.headers)
                    if refused is None:
                        with access.room.place(request.method, request.headers):
                            return await _answered(answer, request)
                    status, line, headers = refused.status, refused.line, {**refused.headers}
                except Exception as error:
                    status, line = said(error)
                    if status == 500:
                        log.exception("%s %s failed", request.method, visible(request.url.path))
                if status == 429:
                    headers = {"Retry-After": str(_RETRY_AFTER_S)}
                return as_response(shape(line), status, headers)

            return handle

    return Door


def said(error: Exception) -> tuple[int, str]:
    """Status and one line; of what nobody expected the line says nothing."""
    if isinstance(error, RequestValidationError):
        return 422, _one_line("; ".join(map(_wrong_field, error.errors())))
    if isinstance(error, HTTPException):  # FastAPI's own, of a body that is no JSON
        return error.status_code, _one_line(str(error.detail))
    if isinstance(error, ClientDisconnect):
        return 400, "the question broke off."
    if isinstance(error, ImportError):
        return 501, f"the package {_one_line(error.name or '')} is missing or broken. Install it again."
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    is_ours = isinstance(error, PromptglassError)
    return status, _one_line(str(error)) if is_ours else UNEXPECTED


def as_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in ASCII: a text may hold half a character, which UTF-8 cannot."""
    return Response(
        json.dumps(content),
        status,
        {"Cache-Control": "no-store", **(headers or {})},
        media_type="application/json",
    )


def result_of(job: Job, request: Request) -> Any:
    """What a job ends with, for a handler on a thread; whoever asked and is gone stops it.

    Raises what the work raised.
    """
    while not job.has_ended(_EVERY_S):
        if request.scope[_IS_GONE].is_set():
            job.stop()  # which may take a while, where a host's lock is waited for: nobody needs this thread
            raise Stopped("whoever asked is gone")
    return job.wait()


async def _answered(answer: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    asked = _Asked(request.scope, request.receive)
    await asked.read()
    # Not Request.is_disconnected: behind a middleware of Starlette's, as hosts have one, it never is.
    watching = asyncio.create_task(asked.watch())
    try:
        return await answer(asked)
    finally:
        watching.cancel()
        await asyncio.wait([watching])  # two must not listen at once, and a stream of events will


class _Asked(Request):
    """A request whose body is here, and no longer than it may be."""

    async def read(self) -> None:
        announced = self.headers.get("Content-Length", "")
        received = bytearray()
        if announced.isdigit():
            _admit(int(announced[:18]))
        async for chunk in self.stream():
            received += chunk
            _admit(len(received))
        self._body = bytes(received)  # where Request.body() looks first
        self.scope[_IS_GONE] = threading.Event()

    async def watch(self) -> None:
        """Until whoever asked is gone."""
        while (await self.receive())["type"] != "http.disconnect":
            pass
        self.scope[_IS_GONE].set()


def _admit(size_bytes: int) -> None:
    if size_bytes > MOST_BYTES_OF_QUESTION:
        raise TooLarge(f"the question is longer than {MOST_BYTES_OF_QUESTION // 1024**2} MB. Send less.")


def _wrong_field(error: Mapping[str, Any]) -> str:
    if "json" in error.get("type", ""):  # "json_invalid", of pydantic 1 "value_error.jsondecode"
        return "the question is not JSON"
    place = ".".join(str(part) for part in error.get("loc", ())[1:])
    return f"{place or 'the question'}: {error.get('msg', 'wrong')}"


def _one_line(text: str) -> str:
    line = visible(text)
    return line if len(line) <= _MOST_CHARS else line[: _MOST_CHARS - 1] + "…"
