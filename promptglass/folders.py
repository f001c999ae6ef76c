"""Where promptglass keeps what it can make or fetch again, and whose turn it is to do so."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger("promptglass")


def cache_folder(name: str) -> Path:
    """~/.cache/promptglass/NAME (as the hub's clients do on every system), or below XDG_CACHE_HOME."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "promptglass" / name


@contextlib.contextmanager
def waiting_lock(path: Path, work: str) -> Iterator[None]:
    """Hold a lock between processes; where another holds it, say so and wait."""
    from filelock import FileLock, Timeout

    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        log.warning("waiting: another promptglass %s", work)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
