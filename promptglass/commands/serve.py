"""`promptglass serve`: the HTTP API, and the page, as a server of its own."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ..errors import DependencyMissing, InputError, cause_of, visible
from ..host import ROOTS_VARIABLE, Standalone, named_roots
from .choosing import add_server_options

if TYPE_CHECKING:
    from fastapi import FastAPI

    from ..library import Library
    from ..service import Service

log = logging.getLogger("promptglass")

_KEY_VARIABLE = "PROMPTGLASS_API_KEY"
_SHORTEST_KEY = 16
_MOST_CONNECTIONS = 512  # those that only watch among them
_MORE_JOBS = 16  # batches, and what the page asks, beside the questions that may be under way
_LIBRARY_OFF = "off"

_DESCRIPTION = f"""\
A server for other programs: promptglass's own API at /v1 (described at /docs), and the routes of A1111
(POST /sdapi/v1/interrogate) and of clip-interrogator-ext, so that a client written for a WebUI works with
this address. A browser finds the page of `promptglass ui` at /, where gradio is installed.

It answers this machine only, unless --host says otherwise; then whoever asks has to show a key, which is in
{_KEY_VARIABLE} or in the file of --key-file. Folders are read and written below --root DIR and the folders of
{ROOTS_VARIABLE} only. SIGTERM and Ctrl-C finish what was accepted; sidecars are whole at any moment."""

_EPILOG = """\
examples:
  promptglass serve --root pictures
  curl -s http://127.0.0.1:7880/v1/health
  python -c "import secrets; print(secrets.token_urlsafe())" > key && chmod 600 key
  promptglass serve --host 0.0.0.0 --key-file key

There is no TLS here: on a network that others share, put a proxy before it that has some."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "serve",
        help="a server that other programs ask",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_server_options(command, 7880, "0 for any that is free ")
    command.add_argument(
        "--library", metavar="FILE", help=f"where images and prompts are kept; {_LIBRARY_OFF} for nowhere"
    )
    command.add_argument(
        "--endpoints", metavar="NAME,…", help="the only language models that may be asked (default: all)"
    )
    command.add_argument("--key-file", metavar="FILE", help="a file with the key, which only you can read")
    command.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="a page of another server that may ask from a browser: https://glass.example; may be repeated",
    )
    command.add_argument("--no-page", action="store_true", help="the API alone")
    command.add_argument(
        "--queue",
        type=int,
        default=64,
        metavar="N",
        help="questions under way at a time; more are answered 429 (default: %(default)s)",
    )
    command.add_argument(
        "--stop-within",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="how long to finish what was accepted, when it ends (default: %(default)g)",
    )
    command.add_argument(
        "--log", metavar="FILE", help="log to a file; at 5 MB a new one is begun, 3 are kept"
    )
    command.add_argument("-q", "--quiet", action="store_true", help="say nothing but what went wrong")
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_serve, told=logging.INFO)


def _serve(arguments: argparse.Namespace) -> int:
    if arguments.queue < 1 or arguments.stop_within < 0:
        raise InputError("--queue is 1 or more, --stop-within 0 or more")
    key = _key(arguments.key_file)
    if not key and not _is_loopback(arguments.host):
        raise InputError(
            f"--host {visible(arguments.host)} is open to others: set {_KEY_VARIABLE} to a long random key, "
            "or leave out --host"
        )
    # Before a socket is opened: what is missing is said at once.
    app, service = _app(arguments, key)
    listening = _listening(arguments.host, arguments.port)
    log.info("listening on %s (Ctrl-C ends it)", _address(listening))
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again when all is done
        _run(app, service, listening, arguments.stop_within)
    log.info("stopped")
    return 0


def _app(arguments: argparse.Namespace, key: str) -> tuple[FastAPI, Service]:
    from ..jobs import Jobs
    from ..server.access import Access
    from ..server.app import create_app
    from ..server.room import Room
    from ..service import Service

    endpoints = arguments.endpoints
    host = Standalone(
        named_roots(arguments.root),
        arguments.wildcards,
        endpoints=None
        if endpoints is None
        else [name.strip() for name in endpoints.split(",") if name.strip()],
    )
    jobs = Jobs(arguments.queue + _MORE_JOBS)
    service = Service(host, jobs, frees_language_models=False)
    access = Access(
        dict,
        _own_names(arguments.host),
        key=key,
        cors=_origins(arguments.cors),
        room=Room(arguments.queue),
    )
    library = _library(arguments.library)
    return create_app(service, access, library, not arguments.no_page, arguments.stop_within), service


def _run(app: FastAPI, service: Service, listening: socket.socket, stops_within_s: float) -> None:
    try:
        import uvicorn
    except ModuleNotFoundError as error:
        raise DependencyMissing("the service", "uvicorn") from error
    from ..server.logs import OfRequest

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            if self.should_exit:  # asked twice: what runs is stopped at once
                for job in service.jobs.running():
                    job.stop()
            else:
                threading.Thread(target=self._wind_up, daemon=True).start()
            self.should_exit = True

        def _wind_up(self) -> None:
            """Whoever waits for an answer gets one; then whoever has the page open is let go."""
            service.jobs.wind_up(stops_within_s)
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(app.state.page.close)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            import asyncio

            self._loop = asyncio.get_running_loop()
            await super().startup(sockets)

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="on",
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(stops_within_s) + 15,
    )
    of_request = OfRequest()
    log.addFilter(of_request)
    try:
        Server(config).run(sockets=[listening])
    finally:
        log.removeFilter(of_request)


def _key(file: str | None) -> str:
    """That of the environment, or of a file; "" where there is none. Raises InputError for a short one."""
    from ..llm.profiles import checked_key, private_file

    said, source = os.environ.get(_KEY_VARIABLE, "").strip(), _KEY_VARIABLE
    if file is not None:
        said, source = private_file(file), file
    if not said and file is None:
        return ""
    key = checked_key(said, source)
    if len(key) < _SHORTEST_KEY:
        raise InputError(
            f"{visible(source)} holds a key that can be guessed: make it {_SHORTEST_KEY} or longer"
        )
    return key


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ip_address(host).is_loopback
    return False


def _own_names(host: str) -> set[str]:
    from ..guard import own_names

    return own_names([host])


def _origins(given: Sequence[str]) -> frozenset[str]:
    from ..server.forms import named_origins

    origins = named_origins(given or None)
    for origin in origins:
        scheme, separator, place = origin.partition("://")
        if scheme not in ("http", "https") or not separator or not place or set(place) & set("/*?#@ "):
            raise InputError(
                f"{visible(origin)} is no origin: write https://glass.example, or http://HOST:PORT"
            )
    return origins


def _library(named: str | None) -> Library | None:
    from ..library import Library
    from ..server.app import own_library

    if named == _LIBRARY_OFF:
        return None
    return own_library() if named is None else Library(named)


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port < 65536:
        raise InputError(f"--port {port} is no port: it is 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except OSError as error:
        raise InputError(f"cannot listen on {visible(host)}:{port}: {cause_of(error)}") from error


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
