"""What language models are writing, collected on their threads and told on the one of the work."""

from __future__ import annotations

import time
from collections.abc import Callable

from .progress import Progress

_EVERY_S = 0.2


class LiveText:
    """show: told all that was said so far, at most every so often. listen, progress: see ask_all()."""

    def __init__(self, show: Callable[[str], None], progress: Progress) -> None:
        self._show = show
        self._progress = progress
        self._said: dict[int, str] = {}
        self._shown, self._shown_at = "", 0.0

    def listen(self, place: int, text: str) -> None:
        self._said[place] = text

    def progress(self, what: str, done: int, total: int) -> None:
        self._progress(what, done, total)
        if time.monotonic() - self._shown_at > _EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Shows what has not been shown yet."""
        said = "\n\n".join(text for _, text in sorted(self._said.items()))
        if said != self._shown:
            self._shown, self._shown_at = said, time.monotonic()
            self._show(said)
