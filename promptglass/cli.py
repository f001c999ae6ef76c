"""The command line.

Answers go to stdout, everything else to stderr. Exit codes: 0 all went well; 1 a picture could not be read or
a mode failed, the rest was done; 2 the command cannot be carried out; 130 interrupted, 143 terminated,
141 nobody read on.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from logging.handlers import RotatingFileHandler

from . import __version__
from .commands import batch, endpoints, interrogate, models, prompts, serve, ui, wildcards
from .errors import InputError, PromptglassError, cause_of
from .terminal import complain

log = logging.getLogger("promptglass")


class _Terminated(KeyboardInterrupt):
    """SIGTERM: a service manager, `docker stop`, a closing session. Wound up like Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    _make_output_safe()
    # Libraries' own bars say nothing that ours do not.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    arguments = _parser().parse_args(argv)
    told = getattr(arguments, "told", logging.WARNING)
    level = logging.ERROR if getattr(arguments, "quiet", False) else told
    with _stderr_told(logging.DEBUG if arguments.verbose else level), _sigterm_raises(), _own_warnings():
        try:
            with _file_told(getattr(arguments, "log", None), arguments.verbose):
                return arguments.run(arguments)
        except BrokenPipeError:  # `| head` has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 141  # as of a program that SIGPIPE ends
        except (PromptglassError, ModuleNotFoundError, OSError, MemoryError) as error:
            complain(error)
            return 2
        except KeyboardInterrupt as error:
            print("\npromptglass: stopped; what was computed so far is kept", file=sys.stderr)
            return 143 if isinstance(error, _Terminated) else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="promptglass", description="From a picture to a prompt.")
    parser.add_argument("--version", action="version", version=f"promptglass {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (interrogate, batch, wildcards, models, endpoints, prompts, ui, serve):
        command.add(commands)
    return parser


@contextlib.contextmanager
def _stderr_told(told: int) -> Iterator[None]:
    """What is of this level or above, on stderr."""
    level, propagate = log.level, log.propagate
    log.propagate = False  # a library may have given the root logger a handler of its own
    log.setLevel(logging.DEBUG)
    handler = _Stderr(told)
    handler.setFormatter(logging.Formatter("promptglass: %(message)s"))
    try:
        with _told(handler):
            yield
    finally:
        log.setLevel(level)
        log.propagate = propagate


@contextlib.contextmanager
def _file_told(path: str | None, verbose: bool) -> Iterator[None]:
    """What happens, in a file if one is wanted."""
    if path is None:
        yield
        return
    try:
        handler = _LogFile(path, maxBytes=5 << 20, backupCount=3, encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"cannot write the log {path}: {cause_of(error)}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    handler.setLevel(logging.DEBUG if verbose else logging.INFO)
    with _told(handler):
        yield


@contextlib.contextmanager
def _told(handler: logging.Handler) -> Iterator[None]:
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


class _LogFile(RotatingFileHandler):
    """A log that costs no work when it cannot be written any more."""

    def handleError(self, record: logging.LogRecord) -> None:
        log.removeHandler(self)
        print(f"promptglass: the log {self.baseFilename} cannot be written any more", file=sys.stderr)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            super().close()


@contextlib.contextmanager
def _own_warnings() -> Iterator[None]:
    """Without Pillow's, for large pictures that we accept."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Image size .* exceeds limit")
        yield


class _Stderr(logging.Handler):
    """Lines on stderr, above a progress bar where there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if "tqdm" in sys.modules:
            sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr)
        sys.stderr.flush()


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    def terminate(number: int, frame: object) -> None:
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _make_output_safe() -> None:
    """A console that cannot show a character (cp1252 and emoji) shows a stand-in, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
