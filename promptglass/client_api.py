"""What goes between a Client and promptglass elsewhere: pictures and keys, answers and refusals."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from .errors import EndpointError, EndpointRefused, ImageError, InputError, ReplyError, visible
from .images import open_file
from .llm.faults import Fault, Teller
from .llm.pictures import png
from .llm.wire import event_data, lines
from .server.uploads import MOST_BYTES

if TYPE_CHECKING:
    from PIL.Image import Image

    Picture: TypeAlias = str | os.PathLike[str] | bytes | Image  # a string is a path

Found: TypeAlias = dict[str, Any]  # JSON

KEY_VARIABLE = "PROMPTGLASS_API_KEY"
DEFAULT_ADDRESS = "http://127.0.0.1:8000"
SILENT_S = 60.0  # the service says something every 15 s
MAY_PASS = (429, 502, 503, 504)

_MAX_SIDE = 2048  # of an image without a file; CLIP sees 224, BLIP 384
_MOST_CHARS = 1000  # of what a server says


def form_of(image: Picture, user_prompt: str, deep_thinking: bool) -> tuple[bytes, str]:
    """The body, and what it is."""
    from urllib3.filepost import encode_multipart_formdata

    fields: dict[str, str | tuple[str, str | bytes]] = {
        "image": ("image", _content(image)),
        "user_prompt": user_prompt,
        "deep_thinking": "true" if deep_thinking else "false",
    }
    return encode_multipart_formdata(fields)


def encoded(image: Picture) -> str:
    return base64.b64encode(_content(image)).decode()


def _content(image: Picture) -> bytes:
    """A picture's file as it is, with the prompt that may be in it."""
    from PIL.Image import Image

    name = "image"
    if isinstance(image, bytes | bytearray | memoryview):
        content = bytes(image)
    elif isinstance(image, Image):
        content = png(image, _MAX_SIDE)
    elif isinstance(image, str | os.PathLike):
        name = os.fspath(image)
        with open_file(name) as file:
            content = file.read(MOST_BYTES + 1)
    else:
        raise InputError(f"{type(image).__name__} is no picture: give a path, bytes, or an image of Pillow's")
    if len(content) > MOST_BYTES:  # sent all the same, the connection might break before the refusal is heard
        raise ImageError(name, f"it is larger than {MOST_BYTES // 1024**2} MB. Make it smaller.")
    return content


def authorization(key: str, credentials: str) -> dict[str, str]:
    if key:
        if not (key.isascii() and key.isprintable()) or " " in key:
            raise InputError(f"this is no key: check {KEY_VARIABLE}, or what is given as `key`")
        return {"Authorization": f"Bearer {key}"}
    if credentials:
        if not all(credentials.partition(":")):
            raise InputError("credentials must be NAME:PASSWORD")
        return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}
    return {}


def checked_address(address: str) -> str:
    """Without a slash at its end. An error repeats nothing of it: it may hold a password."""
    address = address.strip()
    address = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not address.isprintable() or " " in address or parts.query or parts.fragment:
        raise InputError(f"base_url must be an address such as {DEFAULT_ADDRESS}")
    if "@" in parts.netloc:
        raise InputError("base_url must hold no password: give it as `credentials`")
    return address.rstrip("/")


class Silent(Exception):
    pass


class Silence:
    """Raises Silent, on being looked at, where nothing has come for too long."""

    def __init__(self) -> None:
        self._until = time.monotonic() + SILENT_S

    def look(self) -> None:
        if time.monotonic() > self._until:
            raise Silent

    def ended_by(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self._until = time.monotonic() + SILENT_S
            yield chunk
            # However long that took, nobody listened meanwhile.
            self._until = time.monotonic() + SILENT_S


class ServiceTeller(Teller):
    """Faults in the service's own words: they are one line, with the way out."""

    address = "the address"
    patience = "timeout_s"
    too_long = "Check that this is promptglass."
    open_key = "anyone on the way could read the key. Use https, or a tunnel."

    def __init__(self, shown: str, key: str, credentials: str) -> None:
        self.secret = key or base64.b64encode(credentials.encode()).decode()
        super().__init__(shown, self.secret, KEY_VARIABLE)
        self._is_key = bool(key)

    def said(self, line: str) -> str:
        line = visible(self.without_key(line))
        return f"{self.endpoint}: {line if len(line) <= _MOST_CHARS else line[: _MOST_CHARS - 1] + '…'}"

    def answered(self, status: int, body: bytes, wait_s: float | None = None) -> Fault:
        line = _line_in(body)
        if status in (401, 403):
            line = f"{line or status} {self._about_key()}" if status == 401 else line
            return Fault(EndpointRefused(self.said(line or str(status)), status))
        line = line or f"it answered {status}. Check that this is the address of promptglass."
        return Fault(EndpointError(self.said(line), status), status in MAY_PASS, wait_s)

    def _about_key(self) -> str:
        if self.secret:
            return f"Check the {'key' if self._is_key else 'credentials'} of the Client."
        return f"Put the key into {KEY_VARIABLE}."


def _line_in(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    found = [answer.get(name) for name in ("error", "detail")] if isinstance(answer, dict) else []
    return next((line for line in found if isinstance(line, str) and line.strip()), "")


def parsed(content: str | bytes, teller: ServiceTeller) -> Found:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise ReplyError(teller.said("what came back is no answer. Check that this is promptglass."))
    return answer


def messages(chunks: Iterator[bytes]) -> Iterator[tuple[int, str]]:
    """Server-sent events as ids, 0 where there is none, and what they carry; half of one is none."""
    number, carried = 0, []
    for line in lines(chunks):
        if line.startswith("id:") and (said := line[3:].strip()).isascii() and said.isdigit():
            number = int(said)
        elif data := event_data(line):
            carried.append(data)
        elif not line and carried:
            yield number, "\n".join(carried)
            carried = []
