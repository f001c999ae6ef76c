"""Who may ask the routes: by name and password where there are any, and never another site in a browser."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from ..guard import refusal


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
    """

    credentials: Callable[[], Mapping[str, str]]
    own_names: Collection[str]

    def refusal(self, method: str, headers: Mapping[str, str]) -> Refusal | None:
        """Why a request is not answered, known before its body is read. headers: by name in any case."""
        known = self.credentials()
        # Browsers send a password along with what another site asks for: it proves nothing of that.
        refused = refusal(method, headers, None if known else self.own_names)
        if refused:
            return Refusal(*refused)
        if known and not _are_known(headers.get("Authorization", ""), known):
            return Refusal(
                401,
                "name or password are missing or wrong. Send them as HTTP Basic.",
                {"WWW-Authenticate": 'Basic realm="promptglass", charset="UTF-8"'},
            )
        return None


def _are_known(authorization: str, known: Mapping[str, str]) -> bool:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        given = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        return False
    name, colon, password = given.partition(b":")
    # All of them, and both halves of each: the time that takes tells nothing.
    matches = [
        _is_equal(name, its_name) & _is_equal(password, its_password)
        for its_name, its_password in known.items()
    ]
    return bool(colon) and any(matches)


def _is_equal(given: bytes, text: str) -> bool:
    return hmac.compare_digest(given, text.encode("utf-8", "surrogatepass"))
