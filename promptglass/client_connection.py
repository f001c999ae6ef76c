"""A Client's way to promptglass elsewhere: requests with its key, bounded in time, ended by stop or close."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .client_api import (
    KEY_VARIABLE,
    SILENT_S,
    Found,
    ServiceTeller,
    Silent,
    authorization,
    checked_address,
    parsed,
)
from .errors import Stopped
from .llm.faults import Fault
from .llm.profiles import Profile
from .llm.wire import without

if TYPE_CHECKING:
    from .llm.transport import Answer, Call, Transport

OURS = "/promptglass/v1"

_JSON = "application/json"
_CONNECT_S = 5.0
_DAY_S = 86400.0  # the call's own limit comes first


class Connection:
    """See Client. teller: says what goes wrong."""

    def __init__(self, base_url: str, key: str | None, credentials: str, timeout_s: float) -> None:
        self.base_url = checked_address(base_url)
        self.timeout_s = timeout_s
        key = os.environ.get(KEY_VARIABLE, "").strip() if key is None and not credentials else key or ""
        self._headers = authorization(key, credentials)
        self.teller = ServiceTeller(self.base_url, key, credentials)
        self._lock = threading.Lock()
        self._made: Transport | None = None
        self._is_closed = False

    def close(self) -> None:
        self._is_closed = True

    def ask(
        self,
        path: str,
        question: Mapping[str, Any] | None,
        timeout_s: float | None,
        stop: threading.Event | None,
    ) -> Found:
        """question: None to get. What is None in it is left to the service."""
        body = None if question is None else json.dumps(without(question)).encode()
        method = "GET" if body is None else "POST"
        with self.answer(method, OURS + path, self.call(timeout_s, stop), body) as answer:
            return parsed(b"".join(answer.chunks()), self.teller)

    @contextlib.contextmanager
    def answer(
        self,
        method: str,
        path: str,
        call: Call,
        body: bytes | None = None,
        content_type: str = _JSON,
        last_id: int = 0,
    ) -> Iterator[Answer]:
        headers = {**self._headers, "Content-Type": content_type}
        if last_id:
            headers["Last-Event-ID"] = str(last_id)
        try:
            with self._transport().request(method, self.base_url + path, headers, body, call) as answer:
                yield answer
        except Silent:
            cause = f"nothing heard for {SILENT_S:g} s. Check that it still runs."
            raise self.teller.unreachable(cause).error from None
        except Fault as fault:
            raise fault.error from None

    def call(
        self,
        timeout_s: float | None,
        stop: threading.Event | None,
        watch: Callable[[], None] = lambda: None,
    ) -> Call:
        from .llm.transport import Call

        limit_s = self.timeout_s if timeout_s is None else timeout_s

        def look() -> None:
            if self._is_closed:
                raise Stopped("the client is closed")
            watch()

        late = f"not finished within {limit_s:g} s. Raise timeout_s."
        return Call(time.monotonic() + limit_s, late, stop, look)

    def _transport(self) -> Transport:
        """Made for the first request: only then is `requests` worth its import."""
        from .llm.transport import Transport

        with self._lock:
            if self._made is None:
                profile = Profile(
                    "promptglass",
                    "promptglass",
                    self.base_url,
                    connect_s=_CONNECT_S,
                    first_byte_s=_DAY_S,
                    between_chunks_s=_DAY_S,
                )
                self._made = Transport(profile, self.teller.secret, self.teller)
            return self._made
