"""Where promptglass keeps what it can make or fetch again, whose turn it is, and where settings are."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .progress import Progress, silent

log = logging.getLogger("promptglass")


def cache_folder(name: str) -> Path:
    """~/.cache/promptglass/NAME (as the hub's clients do on every system), or below XDG_CACHE_HOME."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "promptglass" / name


def data_folder() -> Path:
    """Where the system keeps what programs gather for their user: ~/.local/share/promptglass, say."""
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    else:
        home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "promptglass"


def config_path() -> Path:
    """The user's settings: $PROMPTGLASS_CONFIG, or config.yaml where the system keeps such files."""
    if named := os.environ.get("PROMPTGLASS_CONFIG"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        home = os.environ.get("APPDATA") or "~/AppData/Roaming"
    else:
        home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "promptglass" / "config.yaml"


@contextlib.contextmanager
def waiting_lock(path: Path, work: str, progress: Progress = silent) -> Iterator[None]:
    """Hold a lock between processes; where another holds it, say so and wait, as long as progress lets us."""
    from filelock import FileLock, Timeout

    lock = FileLock(str(path))
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        log.warning("waiting: another promptglass %s", work)
        while not lock.is_locked:
            progress(f"waiting: another promptglass {work}", 0, 1)
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0.5)
    try:
        yield
    finally:
        lock.release()
