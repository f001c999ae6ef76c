"""HTTP to one endpoint: bounded in time and size, and over the moment the caller wants it to be.

Every request runs on a thread of its own, and who asked waits for it with an eye on the clock and on `stop`:
no name that does not resolve, no header that drips and no silence can hold it. To leave is to shut down the
socket, which the server notices. Redirects are never followed, and the key goes to the profile's host alone.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from .. import __version__
from ..download import is_loopback, without_secrets
from ..errors import DependencyMissing, EndpointRefused, Stopped
from .connections import CONNECTED, END, Adapter, Exchange, KeyInTheOpen, arriving
from .faults import Fault, Teller
from .profiles import Profile

try:
    import tenacity
except ImportError as error:  # no host brings it
    raise DependencyMissing("asking language models", "tenacity") from error

log = logging.getLogger("promptglass")

MAX_ANSWER = 32 * 1024 * 1024  # bytes; a thousand words of a stream are one or two megabytes at most
MAX_ERROR = 64 * 1024  # what is read of an answer that is none
BACKOFF_S, MAX_BACKOFF_S, LOADING_S = 0.5, 20.0, 1.0
MAX_RETRY_AFTER_S = 60.0
_LOOK_S = 0.05  # how often a waiting caller looks at `stop`
_LINGER_S = 0.1  # for the end of a body whose content is complete, so that the connection can be used again

_T = TypeVar("_T")


@dataclass(frozen=True)
class Call:
    """What one call of the caller may take, all of its requests together."""

    deadline: float  # of time.monotonic()
    late: str = "not finished in time."  # what is said after it
    stop: threading.Event | None = None
    watch: Callable[[], None] = lambda: None  # called all the time; may raise to end it

    def look(self) -> None:
        if self.stop is not None and self.stop.is_set():
            raise Stopped("stopped")
        self.watch()

    def pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            self.look()
            (self.stop or threading.Event()).wait(min(left_s, _LOOK_S))


_Request = tuple[str, str, Mapping[str, str], "bytes | None"]  # method, url, headers, body


class Transport:
    """Safe to be used from many threads at once."""

    def __init__(self, profile: Profile, key: str, teller: Teller) -> None:
        self._profile = profile
        self._teller = teller
        origin = urlsplit(profile.base_url)
        self._origin = origin.scheme, origin.netloc
        self._has_told_of_retry = False
        self._is_key_open = bool(key) and origin.scheme == "http" and not profile.allow_plain_http
        self._session = requests.Session()
        # A proxy cannot reach our loopback, and must not read a key.
        self._session.trust_env = not (is_loopback(origin.hostname or "") or self._is_key_open)
        self._session.auth = lambda request: request  # or a ~/.netrc would overwrite the key's header
        adapter = Adapter(pool_maxsize=32)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    @contextlib.contextmanager
    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, call: Call
    ) -> Iterator[Answer]:
        """An answer whose status is below 300. Raises Fault, and Stopped when the caller wants no more."""
        if urlsplit(url)[:2] != self._origin:
            raise ValueError(f"{without_secrets(url)} is not on the profile's own host")
        call.look()
        exchange, waiting, response = self._begun((method, url, headers, body), call)
        try:
            answer = Answer(response.status_code, response.headers.get("Content-Type", "").lower(), waiting)
            if response.status_code >= 300:
                raise self._refusal(response, answer)
            yield answer
        finally:
            exchange.hang_up()

    def _begun(self, request: _Request, call: Call) -> tuple[Exchange, _Waiting, requests.Response]:
        """A request up to the head of its answer.

        Sent twice where the connection was dropped without a word: llama.cpp closes kept ones, often right
        after a stream, and it is no fault of the request.
        """
        # The one who waits keeps the time; the socket's own limit is for a thread that nobody waits for.
        longest_s = max(self._profile.first_byte_s, self._profile.between_chunks_s) + 5
        for is_last in (False, True):
            exchange = Exchange(self._is_key_open, longest_s)
            arguments = (exchange, *request)
            threading.Thread(
                target=self._carry_out, args=arguments, name="promptglass llm", daemon=True
            ).start()
            waiting = _Waiting(exchange, self._profile, self._teller, call)
            try:
                return exchange, waiting, waiting.for_head()
            except BaseException as error:
                exchange.hang_up()
                if is_last or not (isinstance(error, Fault) and error.is_dropped):
                    raise
        raise AssertionError

    def persist(self, attempt: Callable[[], _T], call: Call) -> _T:
        """Try until it works, and as long as another try may: with growing pauses, or those we are told."""
        began = time.monotonic()

        def is_enough(retry_state: tenacity.RetryCallState) -> bool:
            fault = _fault_of(retry_state)
            if time.monotonic() + (fault.wait_s or 0) >= call.deadline:
                return True
            if fault.is_loading:
                return time.monotonic() - began > self._profile.first_byte_s
            return retry_state.attempt_number > self._profile.retries

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, Fault) and error.may_pass),
            wait=_pause_s,
            stop=is_enough,
            sleep=call.pause,
            before_sleep=self._log_retry,
            reraise=True,
        )
        return retrying(attempt)

    def _log_retry(self, retry_state: tenacity.RetryCallState) -> None:
        pause_s = retry_state.next_action.sleep if retry_state.next_action else 0
        # Once for the person who waits; a batch would tell of every picture.
        level = logging.INFO if self._has_told_of_retry else logging.WARNING
        self._has_told_of_retry = True
        log.log(level, "%s (trying again in %.1f s)", _fault_of(retry_state), pause_s)

    def _refusal(self, response: requests.Response, answer: Answer) -> Fault:
        if response.is_redirect:
            target = without_secrets(urljoin(response.url, response.headers["Location"]))
            said = json.dumps({"error": f"it leads to {target}"}).encode()
            return self._teller.answered(response.status_code, said)
        body = b""
        with contextlib.suppress(Fault):  # what is there of it explains enough
            for chunk in answer.chunks():
                body += chunk
                if len(body) > MAX_ERROR:
                    break
        return self._teller.answered(response.status_code, body, _retry_after_s(response))

    def _carry_out(
        self, exchange: Exchange, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> None:
        exchange.begin()
        try:
            with self._session.request(
                method,
                url,
                headers={**_HEADERS, **headers},
                data=body,
                stream=True,
                allow_redirects=False,
                timeout=(self._profile.connect_s, exchange.read_timeout_s),
            ) as response:
                exchange.arrived.put(response)
                size = 0
                for chunk in arriving(response.raw):
                    size += len(chunk)
                    if exchange.is_over:
                        return
                    if size > MAX_ANSWER:
                        raise _TooMuch
                    exchange.arrived.put(chunk)
            exchange.connection = None  # another request may have it by now
            exchange.arrived.put(END)
        except BaseException as error:
            exchange.arrived.put(error)


_HEADERS = {
    "Content-Type": "application/json",
    "Accept": "application/json, text/event-stream, application/x-ndjson",
    "Accept-Encoding": "identity",  # only then is what we limit what we hold
    "User-Agent": f"promptglass/{__version__}",
}


class Answer:
    """What comes back, while it comes."""

    def __init__(self, status: int, content_type: str, waiting: _Waiting) -> None:
        self.status = status
        self.content_type = content_type
        self._waiting = waiting

    def chunks(self) -> Iterator[bytes]:
        return self._waiting.chunks()

    def linger(self) -> None:
        """Wait a moment for the formal end of what is complete already."""
        self._waiting.for_end()


class _Waiting:
    """The side of who asked: every step has its limit, and `stop` ends each at once."""

    def __init__(self, exchange: Exchange, profile: Profile, teller: Teller, call: Call) -> None:
        self._exchange = exchange
        self._profile = profile
        self._teller = teller
        self._call = call
        self._first_byte_by = 0.0

    def for_head(self) -> requests.Response:
        # Names must resolve and several addresses may be tried: the socket's limit holds for each of these.
        connect_s = 3 * self._profile.connect_s
        arrival = self._next(
            time.monotonic() + connect_s,
            f"no connection within {connect_s:g} s. Check {self._teller.address}.",
        )
        self._first_byte_by = time.monotonic() + self._profile.first_byte_s
        while arrival is CONNECTED:
            arrival = self._next(self._first_byte_by, self._silent())
        return arrival

    def chunks(self) -> Iterator[bytes]:
        until, why = self._first_byte_by, self._silent()
        while (chunk := self._next(until, why)) is not END:
            yield chunk
            until = time.monotonic() + self._profile.between_chunks_s
            why = self._silent("between_chunks_s")

    def for_end(self) -> None:
        until = time.monotonic() + _LINGER_S
        with contextlib.suppress(Fault):
            while self._next(until, "") is not END:
                pass

    def _silent(self, limit: str = "first_byte_s") -> str:
        return f"silent for {getattr(self._profile, limit):g} s. Raise {limit}, or use a smaller model."

    def _next(self, until: float, why_late: str) -> Any:
        while True:
            self._call.look()
            left_s = min(until, self._call.deadline) - time.monotonic()
            try:
                arrival = self._exchange.arrived.get(timeout=min(max(left_s, 0), _LOOK_S))
            except queue.Empty:
                if left_s > 0:
                    continue
                raise self._late(why_late) from None
            if isinstance(arrival, BaseException):
                raise _fault_in(arrival, self._profile, self._teller)
            return arrival

    def _late(self, why: str) -> Fault:
        if time.monotonic() < self._call.deadline:
            return self._teller.unreachable(why)
        return self._teller.unreachable(self._call.late, may_pass=False)


class _TooMuch(Exception):
    pass


def _fault_in(error: BaseException, profile: Profile, teller: Teller) -> Fault:
    """What an exception of requests means. Their own text may hold a whole address: it is not repeated."""
    if isinstance(error, KeyInTheOpen):
        return Fault(EndpointRefused(f"{teller.endpoint}: {teller.open_key}"))
    if isinstance(error, _TooMuch):
        return teller.unusable(f"an answer of more than {MAX_ANSWER >> 20} MB. {teller.too_long}")
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        cause = f"its certificate is not valid here. Check {teller.address} and this computer's clock."
        return teller.unreachable(cause, may_pass=False)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return teller.unreachable(f"no connection within {profile.connect_s:g} s. Check {teller.address}.")
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return teller.unreachable(f"it fell silent. Try again, or raise {teller.patience}.")
    if isinstance(error, requests.exceptions.ProxyError):
        return teller.unreachable("the proxy does not let us through. Check HTTPS_PROXY, or set NO_PROXY.")
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema | UnicodeError):
        return teller.unreachable(f"this is not an address. Check {teller.address}.", may_pass=False)
    if isinstance(error, requests.ConnectionError) and _is_unheard_of(error):
        return teller.unreachable(f"no such host, or no network. Check {teller.address}.")
    if isinstance(error, requests.ConnectionError) and "NewConnectionError" in repr(error):
        return teller.unreachable(f"nobody listens there. Start the server, or check {teller.address}.")
    if isinstance(error, requests.RequestException | urllib3.exceptions.HTTPError | OSError):
        is_dropped = "RemoteDisconnected" in repr(error)
        return teller.unreachable("the connection broke. Check that the server still runs.", True, is_dropped)
    raise error


def _is_unheard_of(error: BaseException) -> bool:
    return any(
        word in repr(error) for word in ("NameResolutionError", "gaierror", "getaddrinfo", "Name or s")
    )


def _fault_of(retry_state: tenacity.RetryCallState) -> Fault:
    fault = retry_state.outcome.exception() if retry_state.outcome else None
    assert isinstance(fault, Fault)
    return fault


_growing = tenacity.wait_exponential(multiplier=BACKOFF_S / 2, max=MAX_BACKOFF_S)


def _pause_s(retry_state: tenacity.RetryCallState) -> float:
    fault = _fault_of(retry_state)
    if fault.is_loading and fault.wait_s is None:
        return LOADING_S
    growing = _growing(retry_state) + tenacity.wait_random(0, BACKOFF_S)(retry_state)
    return max(growing, fault.wait_s or 0)


def _retry_after_s(response: requests.Response) -> float | None:
    """Retry-After, as seconds or as a date, and no longer than MAX_RETRY_AFTER_S."""
    stated = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(stated)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(stated).timestamp() - time.time()
        except (TypeError, ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S) if seconds == seconds else None
