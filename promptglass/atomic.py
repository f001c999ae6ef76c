"""Files that are replaced whole, one process at a time.

Locks and temporary files lie beside what they are for, hidden, under a short name made of the file's own: a
long name stays below the limit of file systems, and a scan can tell what a killed process left behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock

_TEMPORARY, _LOCK, _CLAIM = ".promptglass.tmp", ".promptglass.lock", ".promptglass.claim"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that every reader, and every crash, finds the old one or the new one whole.

    The caller holds `locked(path)`. Links are written through. Raises OSError, also for a read-only file.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is read-only", str(path))
    temporary = _beside(path, _TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            temporary.chmod(path.stat().st_mode)
        _replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file for the moment that reading, changing and replacing it takes; waits for whoever has it."""
    # Of the name that replace_file writes to: two links to one file must not have two locks.
    place = _beside(Path(os.path.realpath(path)), _LOCK)
    lock = _lock(place)
    lock.acquire(poll_interval=0.01)
    while not _is_found(place):  # whoever had it removed the file, and another may have made a new one
        lock.release()
        lock.acquire(poll_interval=0.01)
    try:
        yield
    finally:
        _give_back(lock, place)


class Claim:
    """That this process, and no other, works on a file. May be given back from another thread."""

    def __init__(self, lock: BaseFileLock, place: Path) -> None:
        self._lock = lock
        self._place = place

    def release(self) -> None:
        if self._lock.is_locked:
            _give_back(self._lock, self._place)


def claim(path: Path) -> Claim | None:
    """Claim a file for as long as the work takes; None where another process has. Raises OSError.

    Whoever finishes a file does so before giving it back: look at it again after claiming.
    """
    place = _beside(path, _CLAIM)
    lock = _try_lock(place)
    return None if lock is None else Claim(lock, place)


def sweep(folder: str, name: str) -> bool:
    """Whether a file is one of these; removed, if the process that it belonged to is gone."""
    if not name.endswith((_TEMPORARY, _LOCK, _CLAIM)) or not name.startswith("."):
        return False
    place = Path(folder, name)
    with contextlib.suppress(OSError):  # no permission: nothing of ours to worry about
        guard = place.with_suffix(".lock") if name.endswith(_TEMPORARY) else place
        lock = _try_lock(guard)
        if lock is not None:
            place.unlink(missing_ok=True)
            _give_back(lock, guard)
    return True


def _beside(path: Path, suffix: str) -> Path:
    # surrogatepass: a file name need not be text.
    digest = hashlib.sha256(path.name.encode("utf-8", "surrogatepass")).hexdigest()
    return path.with_name(f".{digest[:16]}{suffix}")


def _lock(place: Path) -> BaseFileLock:
    from filelock import FileLock

    if not place.parent.is_dir():  # filelock would make it
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place.parent))
    return FileLock(str(place), thread_local=False)


def _try_lock(place: Path) -> BaseFileLock | None:
    from filelock import Timeout

    lock = _lock(place)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    return lock


def _is_found(place: Path) -> bool:
    """Whether a lock that is held is the one that others find: another try at it fails."""
    other = _try_lock(place)
    if other is not None:
        other.release()
    return other is None


def _give_back(lock: BaseFileLock, place: Path) -> None:
    # Unlinked while it is held. One who was waiting for it then holds a file that nobody else can find, which
    # `locked` notices; whoever claims looks again at what the claim was for, and finds it done.
    with contextlib.suppress(OSError):  # Windows unlinks no open file; filelock does it there on release
        place.unlink(missing_ok=True)
    lock.release()


def _replace(temporary: Path, path: Path) -> None:
    for pause_s in (0.05, 0.2, 1.0):
        try:
            temporary.replace(path)
            return
        except PermissionError:  # Windows: a viewer or a virus scanner has the file open for a moment
            time.sleep(pause_s)
    temporary.replace(path)
