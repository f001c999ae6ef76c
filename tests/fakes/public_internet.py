"""A public internet on loopback: names and addresses that lead to servers here, and nowhere else.

with PublicInternet(monkeypatch) as web:
    web.names["pictures.example"] = [["93.184.216.34"]]   # what the resolver says, time after time
    web.serve(answer, "93.184.216.34")                    # an http.server handler's answer
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from promptglass import public_web

PUBLIC = "93.184.216.34"
Answer = Callable[[BaseHTTPRequestHandler], None]


class PublicInternet:
    """connected: every place that was asked for a connection, whether anybody is there or not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.resolved: list[str] = []
        self.connected: list[tuple[str, int]] = []
        self.asked: list[tuple[str, dict[str, str]]] = []  # path and headers of every request
        self._places: dict[tuple[str, int], int] = {}
        self._servers: list[ThreadingHTTPServer] = []
        self._resolve = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._getaddrinfo)
        monkeypatch.setattr(public_web, "_connect", self._connect)

    def __enter__(self) -> PublicInternet:
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def serve(self, answer: Answer, ip: str = PUBLIC, tls: ssl.SSLContext | None = None) -> None:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                web.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
                self.close_connection = True
                with contextlib.suppress(OSError):
                    answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        self._servers.append(server)
        self._places[ip, 443 if tls else 80] = server.server_port

    def _getaddrinfo(self, host: Any, port: Any, *more: Any, **options: Any) -> Any:
        """Numbers, in whatever notation, are the system's; names are ours."""
        name = host.decode() if isinstance(host, bytes) else host
        if name in (None, "", "localhost") or _is_number(name):
            return self._resolve(host, port, *more, **options)
        self.resolved.append(name)
        said = self.names.get(name.rstrip("."), [])
        if not said:
            raise socket.gaierror(socket.EAI_NONAME, "there is no such name")
        ips = said.pop(0) if len(said) > 1 else said[0]
        return [
            (socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))
            for ip in ips
        ]

    def _connect(self, family: int, place: Any, timeout_s: float) -> socket.socket:
        self.connected.append((place[0], place[1]))
        if place[:2] not in self._places:
            raise ConnectionRefusedError
        return socket.create_connection(("127.0.0.1", self._places[place[:2]]), timeout_s)


def _is_number(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name.partition("%")[0]))
    except ValueError:
        try:
            return bool(socket.inet_aton(name)) and True
        except OSError:
            return False


# -- answers -------------------------------------------------------------------------------------------------


def content(body: bytes, status: int = 200, **headers: str) -> Answer:
    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)

    return send


def by_path(answers: dict[str, Answer]) -> Answer:
    return lambda handler: answers.get(handler.path, content(b"nothing here", 404))(handler)


def redirect(location: str, status: int = 302, body: bytes = b"") -> Answer:
    return content(body, status, Location=location)


def raw(*pieces: bytes, pause_s: float = 0.0, times: int = 1) -> Answer:
    """These bytes as they are, the last of them so many times."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        for piece in (*pieces[:-1], *[pieces[-1]] * times):
            handler.wfile.write(piece)
            handler.wfile.flush()
            if pause_s and select.select([handler.connection], [], [], pause_s)[0]:
                raise ConnectionAbortedError

    return send
