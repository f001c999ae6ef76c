"""A picture from the public internet, for a server that fetches what strangers ask for.

Nothing behind the server is reached: public addresses only, on the web's own two ports, as a server may have
a public address of its own with much more on it. A name is resolved once, all its addresses are judged, and
the connection goes to one of those: what the name says a moment later (DNS rebinding) is never asked. So with
every redirect. The environment's proxies are not used, as a proxy resolves by itself.

By http.client: requests reads the body of a redirect, and the size of a chunk, however long they are.
What is refused or fails raises ImageError, which does not say what a name resolves to.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import re
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import urljoin, urlsplit

from .errors import ImageError

MOST_REDIRECTS = 5
PORTS = {"http": 80, "https": 443}
_CONNECT_S = 5.0
_SILENCE_S = 10.0  # between two pieces
_MOST_CHARS = 4096  # of an address
_MOST_ADDRESSES = 4  # of a name that are tried
_PIECE = 16 * 1024

# IANA's special registry of IPv4, without what it calls globally reachable; 6to4 and AMT relays, multicast;
# and one public number that is a machine's own host: Azure's.
_NOT_PUBLIC_4 = [
    ip_network(block)
    for block in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",
    )
]
# All that is given out of IPv6 (RFC 4291): neither loopback, local, multicast nor an IPv4 address in disguise
# (mapped, compatible, NAT64) is in it.
_GIVEN_OUT_6 = ip_network("2000::/3")
_NOT_PUBLIC_6 = [  # Teredo and other protocols, examples, 6to4, examples
    ip_network(block) for block in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
]

# A resolver reads a name that ends in a number as IPv4: 2130706433, 0x7f.1 and 0177.0.0.1 are all loopback.
_ENDS_IN_A_NUMBER = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)\.*", re.IGNORECASE)
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"BM", b"RIFF")
_LONGEST_START = 12

_NOT_PUBLIC = "there is no public address of this name. Only the public internet is read."
_Place = tuple[socket.AddressFamily, tuple[Any, ...]]  # as a resolver gives it

_NO_CONNECTION = "no connection, or it broke. Check the address."


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str  # ASCII
    path: str  # with the query


class Line:
    """The connections of one fetch; another thread can cut them all, whatever they wait for."""

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._lock = threading.Lock()
        self._is_cut = False
        self._held: list[socket.socket] = []

    def left_s(self, most: float) -> float:
        """Seconds that may be waited. Raises TimeoutError where there are none."""
        left = min(most, self._deadline - time.monotonic())
        if left <= 0 or self._is_cut:
            raise TimeoutError
        return left

    def hold(self, connection: socket.socket) -> None:
        with self._lock:
            if self._is_cut:
                raise TimeoutError
            # A second handle: TLS takes the first one away.
            self._held.append(connection.dup())

    def cut(self) -> None:
        with self._lock:
            self._is_cut = True
            for connection in self._held:
                # OSError: it is closed already.
                with connection, contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._held.clear()


def fetched(url: str, name: str, most_bytes: int, line: Line) -> bytes:
    """The picture behind an address, and behind MOST_REDIRECTS more. name: what errors call it."""
    try:
        for _ in range(MOST_REDIRECTS + 1):
            found = _asked(_target(url), most_bytes, line)
            if isinstance(found, bytes):
                return found
            url = urljoin(url, found)
    except _Refused as refused:
        raise ImageError(name, str(refused)) from None
    except ssl.SSLCertVerificationError:
        raise ImageError(name, "the server's certificate is not valid. Check the address.") from None
    except TimeoutError:
        raise ImageError(name, "the server is too slow. Download the picture, and send it.") from None
    except (OSError, http.client.HTTPException, ValueError):
        raise ImageError(name, _NO_CONNECTION) from None
    raise ImageError(name, f"it is redirected more than {MOST_REDIRECTS} times. Check the address.")


class _Refused(Exception):
    """Why, for whoever asked."""


# -- the address ---------------------------------------------------------------------------------------------


def _target(url: str) -> _Target:
    import requests

    try:
        if len(url) > _MOST_CHARS:
            raise ValueError
        given = urlsplit(url)
        # In ASCII: the name by IDNA, the rest percent-encoded.
        parts = urlsplit(requests.Request("GET", url).prepare().url or "")
        ports, host = {given.port, parts.port}, parts.hostname
    except (requests.RequestException, ValueError):  # UnicodeError is one
        raise _Refused("this is not an address. Check it.") from None
    if parts.scheme not in PORTS:
        raise _Refused("only http:// and https:// are read.")
    if "@" in given.netloc + parts.netloc:
        raise _Refused("an address with a name or a password in it is not read. Leave them out.")
    if not ports <= {None, PORTS[parts.scheme]}:
        raise _Refused("only the ports 80 of http and 443 of https are read.")
    if not host or not host.isascii() or (_ENDS_IN_A_NUMBER.fullmatch(host) and not _is_ip(host)):
        raise _Refused(_NOT_PUBLIC)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.scheme, host, path)


def _is_ip(host: str) -> bool:
    """Whether it is an address as everybody writes it: octal, hexadecimal and short ones are none here."""
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def is_public(address: str) -> bool:
    """Whether an address, as a resolver gives it, is one of the public internet."""
    try:
        number = ip_address(address)
    except ValueError:
        return False
    if isinstance(number, IPv4Address):
        return not _is_in(number, _NOT_PUBLIC_4)
    is_given_out = number in _GIVEN_OUT_6 and number.scope_id is None
    return is_given_out and not _is_in(number, _NOT_PUBLIC_6)


def _is_in(number: IPv4Address | IPv6Address, blocks: Iterable[Any]) -> bool:
    return any(number in block for block in blocks)


def _addresses(host: str, port: int) -> list[_Place]:
    """Where to connect. One address that is not public spoils them all: no honest name has both."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        found = []
    places: list[_Place] = [(family, place) for family, _, _, _, place in found]
    if not places or not all(is_public(str(place[0])) for _, place in places):
        raise _Refused(_NOT_PUBLIC)
    return [*dict.fromkeys(places)][:_MOST_ADDRESSES]


# -- the connection ------------------------------------------------------------------------------------------


def _asked(target: _Target, most_bytes: int, line: Line) -> bytes | str:
    """The picture, or where it has gone to."""
    port = PORTS[target.scheme]
    is_secure = target.scheme == "https"
    kind = http.client.HTTPSConnection if is_secure else http.client.HTTPConnection
    asking = kind(target.host, port)
    with _connected(_addresses(target.host, port), line) as connection:
        connection.settimeout(line.left_s(_SILENCE_S))
        line.hold(connection)
        if is_secure:
            connection = _tls().wrap_socket(connection, server_hostname=target.host.rstrip("."))
        with connection:
            asking.sock = connection  # or it would connect by itself
            asking.request("GET", target.path, headers=_HEADERS)
            with asking.getresponse() as response:
                return _answer(response, most_bytes)


_HEADERS = {
    "User-Agent": "promptglass",
    "Accept": "image/*,*/*;q=0.5",
    # A picture is compressed already, and only then is Content-Length the size that we limit.
    "Accept-Encoding": "identity",
    "Connection": "close",
}


def _connected(places: Iterable[tuple[socket.AddressFamily, tuple[Any, ...]]], line: Line) -> socket.socket:
    """To the first that answers."""
    failure: OSError = OSError()
    for family, place in places:
        try:
            return _connect(family, place, line.left_s(_CONNECT_S))
        except OSError as error:
            failure = error
    raise failure


def _connect(family: socket.AddressFamily, place: tuple[Any, ...], timeout_s: float) -> socket.socket:
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout_s)
        connection.connect(place)
    except BaseException:
        connection.close()
        raise
    return connection


@functools.lru_cache(maxsize=1)
def _tls() -> ssl.SSLContext:
    """The system's authorities, and those that requests brings: some systems have none for Python."""
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    context = ssl.create_default_context()
    context.load_verify_locations(DEFAULT_CA_BUNDLE_PATH)
    return context


# -- the answer ----------------------------------------------------------------------------------------------


def _answer(response: http.client.HTTPResponse, most_bytes: int) -> bytes | str:
    location = response.getheader("Location")
    if response.status in (301, 302, 303, 307, 308) and location:
        return location.encode("latin-1").decode("utf-8", "replace")
    if response.status != 200:
        raise _Refused(f"the server answered {response.status}. Check the address.")
    if (response.length or 0) > most_bytes:
        raise _Refused(too_big(most_bytes))
    body = Body(response.getheader("Content-Encoding"), most_bytes)
    while piece := response.read1(_PIECE):  # what is there
        body.add(piece)
        if body.is_too_big:
            raise _Refused(too_big(most_bytes))
        if len(body.content) >= _LONGEST_START and not _is_picture(body.content):
            break
    if response.length:
        raise _Refused(_NO_CONNECTION)
    if not _is_picture(body.content):
        raise _Refused("it is no PNG, JPEG, GIF, BMP or WebP. Give the address of the picture itself.")
    return bytes(body.content)


class Body:
    """What comes in, unpacked, and never more than a byte beyond the most.

    Raises ValueError for a compression that nobody asked for, or one that is damaged.
    """

    def __init__(self, encoding: str | None, most_bytes: int) -> None:
        self.content = bytearray()
        self._received = 0
        self._most_bytes = most_bytes
        encoding = (encoding or "identity").strip().lower()
        if encoding not in ("identity", "gzip", "x-gzip", "deflate"):
            raise ValueError(f"a body in {encoding}")
        self._unpacker = None if encoding == "identity" else zlib.decompressobj(wbits=47)

    @property
    def is_too_big(self) -> bool:
        """Either way: packed nothings without end are too much as well."""
        return max(len(self.content), self._received) > self._most_bytes

    def add(self, piece: bytes) -> None:
        self._received += len(piece)
        if self._unpacker is not None:
            try:
                piece = self._unpacker.decompress(piece, self._most_bytes + 1 - len(self.content))
            except zlib.error as error:
                raise ValueError("a damaged body") from error
        self.content += piece


def _is_picture(head: bytes | bytearray) -> bool:
    return head.startswith(_STARTS) and (not head.startswith(b"RIFF") or head[8:12] == b"WEBP")


def too_big(most_bytes: int) -> str:
    return f"more than {most_bytes // 2**20} MB. Make it smaller."
