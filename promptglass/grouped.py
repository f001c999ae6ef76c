"""Pictures that several people ask about at the same time go through CLIP together.

Nothing waits for company: what comes while the models are idle is begun at once, and what comes while they
are at work is the next group. The longest waiting comes first, and takes along all that want the same of the
same models. Whoever leaves is left out; the error of one picture costs the others nothing.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from typing import TYPE_CHECKING

from .errors import Stopped
from .progress import Progress

if TYPE_CHECKING:
    from .analyzers import Answer, Answers
    from .clip.analyzer import ClipAnalyzer
    from .clip.interrogator import Interrogator, Subject
    from .images import Picture
    from .turns import Turns

# Prompts that grow step by step: a pass holds the candidates of one picture, so company makes them no faster
# (clip/chain.py), and they take long.
_CHAINS = frozenset(("best", "negative"))
_MOST, _MOST_OF_CHAINS = 32, 8  # in a group: others wait for their turn until all of it is done
_LOOK_S = 0.25


class Groups:
    """The line before the models of one host, and the thread that works on it while there is one."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._waiting: deque[_Place] = deque()
        self._lock = threading.Lock()
        self._is_working = False

    def answers(
        self,
        analyzer: ClipAnalyzer,
        picture: Picture,
        modes: Sequence[str],
        key: Hashable,
        progress: Progress,
    ) -> Answers:
        """As ClipAnalyzer.analyze, of one picture. key: analyzers of equal ones have the same models, tables
        and captioner. progress: asked while it waits, and may raise to leave. Closing it leaves, too.
        """
        place = _Place(analyzer, picture, modes, key)
        if self._turns.is_mine:  # then nobody else can be waited for
            _Group([place]).answer()
            for answer in place.told(progress):
                yield 0, answer
            return
        with self._lock:
            self._waiting.append(place)
            if not self._is_working:
                self._is_working = True
                threading.Thread(target=self._work, name="promptglass-models", daemon=True).start()
        try:
            for answer in place.told(progress):
                yield 0, answer
        finally:
            place.is_gone = True
            with self._lock, contextlib.suppress(ValueError):
                self._waiting.remove(place)

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._is_working = False
                    return
            self._answer_next()

    def _answer_next(self) -> None:
        group = _Group()
        try:
            with self._turns.turn(group.progress):
                group.places = self._taken()  # only now: whoever came while it waited for the turn is in it
                group.answer()
        except BaseException as error:  # this thread is everybody's
            group.places = group.places or self._taken()
            for place in group.places:
                place.end(error if isinstance(error, Exception) else Stopped("stopped"))

    def _taken(self) -> list[_Place]:
        """The longest waiting, and those that want the same."""
        with self._lock:
            if not self._waiting:
                return []
            first = self._waiting[0]
            most = _MOST_OF_CHAINS if _CHAINS & {*first.modes} else _MOST
            alike = [place for place in self._waiting if place.wish == first.wish][:most]
            self._waiting = deque(place for place in self._waiting if place not in alike)
            return alike


class _Place:
    """One picture in the line, between the thread that asks and the one that works."""

    def __init__(self, analyzer: ClipAnalyzer, picture: Picture, modes: Sequence[str], key: Hashable) -> None:
        self.analyzer = analyzer
        self.picture = picture
        self.modes = tuple(modes)
        # A captioner that has nothing to say of one picture fails for all.
        self.wish = (key, self.modes, bool(analyzer.given_caption))
        self.now = ("waiting for the models", 0, 1)
        self.is_gone = False
        self._found: dict[str, Answer] = {}
        self._said: queue.SimpleQueue[Answer | Exception | None] = queue.SimpleQueue()

    def told(self, progress: Progress) -> Iterator[Answer]:
        """Answers in the order of the modes. Raises what went wrong."""
        while True:
            try:
                said = self._said.get(timeout=_LOOK_S)
            except queue.Empty:
                progress(*self.now)
                continue
            if said is None:
                return
            if isinstance(said, Exception):
                raise said
            yield said

    @property
    def missing(self) -> list[str]:
        return [mode for mode in self.modes if mode not in self._found]

    def tell(self, answer: Answer) -> None:
        before = self._in_order()
        self._found[answer.mode] = answer
        for mode in self._in_order()[len(before) :]:
            self._said.put(self._found[mode])

    def end(self, error: Exception | None = None) -> None:
        """What comes later is not heard any more."""
        self._said.put(error)

    def _in_order(self) -> list[str]:
        """The modes that have an answer, up to the first that has none."""
        missing = self.missing
        return [*self.modes[: self.modes.index(missing[0])]] if missing else [*self.modes]


class _Group:
    """Places that want the same, while it is their turn."""

    def __init__(self, places: Sequence[_Place] = ()) -> None:
        self.places = [*places]
        self._at_work: list[_Place] = []  # for whom the present work is

    def progress(self, what: str, done: int, total: int) -> None:
        """Raises Stopped where nobody waits any more for what is being done."""
        for place in self.places:
            place.now = what, done, total
        if self._at_work and all(place.is_gone for place in self._at_work):
            raise Stopped("whoever asked is gone")

    def answer(self) -> None:
        if not self.places:
            return
        self._at_work = [*self.places]
        interrogator = self.places[0].analyzer.interrogator  # loads the model, which all of them lack or none
        self._answer(self.places, interrogator)

    def _answer(self, places: Sequence[_Place], interrogator: Interrogator) -> None:
        self._at_work = [*places]
        try:
            subjects = self._together(places, interrogator)
        except Stopped as stopped:
            for place in places:
                place.end(stopped)
            return
        except Exception as error:
            if len(places) == 1:
                places[0].end(error)
                return
            for place in places:
                self._answer([place], interrogator)
            return
        for place, subject in zip(places, subjects, strict=True):
            self._one_by_one(place, subject, interrogator)

    def _together(self, places: Sequence[_Place], interrogator: Interrogator) -> list[Subject]:
        from .clip.analyzer import answer_of

        started = time.perf_counter()
        subjects = _looked(places, interrogator)
        interrogator.prepare(subjects, places[0].modes)
        looked_s = (time.perf_counter() - started) / len(places)
        for mode in places[0].modes:
            if mode in _CHAINS or mode not in places[0].missing:
                continue
            for place, found in zip(places, getattr(interrogator, mode)(subjects), strict=True):
                place.tell(answer_of(found, looked_s))
            looked_s = 0.0
        return subjects

    def _one_by_one(self, place: _Place, subject: Subject, interrogator: Interrogator) -> None:
        """What is left to answer, and the end."""
        from .clip.analyzer import answer_of

        self._at_work = [place]
        try:
            for mode in [] if place.is_gone else place.missing:
                (found,) = getattr(interrogator, mode)([subject])
                place.tell(answer_of(found))
        except Exception as error:
            place.end(error)
        else:
            place.end()


def _looked(places: Sequence[_Place], interrogator: Interrogator) -> list[Subject]:
    """What CLIP sees of each; kept with each analyzer, which may be asked more about its picture."""
    seen = [place.analyzer.seen(place.picture, interrogator) for place in places]
    new = [place for place, subject in zip(places, seen, strict=True) if subject is None]
    captions = [place.analyzer.given_caption for place in new]
    looked = iter(interrogator.look([place.picture.image for place in new], captions))
    for place in new:
        place.analyzer.keep(place.picture, next(looked))
    found = [place.analyzer.seen(place.picture, interrogator) for place in places]
    return [subject for subject in found if subject is not None]
