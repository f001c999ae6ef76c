"""A WebUI's answers as modes: one request at a time, as it computes one at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .analyzers import FIRST_CHOICE, Analyzer, Answers, Failure, Recipe
from .errors import EndpointUnreachable, InputError, ModeUnavailable
from .progress import Progress, silent
from .remote_api import Wish, recipe_of

if TYPE_CHECKING:
    from .images import Picture
    from .remote import RemoteWebUI

_TICK_S = 0.1  # how often progress is called while nothing happens


class RemoteAnalyzer(Analyzer):
    """The modes that a WebUI gives, which is asked for them at once. progress: may raise to interrupt.

    Raises EndpointError where it cannot be asked.
    """

    def __init__(self, remote: RemoteWebUI, wish: Wish | None = None, progress: Progress = silent) -> None:
        self._remote = remote
        self._wish = wish or Wish()
        self._progress = progress
        self._offer = remote.offer(self._wish)
        self.modes = self._offer.modes
        self._has_answered = False
        self._unreachable_in_a_row = 0

    @property
    def first_choice(self) -> tuple[str, ...]:
        """What a person most wants to know, with what is there in the place of `best`."""
        return tuple(self._offer.first if mode == "best" else mode for mode in FIRST_CHOICE)

    def check(self, modes: Sequence[str]) -> None:
        """Raises ModeUnavailable and InputError, one line that says what there is instead."""
        self._remote.check(modes, self._wish, self._offer)

    def obstacles(self, mode: str) -> list[str]:
        try:
            self.check([mode])
        except (ModeUnavailable, InputError) as error:
            return [str(error)]
        return []

    def recipe(self, mode: str) -> Recipe:
        return recipe_of(mode, self._offer.routes[mode], self._wish)

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Answers:
        what = f"asking {urlsplit(self._remote.address).netloc}"
        for place, picture in enumerate(pictures):
            watch = _every(_TICK_S, partial(self._progress, what, place, len(pictures)))
            left = [*modes]
            try:
                for outcome in self._remote.ask(picture.image, modes, self._wish, watch=watch):
                    self._has_answered, self._unreachable_in_a_row = True, 0
                    left.remove(outcome.mode)
                    yield place, outcome
            except EndpointUnreachable as error:
                self._unreachable_in_a_row += 1
                # One picture may bring a server down that is back for the next.
                if not self._has_answered or self._unreachable_in_a_row > 1:
                    raise
                for mode in left:
                    yield place, Failure(mode, error)
        self._progress(what, len(pictures), len(pictures))


def _every(seconds: float, watch: Callable[[], None]) -> Callable[[], None]:
    """Called ten times as often, it calls only now and then."""
    next_at = 0.0

    def looked() -> None:
        nonlocal next_at
        if time.monotonic() >= next_at:
            next_at = time.monotonic() + seconds
            watch()

    return looked
