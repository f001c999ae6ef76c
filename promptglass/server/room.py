"""How much is asked at a time. More is told to come back before its body is read: memory does not grow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from ..errors import Busy
from .uploads import MOST_BYTES_OF_QUESTION

MOST_BYTES_AT_ONCE = 256 * 1024 * 1024  # of all questions together; as JSON, they take a few times that


class Room:
    """most: questions under way at a time; None: any number. For one event loop."""

    def __init__(self, most: int | None = None) -> None:
        self.most = most
        self._count = 0
        self._bytes = 0

    @contextlib.contextmanager
    def place(self, method: str, headers: Mapping[str, str]) -> Iterator[None]:
        """For a question with a body, until it is answered. Raises Busy where there is none."""
        if self.most is None or method in ("GET", "HEAD", "OPTIONS"):
            yield
            return
        announced = headers.get("Content-Length", "")
        size = int(announced[:18]) if announced.isdigit() else MOST_BYTES_OF_QUESTION
        size = min(size, MOST_BYTES_OF_QUESTION)  # what is longer is not read
        if self._count >= self.most or (self._count and self._bytes + size > MOST_BYTES_AT_ONCE):
            raise Busy(f"{self._count} questions are being answered: ask again in a few seconds")
        self._count += 1
        self._bytes += size
        try:
            yield
        finally:
            self._count -= 1
            self._bytes -= size
