"""The bytes behind an http(s) address, within bounds of size and time.

What cannot be fetched raises ImageError, one plain line that never repeats a password or a token.
"""

from __future__ import annotations

import ipaddress
import queue
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from .errors import ImageError
from .public_web import MOST_REDIRECTS, Body, Line, fetched

if TYPE_CHECKING:
    import requests

MAX_DOWNLOAD = 64 * 1024 * 1024  # bytes
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30  # between two pieces
DOWNLOAD_TIMEOUT_S = 120  # all of it, tries included: a server that drips bytes never trips the read timeout
DOWNLOAD_TRIES = 3
PUBLIC_TIMEOUT_S = 30


def download(url: str, public_only: bool = False, most_bytes: int | None = None) -> bytes:
    """The bytes behind an http(s) address, at most MAX_DOWNLOAD of them, or most_bytes.

    public_only: for a server whom strangers ask. The address must be one of the public internet, and a
    picture behind it: see public_web.py. A person at their own command line may well mean their own network.
    There connections that fail and answers of 500 and above are tried again, everything else is final.

    It runs on a thread, which is left behind at the deadline: names that do not resolve and headers that
    drip block for as long as they like, whatever the timeouts of the socket are.
    """
    name = without_secrets(url)
    most = MAX_DOWNLOAD if most_bytes is None else most_bytes
    if not public_only:
        return _in_time(lambda: _download_in_tries(url, name, most), name, DOWNLOAD_TIMEOUT_S)
    line = Line(PUBLIC_TIMEOUT_S)
    try:
        return _in_time(lambda: fetched(url, name, most, line), name, PUBLIC_TIMEOUT_S)
    finally:
        line.cut()  # a thread left behind ends, too: they would add up


def _in_time(fetch: Callable[[], bytes], name: str, timeout_s: float) -> bytes:
    outcome: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put(fetch())
        except BaseException as error:
            outcome.put(error)

    threading.Thread(target=run, name="promptglass download", daemon=True).start()
    try:
        body = outcome.get(timeout=timeout_s)
    except queue.Empty:
        raise ImageError(name, _too_slow(timeout_s)) from None
    if isinstance(body, BaseException):
        raise body
    return body


def _download_in_tries(url: str, name: str, most_bytes: int) -> bytes:
    import requests
    import tenacity

    retrying = tenacity.Retrying(
        stop=tenacity.stop_after_attempt(DOWNLOAD_TRIES) | tenacity.stop_after_delay(DOWNLOAD_TIMEOUT_S),
        wait=tenacity.wait_exponential(multiplier=0.25, max=2),
        retry=tenacity.retry_if_exception(_may_pass),
        reraise=True,
    )
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    try:
        return retrying(_download_once, url, name, most_bytes, deadline)
    except (requests.RequestException, ValueError) as error:
        # `from None`: the text of these holds the whole address, with its password.
        raise ImageError(name, _why_not_downloaded(error)) from None


def _download_once(url: str, name: str, most_bytes: int, deadline: float) -> bytes:
    import requests

    with requests.Session() as session:
        # A picture is compressed already, and only then is Content-Length the size that we limit.
        session.headers["Accept-Encoding"] = "identity"
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        auth: tuple[str, str] | None = None
        # By hand: requests reads the body of a redirect, however long it is.
        for _ in range(MOST_REDIRECTS + 1):
            # A proxy cannot reach our loopback.
            session.trust_env = not is_loopback(urlsplit(url).hostname or "")
            with session.get(url, auth=auth, stream=True, timeout=timeout, allow_redirects=False) as response:
                target = session.get_redirect_target(response)
                if target is None:
                    return _answer(response, name, most_bytes, deadline)
            following = urljoin(response.url, target)
            auth = auth or requests.utils.get_auth_from_url(url)
            if session.should_strip_auth(url, following) or not any(auth):
                auth = None
            url = following
    raise requests.TooManyRedirects


def _answer(response: requests.Response, name: str, most_bytes: int, deadline: float) -> bytes:
    import requests

    if response.status_code >= 500:
        raise requests.HTTPError(response=response)
    if response.status_code != 200:
        reason = f"the server answered {response.status_code} {response.reason or ''}".rstrip()
        raise ImageError(name, f"{reason}. Check the address.")
    return _body(response, name, most_bytes, deadline)


def _body(response: requests.Response, name: str, most_bytes: int, deadline: float) -> bytes:
    import requests
    import urllib3

    too_big = f"more than {most_bytes // 2**20} MB. Download it by hand and give its path."
    stated = response.headers.get("Content-Length", "")
    if stated.isdigit() and int(stated[:18]) > most_bytes:
        raise ImageError(name, too_big)
    body = Body(response.headers.get("Content-Encoding"), most_bytes)
    try:
        # Unpacked here: requests may make gigabytes of a piece. Small pieces: each is waited for
        # in full, and the deadline is looked at between them.
        for piece in response.raw.stream(1024, decode_content=False):
            body.add(piece)
            if body.is_too_big:
                raise ImageError(name, too_big)
            if time.monotonic() > deadline:
                raise ImageError(name, _too_slow(DOWNLOAD_TIMEOUT_S))
    except urllib3.exceptions.HTTPError as error:
        raise requests.ConnectionError from error
    if not body.content:
        raise ImageError(name, "the server sent 0 bytes. Check the address.")
    return bytes(body.content)


def _too_slow(timeout_s: float) -> str:
    return f"not finished after {timeout_s} s. Download it by hand."


def _may_pass(error: BaseException) -> bool:
    import requests

    if isinstance(error, requests.exceptions.SSLError):
        return False
    passing = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError, requests.HTTPError)
    return isinstance(error, passing)


def _why_not_downloaded(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError):
        return f"the server answered {error.response.status_code}. Try again later."
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not valid here. Check the address and this computer's clock."
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"the server did not answer within {CONNECT_TIMEOUT_S} s. Check the address."
    if isinstance(error, requests.Timeout):
        return f"the server went silent for {READ_TIMEOUT_S} s. Try again later."
    if isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError):
        return "no connection, or it broke. Check the address and the network."
    return f"the address cannot be used ({type(error).__name__}). Check it."


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def without_secrets(url: str) -> str:
    """The address without user, password, query and fragment."""
    try:
        parts = urlsplit(url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:  # brackets that do not close
        raise ImageError(url.partition(":")[0] + "://...", "this is not an address. Check it.") from None
