"""Files that are replaced whole, one process at a time.

Locks and temporary files lie beside what they are for, hidden, under a short name made of the file's own: a
long name stays below the limit of file systems, and a scan can tell what a killed process left behind. The
system gives a lock back when its process dies.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

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
    while (lock := _try_lock(place)) is None:
        time.sleep(0.01)
    try:
        yield
    finally:
        _give_back(lock, place)


class Claim:
    """That this process, and no other, works on a file. May be given back from another thread."""

    def __init__(self, lock: int, place: Path) -> None:
        self._lock: int | None = lock
        self._place = place

    def release(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            _give_back(lock, self._place)


def claim(path: Path) -> Claim | None:
    """Claim a file for as long as the work takes; None where another process has. Raises OSError.

    Look at the file again after claiming: whoever had it may have finished meanwhile.
    """
    place = _beside(path, _CLAIM)
    lock = _try_lock(place)
    return None if lock is None else Claim(lock, place)


def sweep(folder: str, name: str) -> None:
    """Remove a file that is one of these, if the process that it belonged to is gone."""
    if not name.endswith((_TEMPORARY, _LOCK, _CLAIM)) or not name.startswith("."):
        return
    place = Path(folder, name)
    with contextlib.suppress(OSError):  # no permission: nothing of ours to worry about
        guard = place.with_suffix(".lock") if name.endswith(_TEMPORARY) else place
        lock = _try_lock(guard)
        if lock is not None:
            if place != guard:
                place.unlink(missing_ok=True)
            _give_back(lock, guard)


def _beside(path: Path, suffix: str) -> Path:
    # surrogatepass: a file name need not be text.
    digest = hashlib.sha256(path.name.encode("utf-8", "surrogatepass")).hexdigest()
    return path.with_name(f".{digest[:16]}{suffix}")


def _replace(temporary: Path, path: Path) -> None:
    # Windows: a viewer or a virus scanner has the file open for a moment.
    for pause_s in (0.05, 0.2, 1.0) if sys.platform == "win32" else ():
        try:
            temporary.replace(path)
            return
        except PermissionError:
            time.sleep(pause_s)
    temporary.replace(path)


# Not by the package filelock: it leaves its files behind, thousands beside thousands of pictures, and where
# they are removed all the same, older versions let two processes hold one name.


def _try_lock(place: Path) -> int | None:
    """An open file that holds the lock; None where another has it. Raises OSError."""
    while True:
        lock = os.open(place, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(lock):
                os.close(lock)
                return None
            if _is_found(lock, place):
                return lock
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)  # whoever had it has removed it meanwhile


def _is_found(lock: int, place: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock), place.stat())
    except FileNotFoundError:
        return False


# File systems without locks (some network shares): one process at a time is up to the user there.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}

if sys.platform == "win32":

    def _lock(lock: int) -> bool:
        try:
            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            return error.errno in _NO_LOCKS
        return True

    def _give_back(lock: int, place: Path) -> None:
        os.close(lock)
        with contextlib.suppress(OSError):  # another process has it open by now
            place.unlink()

else:

    def _lock(lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            if error.errno not in _NO_LOCKS:
                raise
        return True

    def _give_back(lock: int, place: Path) -> None:
        # Removed while it is held, so that nobody can hold this name and another file.
        with contextlib.suppress(OSError):
            place.unlink()
        os.close(lock)
