"""The bytes behind an http(s) address, within bounds of size and time.

What cannot be fetched raises ImageError, one plain line that never repeats a password or a token.
"""

from __future__ import annotations

import ipaddress
import queue
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .errors import ImageError

if TYPE_CHECKING:
    import requests

MAX_DOWNLOAD = 64 * 1024 * 1024  # bytes
CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30  # between two pieces
DOWNLOAD_TIMEOUT_S = 120  # all of it, tries included: a server that drips bytes never trips the read timeout
DOWNLOAD_TRIES = 3


def download(url: str) -> bytes:
    """The bytes behind an http(s) address, at most MAX_DOWNLOAD of them.

    Connections that fail and answers of 500 and above are tried again, everything else is final.
    It runs on a thread, which is left behind at the deadline: names that do not resolve and headers that
    drip block for as long as they like, whatever the timeouts of the socket are.
    """
    name = without_secrets(url)
    outcome: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()

    def fetch() -> None:
        try:
            outcome.put(_download_in_tries(url, name))
        except BaseException as error:
            outcome.put(error)

    threading.Thread(target=fetch, name="promptglass download", daemon=True).start()
    try:
        body = outcome.get(timeout=DOWNLOAD_TIMEOUT_S)
    except queue.Empty:
        raise ImageError(name, _too_slow()) from None
    if isinstance(body, BaseException):
        raise body
    return body


def _download_in_tries(url: str, name: str) -> bytes:
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
        return retrying(_download_once, url, name, deadline)
    except (requests.RequestException, UnicodeError) as error:
        # `from None`: the text of these holds the whole address, with its password.
        raise ImageError(name, _why_not_downloaded(error)) from None


def _download_once(url: str, name: str, deadline: float) -> bytes:
    import requests

    with requests.Session() as session:
        # A proxy cannot reach our loopback.
        session.trust_env = not is_loopback(urlsplit(url).hostname or "")
        # A picture is compressed already, and only then is Content-Length the size that we limit.
        session.headers["Accept-Encoding"] = "identity"
        timeout = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
        with session.get(url, stream=True, timeout=timeout) as response:
            if response.status_code >= 500:
                raise requests.HTTPError(response=response)
            if response.status_code != 200:
                reason = f"the server answered {response.status_code} {response.reason or ''}".rstrip()
                raise ImageError(name, f"{reason}. Check the address.")
            return _body(response, name, deadline)


def _body(response: requests.Response, name: str, deadline: float) -> bytes:
    stated = response.headers.get("Content-Length", "")
    if stated.isdigit() and int(stated) > MAX_DOWNLOAD:
        raise ImageError(name, _TOO_BIG)
    body = bytearray()
    # Small pieces: each is waited for in full, and the deadline is looked at between them.
    for piece in response.iter_content(1024):
        body += piece
        if len(body) > MAX_DOWNLOAD:
            raise ImageError(name, _TOO_BIG)
        if time.monotonic() > deadline:
            raise ImageError(name, _too_slow())
    if not body:
        raise ImageError(name, "the server sent 0 bytes. Check the address.")
    return bytes(body)


def _too_slow() -> str:
    return f"not finished after {DOWNLOAD_TIMEOUT_S} s. Download it by hand."


_TOO_BIG = f"more than {MAX_DOWNLOAD // 2**20} MB. Download it by hand and give its path."


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
