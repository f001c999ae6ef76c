"""Whose turn it is at the models: one piece of work at a time, as a GPU and a host want it."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

from .progress import Progress, silent


class Line:
    """A lock that goes to whoever has waited longest; a plain one goes to whoever is quickest.

    So a batch that comes back at once for its next pictures does not keep everybody else waiting.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()
        self._is_held = False

    def __enter__(self) -> None:
        with self._lock:
            if not self._is_held:
                self._is_held = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        mine.acquire()  # released by the one before, who hands it over

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._is_held = False


class Turns:
    """lock: held during a turn; a host's own, so that its jobs and ours wait for each other.

    around: entered within the lock, once for each turn: it brings models in, and sends them away.
    """

    def __init__(
        self,
        lock: contextlib.AbstractContextManager[object] | None = None,
        around: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._lock = lock or Line()
        self._around = around
        self._holder: int | None = None
        self._told: Progress = silent

    @property
    def is_mine(self) -> bool:
        """Whether it is the turn of the thread that asks."""
        return self._holder == threading.get_ident()

    @contextlib.contextmanager
    def turn(self, progress: Progress = silent) -> Iterator[None]:
        """A turn of the thread that asks for it; within its turn, a thread may ask again.

        progress: told while it lasts by models that outlive it. It is asked before and after waiting, as
        whoever waits may have been stopped.
        """
        if self.is_mine:
            yield
            return
        progress("waiting for the models", 0, 1)
        with self.line(progress):
            progress("waiting for the models", 1, 1)
            self._holder, self._told = threading.get_ident(), progress
            try:
                with self._around():
                    yield
            finally:
                self._holder, self._told = None, silent

    def line(self, progress: Progress) -> contextlib.AbstractContextManager[object]:
        """What is entered when a turn comes. A host's own line may ask progress while it waits."""
        return self._lock

    def progress(self, what: str, done: int, total: int) -> None:
        """A Progress for what outlives a turn: it tells the one whose turn it is."""
        self._told(what, done, total)
