"""Who may ask the routes: by name and password or by a key where there are any, and never another site in a
browser, unless it is listed."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields

from ..guard import refusal
from .room import Room

KEY_VARIABLE = "PROMPTGLASS_API_KEY"

_OF_A_KEY = "the key is missing or wrong. Send it as Authorization: Bearer KEY."
_OF_A_PASSWORD = "name or password are missing or wrong. Send them as HTTP Basic."
# A browser asks for a name and a password then, and takes the key for the password.
_ASK = {"WWW-Authenticate": 'Basic realm="promptglass", charset="UTF-8"'}


@dataclass(frozen=True)
class Refusal:
    status: int
    line: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Access:
    """credentials: passwords by name, read for every request; none: whoever reaches the server may ask.

    own_names: the server's names, in lower case. Where there are passwords any name will do: a browser that
    somebody's name has led here (DNS rebinding) sends none.
    key: what everybody has to show. cors: the origins of pages elsewhere that may ask, in lower case; None:
    the host sees to that. room: for how many at a time.
    """

    credentials: Callable[[], Mapping[str, str]]
    own_names: Collection[str]
    key: str = field(default="", repr=False)
    cors: Collection[str] | None = None
    room: Room = field(default_factory=Room)

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request is not answered, known before its body is read. headers: by name in any case."""
        return self._refusal(method, headers)

    def _refusal(self, method: str, headers: Mapping[str, str], any_site: bool = False) -> Refusal | None:
        known = self.credentials()
        any_name = bool(known or self.key)
        is_listed = self.cors is not None and headers.get("Origin", "").lower() in self.cors
        # Browsers send a password along with what another site asks for: it proves nothing of that.
        refused = refusal(method, headers, None if any_name else self.own_names, any_site or is_listed)
        if refused:
            return Refusal(*refused)
        if self.cors is not None and not is_listed and is_foreign(headers):
            return Refusal(403, "not answered to another site. List it with --cors if it is yours.")
        authorization = headers.get("Authorization", "")
        if self.key and not _is_key(authorization, headers.get("X-API-Key", ""), self.key):
            return Refusal(401, _OF_A_KEY, _ASK)
        if known and not _are_known(authorization, known):
            return Refusal(401, _OF_A_PASSWORD, _ASK)
        return None


@dataclass(frozen=True)
class Visits(Access):
    """For pages: a link elsewhere may lead to one, and its own forms are no JSON."""

    @classmethod
    def of(cls, access: Access) -> Visits:
        return cls(**{each.name: getattr(access, each.name) for each in fields(access)})

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        is_visit = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        # Asked as if nothing was sent: what a form of another site lacks is its origin.
        return self._refusal("GET", headers, any_site=is_visit and method in ("GET", "HEAD"))


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a page of another origin asks, as browsers tell that do not say Sec-Fetch-Site: old ones, and
    all where the server has no TLS."""
    origin = headers.get("Origin")
    if origin is None or "Sec-Fetch-Site" in headers:  # guard.py has judged that
        return False
    return origin.partition("://")[2].lower() != headers.get("Host", "").lower()


def _is_key(authorization: str, x_api_key: str, key: str) -> bool:
    scheme, _, said = authorization.partition(" ")
    given = [x_api_key.encode("utf-8", "replace")]
    if scheme.lower() == "bearer":
        given.append(said.strip().encode("utf-8", "replace"))
    elif scheme.lower() == "basic":
        given.append(_basic(said)[2])
    matches = [_is_equal(one, key) for one in given]
    return any(matches)


def _are_known(authorization: str, known: Mapping[str, str]) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    name, colon, password = _basic(encoded)
    # All of them, and both halves of each: the time that takes tells nothing.
    matches = [
        _is_equal(name, its_name) & _is_equal(password, its_password)
        for its_name, its_password in known.items()
    ]
    return bool(colon) and any(matches)


def _basic(encoded: str) -> tuple[bytes, bytes, bytes]:
    """Name, colon, password; all empty for what cannot be read."""
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return b"", b"", b""


def _is_equal(given: bytes, text: str) -> bool:
    return hmac.compare_digest(given, text.encode("utf-8", "surrogatepass"))
