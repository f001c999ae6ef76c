"""Connections that can be left at any moment, from another thread, so that the server sees them closed.

A request first tells its exchange which connection it goes over, before a byte of it is sent. Built on the
documented seams of requests (HTTPAdapter) and urllib3 (pool_classes_by_scheme, ConnectionCls).
"""

from __future__ import annotations

import contextlib
import ipaddress
import queue
import socket
import threading
from collections.abc import Iterator
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

CONNECTED, END = object(), object()

_this_thread = threading.local()  # .exchange: whose request this thread carries out


class KeyInTheOpen(Exception):
    """The key would go unencrypted to a host outside of one's own network."""


class HungUp(Exception):
    """Whoever asked has left."""


class Exchange:
    """One request and its answer, shared by the thread that carries it out and the one that waits."""

    def __init__(self, needs_private_peer: bool, read_timeout_s: float) -> None:
        self.arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.read_timeout_s = read_timeout_s
        self.connection: Any = None
        self.is_over = False
        self._needs_private_peer = needs_private_peer
        self._lock = threading.Lock()

    def begin(self) -> None:
        """From here on, this thread's requests are those of this exchange."""
        _this_thread.exchange = self

    def takes(self, connection: Any) -> None:
        """A connection is open and nothing is sent yet; on the thread that carries it out."""
        if self._needs_private_peer and _is_public(connection.sock.getpeername()[0]):
            connection.close()
            raise KeyInTheOpen
        connection.sock.settimeout(self.read_timeout_s)  # that of connecting would limit the upload
        with self._lock:
            if self.is_over:
                connection.close()
                raise HungUp
            connection.exchange = self
            self.connection = connection
        self.arrived.put(CONNECTED)

    def hang_up(self) -> None:
        """Leave: whatever blocks on the connection returns, and the server sees it closed."""
        with self._lock:
            self.is_over = True
            connection = self.connection
        if connection is not None and connection.exchange is self and connection.sock is not None:
            with contextlib.suppress(OSError, AttributeError, TypeError):
                # Not SSLSocket.shutdown: it takes the ciphers away from the thread that reads.
                socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)


class _Watched:
    """A connection that tells the exchange of its thread when it is open, before anything is sent."""

    sock: Any
    exchange: Exchange | None = None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]
        _this_thread.exchange.takes(self)

    def request(self, *args: Any, **options: Any) -> None:
        if self.sock is not None:  # open since an earlier request
            _this_thread.exchange.takes(self)
        super().request(*args, **options)  # type: ignore[misc]


class _Connection(_Watched, HTTPConnection):  # type: ignore[misc]
    pass


class _TlsConnection(_Watched, HTTPSConnection):  # type: ignore[misc]
    pass


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        return manager


def arriving(raw: Any) -> Iterator[bytes]:
    """A body in the pieces it comes in: a plain read would wait until its buffer is full."""
    if hasattr(raw, "read1"):
        while chunk := raw.read1(1 << 16, decode_content=True):
            yield chunk
    else:  # urllib3 1.26: chunks come as they are; of what just ends, every byte may be the last for a while
        size = 1 << 16 if raw.chunked else 1024 if "Content-Length" in raw.headers else 1
        yield from raw.stream(size, decode_content=True)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    return (getattr(ip, "ipv4_mapped", None) or ip).is_global
