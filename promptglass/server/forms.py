"""Routes that take forms with files; and pages of other origins, where a user vouches for them.

Any site in a browser can send a form here, and is not asked first whether it may, as with JSON: so where a
form comes from is looked at, in every way that a browser tells it. Programs tell nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from fastapi.routing import APIRoute
from starlette import formparsers
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from ..errors import DependencyMissing, InputError
from .access import Access, Refusal
from .described import schema_of
from .door import Shape, as_response, door
from .uploads import TooLarge

ORIGINS_VARIABLE = "PROMPTGLASS_ORIGINS"
MOST_CHARS = 10_000  # of a field
_FORM = "multipart/form-data"
_AROUND_A_FILE = 64 * 1024  # bytes of a form besides its file
_MOST_FIELDS = 16

_began: ContextVar[float] = ContextVar("promptglass_began", default=0.0)


def named_origins(origins: Collection[str] | None) -> frozenset[str]:
    """Those given, or else those of PROMPTGLASS_ORIGINS: "http://localhost:5173,https://glass.example"."""
    named = os.environ.get(ORIGINS_VARIABLE, "").split(",") if origins is None else origins
    return frozenset(origin.strip().rstrip("/").lower() for origin in named) - {"", "null"}


def took_s() -> float:
    """For how long this question has been answered by now."""
    return round(time.monotonic() - _began.get(), 3)


# -- who may send one ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FormAccess(Access):
    """An Access that also knows forms. origins: of pages elsewhere that may ask, in lower case."""

    origins: Collection[str] = field(default=())

    @classmethod
    def of(cls, access: Access, origins: Collection[str] | None = None) -> FormAccess:
        """origins: None for the access's own, where it has none for those of named_origins()."""
        named = named_origins(access.cors if origins is None else origins)
        return cls(**vars(access), origins=named | frozenset(access.cors or ()))

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        is_vouched_for = self.vouched_origin(headers) is not None
        if is_vouched_for:
            headers = _without(headers, "sec-fetch-site")
        if method == "POST":
            if headers.get("Content-Type", "").partition(";")[0].strip().lower() != _FORM:
                return Refusal(415, f"the question must be a form with a file. Send it as {_FORM}.")
            if not is_vouched_for and _is_of_another_site(headers):
                return Refusal(
                    403, f"not answered to another site. Name it in {ORIGINS_VARIABLE} if it is yours."
                )
            method = "GET"  # what is asked of JSON besides has been asked
        return super().refusal(method, headers)

    def vouched_origin(self, headers: Mapping[str, str]) -> str | None:
        origin = headers.get("Origin", "")
        return origin if origin.lower() in self.origins else None


def _without(headers: Mapping[str, str], name: str) -> Headers:
    kept = [(key, value) for key, value in headers.items() if key.lower() != name]
    return Headers(raw=[(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in kept])


def _is_of_another_site(headers: Mapping[str, str]) -> bool:
    """Of browsers that say no Sec-Fetch-Site, be it for their age or as this server has no TLS."""
    if "Sec-Fetch-Site" in headers:  # guard.py judges it
        return False
    said = headers.get("Origin") or headers.get("Referer")
    return said is not None and _place(said) != _place(f"//{headers.get('Host', '')}")


def _place(address: str) -> str:
    try:
        place = urlsplit(address).netloc.rpartition("@")[2].lower()
    except ValueError:
        return "?"
    return place.removesuffix(":80").removesuffix(":443") or "?"


# -- routes --------------------------------------------------------------------------------------------------


def form_door(
    access: FormAccess, shape: Shape, most_bytes: int, too_large: str, is_private: bool = False
) -> type[APIRoute]:
    """As door(), for forms with one file of so many bytes. too_large: the line that says it is larger.

    is_private: only this machine is answered.
    """
    base: Any = door(access, shape)

    class FormDoor(base):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            answer: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

            async def handle(request: Request) -> Response:
                _began.set(time.monotonic())
                if is_private and not _is_local(request):
                    return as_response(shape("only this machine is answered: PRIVATE is set."), 403)
                bounded = _bounded(request, most_bytes + _AROUND_A_FILE, too_large)
                response = await answer(Request(request.scope, bounded))
                if access.cors is None and access.origins:  # or the app says so itself
                    response.headers.add_vary_header("Origin")
                    if origin := access.vouched_origin(request.headers):
                        response.headers["Access-Control-Allow-Origin"] = origin
                return response

            return handle

    return FormDoor


def _is_local(request: Request) -> bool:
    try:
        # No address: a socket in the file system.
        return request.client is None or ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _bounded(request: Request, most_bytes: int, too_large: str) -> Callable[[], Awaitable[Any]]:
    """Its `receive`, which raises TooLarge as soon as it is known."""
    announced = request.headers.get("Content-Length", "")
    received = int(announced[:18]) if announced.isdigit() else 0
    is_announced = received > most_bytes
    received = 0

    async def receive() -> Any:
        nonlocal received
        if is_announced:
            raise TooLarge(too_large)
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most_bytes:
            raise TooLarge(too_large)
        return message

    return receive


# -- what is in it -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sent:
    """A form: its fields by name, and the contents of its files."""

    fields: Mapping[str, str]
    files: Mapping[str, bytes]

    def file(self, name: str, most_bytes: int, too_large: str) -> bytes:
        """Raises InputError where there is none of this name, TooLarge."""
        if name not in self.files:
            raise InputError(f"there is no file called {name} in the form: send one, as -F {name}=@FILE does")
        if len(self.files[name]) > most_bytes:
            raise TooLarge(too_large)
        return self.files[name]

    def text(self, name: str) -> str:
        """Raises InputError for what is longer than MOST_CHARS."""
        text = self.fields.get(name, "")
        if len(text) > MOST_CHARS:
            raise InputError(f"{name} is longer than {MOST_CHARS:,} characters: shorten it")
        return text

    def switch(self, name: str) -> bool:
        """Raises InputError for what is neither yes nor no."""
        said = self.fields.get(name, "").strip().lower()
        if said not in (*_YES, *_NO):
            raise InputError(f"{name} must be true or false")
        return said in _YES


_YES = ("true", "1", "on", "yes")
_NO = ("", "false", "0", "off", "no")


async def sent_form(request: Request) -> Sent:
    """The form of a question, which is in memory by then; for Depends().

    Raises InputError for what is no form, DependencyMissing without the package that reads them.
    """
    if formparsers.parse_options_header is None:
        raise DependencyMissing("a form with a file", "python-multipart")
    try:
        async with request.form(max_files=1, max_fields=_MOST_FIELDS) as form:
            found = form.multi_items()
            files = {name: await value.read() for name, value in found if isinstance(value, UploadFile)}
            fields = {name: value for name, value in found if isinstance(value, str)}
    except ClientDisconnect:
        raise
    except HTTPException as error:
        raise InputError(f"the form cannot be read: {error.detail}") from error
    except Exception as error:  # python-multipart raises what its parts raise
        raise InputError("the form cannot be read: it is damaged, or no form") from error
    return Sent(fields, files)


def form_described(file: str, **fields: Any) -> dict[str, Any]:
    """For /docs: a form with one file, and fields by an example of each."""
    schema = schema_of({file: "", **fields})
    schema["properties"][file]["format"] = "binary"
    schema["required"] = [file]
    return {"requestBody": {"required": True, "content": {_FORM: {"schema": schema}}}}
