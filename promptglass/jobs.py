"""Work on a thread: what it says as it goes, how it ends, and how it is stopped.

Whoever follows a job (a tab, an event stream) may come late and leave early: the job goes on.
"""

from __future__ import annotations

import contextvars
import copy
import logging
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from .errors import Busy, PromptglassError, Stopped, one_line

log = logging.getLogger("promptglass")

State = Literal["running", "done", "failed", "stopped"]
Event = Mapping[str, Any]  # JSON; `id` counts from 1, `kind` says what it is

_KEPT_EVENTS = 2000  # of a batch: whoever comes later finds the rest in the sidecars
_KEPT_JOBS = 64
_MOST_STOPPING = 4  # times as many as may run
_STOPPING_S = 10.0  # a pass of a large model on a CPU cannot be broken off


class Job:
    """`check` and `progress` are for the work itself: they raise Stopped once it is to end."""

    def __init__(self, kind: str, about: Mapping[str, Any]) -> None:
        self.id = uuid.uuid4().hex
        self.kind = kind
        self.about = dict(about)
        self.state: State = "running"
        self.error: str | None = None
        self.failure: BaseException | None = None
        self.result: Any = None
        self.now: tuple[str, int, int] | None = None  # what, done, total
        self.started_at = time.time()
        self._events: deque[Event] = deque(maxlen=_KEPT_EVENTS)
        self._count = 0
        self._changed = threading.Condition()
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    @property
    def is_stopping(self) -> bool:
        return self.state == "running" and self._stop.is_set()

    def check(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped")

    def progress(self, what: str, done: int, total: int) -> None:
        """A Progress."""
        self.check()
        self.now = what, done, total

    def tell(self, kind: str, **content: Any) -> None:
        with self._changed:
            self._count += 1
            self._events.append({"id": self._count, "kind": kind, **content})
            self._changed.notify_all()

    def events(self, after: int = 0) -> list[Event]:
        """Those that came after the one of this id, as far as they are kept."""
        with self._changed:
            return [event for event in self._events if event["id"] > after]

    def follow(self, after: int = 0, every_s: float = 0.25) -> Iterator[list[Event]]:
        """New events as they come, or an empty list now and then, until the job has ended."""
        while True:
            with self._changed:
                if self._count <= after and self.state == "running":
                    self._changed.wait(every_s)
                is_over = self.state != "running"
            new = self.events(after)
            yield new
            after = new[-1]["id"] if new else after
            if is_over:
                return
            if new:  # so that a thousand events do not become a thousand updates
                time.sleep(every_s / 2)

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether it has ended, or does so before so many seconds have passed."""
        with self._changed:
            return self._changed.wait_for(lambda: self.state != "running", within_s)

    def wait(self) -> Any:
        """The result. Raises what the work raised."""
        with self._changed:
            while self.state == "running":
                self._changed.wait()
        if self.failure is not None:
            raise _again(self.failure)
        return self.result

    def as_json(self) -> dict[str, Any]:
        now = dict(zip(("what", "done", "total"), self.now, strict=True)) if self.now else None
        return {
            "id": self.id,
            "kind": self.kind,
            **self.about,
            "state": "stopping" if self.is_stopping else self.state,
            "error": self.error,
            "progress": now,
            "result": self.result,
        }

    def run(self, work: Callable[[Job], Any]) -> None:
        state: State = "failed"
        try:
            self.result = work(self)
            state = "done"
        except Stopped as stopped:
            state, self.failure = "stopped", stopped
        except PromptglassError as error:
            self.error, self.failure = str(error), error
        except BaseException as error:  # also SystemExit, of somebody else's code: the job is over
            log.exception("%s failed", self.kind)
            self.error, self.failure = f"{type(error).__name__}: {one_line(error)}", error
        if self.failure is not None:
            _let_go(self.failure)
        with self._changed:
            self.state = state
            self._changed.notify_all()


def _let_go(error: BaseException) -> None:
    """Of the frames that an error came through: for as long as it is kept, they would keep a picture, say."""
    error.__traceback__ = error.__cause__ = error.__context__ = None


def _again(error: BaseException) -> BaseException:
    """The same error to be raised: the one that is kept would gather the frames of whoever hears of it."""
    try:
        return copy.copy(error)
    except TypeError:  # one that is made of more than it says
        made = type(error).__new__(type(error), *error.args)
        vars(made).update(vars(error))
        return made


class Jobs:
    """Those that run, and the last that ran. Raises Busy where `most` are running."""

    def __init__(self, most: int = 16) -> None:
        self._most = most
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()
        self._stops_at: float | None = None

    def start(self, kind: str, work: Callable[[Job], Any], **about: Any) -> Job:
        """about: what a listing says of it, as JSON."""
        job = Job(kind, about)
        with self._lock:
            # One that is to stop may wait for a host's lock: it takes nobody's place, up to a limit.
            all_running = [one for one in self._jobs.values() if one.state == "running"]
            running = sum(not one.is_stopping for one in all_running)
            if running >= self._most or len(all_running) >= _MOST_STOPPING * self._most:
                raise Busy(f"{running} jobs are under way: wait until one is done, or stop one")
            self._jobs[job.id] = job
            for id_ in [id_ for id_, other in self._jobs.items() if other.state != "running"][:-_KEPT_JOBS]:
                del self._jobs[id_]
        # In the context of whoever asked: what is logged says for whom.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(job.run, work), name=f"promptglass-{kind}", daemon=True).start()
        return job

    def running(self) -> list[Job]:
        with self._lock:
            return [job for job in self._jobs.values() if job.state == "running"]

    def wind_up(self, within_s: float) -> None:
        """Waits for those that run for so many seconds, then stops them: of a batch, what is done is saved.

        Asked again, the first time counts.
        """
        with self._lock:
            if self._stops_at is None:
                self._stops_at = time.monotonic() + within_s
            stops_at = self._stops_at
        self._wait_until(stops_at)
        for job in self.running():
            job.stop()
        self._wait_until(time.monotonic() + _STOPPING_S)

    def _wait_until(self, at: float) -> None:
        for job in self.running():
            job.has_ended(max(0.0, at - time.monotonic()))

    def find(self, id_: str) -> Job | None:
        with self._lock:
            return self._jobs.get(id_)

    def of(self, kind: str) -> list[Job]:
        """The newest first."""
        with self._lock:
            return [job for job in reversed(self._jobs.values()) if job.kind == kind]
