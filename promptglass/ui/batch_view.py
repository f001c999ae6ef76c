"""What is shown of a batch: built from its events, so whoever comes late sees the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cards
from .thumbnails import thumbnail

if TYPE_CHECKING:
    from ..jobs import Event, Job

_THUMBNAILS = 8  # each is decoded once: a second of work at most
_ROWS = 200  # a folder of ten thousand would weigh on the browser; the rest is in the sidecars
_FAILURES = 100
_STATUSES = {
    "done": "done",
    "unchanged": "as they were",
    "elsewhere": "left to another promptglass",
    "failed": "failed",
}


class BatchView:
    def __init__(self) -> None:
        self._modes: list[str] = []
        self._counts: dict[str, int] = {}
        self._total = self._count = 0
        self._rows: deque[Sequence[Any]] = deque(maxlen=_ROWS)
        self._recent: deque[str] = deque(maxlen=_THUMBNAILS)
        self._failures: list[tuple[str, str]] = []
        self._left_out: dict[str, str] = {}
        self._notes: list[str] = []

    def take(self, events: Iterable[Event]) -> None:
        for event in events:
            getattr(self, f"_take_{event['kind']}", lambda event: None)(event)

    def _take_planned(self, event: Event) -> None:
        self._modes, self._total = [*event["modes"]], event["todo"]
        self._counts = {"unchanged": event["unchanged"]}

    def _take_left_out(self, event: Event) -> None:
        self._left_out[event["mode"]] = event["error"]

    def _take_warning(self, event: Event) -> None:
        self._notes.append(event["text"])

    def _take_outcome(self, event: Event) -> None:
        self._count, self._total, self._counts = event["done"], event["total"], event["counts"]
        name = Path(event["path"]).name
        if event["status"] == "failed":
            self._failures.append((name, event["error"] or "it failed"))
        else:
            self._recent.append(event["path"])
        if event["note"]:
            self._notes.append(f"{name}: {event['note']}")
        if not event["answers"]:
            self._rows.append((name, event["status"], "", "", ""))
        for place, (mode, answer) in enumerate(event["answers"].items()):
            first = (name, event["status"]) if place == 0 else ("", "")
            score = "" if answer["score"] is None else f"{answer['score']:.3f}"
            self._rows.append((*first, mode, score, answer["prompt"]))

    # -- drawn ---------------------------------------------------------------------------------------------

    def progress(self, job: Job) -> str:
        """The bar while it runs; afterwards, what came of it."""
        if job.state == "running":
            what = "stopping, pictures" if job.is_stopping else "pictures"
            if not self._total:
                what, done, total = job.now or ("looking into the folder", 0, 0)
                return cards.progress(what, done, total)
            doing = f"{job.now[0]} · " if job.now else ""
            bar = cards.progress(what, self._count, self._total)
            return bar + cards.note(f"{doing}{self.counts()}")
        if job.state == "failed":
            return cards.failure(job.error or "it failed")
        if job.state == "stopped":
            return cards.note(f"Stopped: {self.counts()}. Start goes on where it was.")
        return cards.note(f"Finished: {self.counts()}.")

    def counts(self) -> str:
        said = [
            f"{self._counts[status]:,} {words}"
            for status, words in _STATUSES.items()
            if self._counts.get(status)
        ]
        return ", ".join(said) or "nothing to do"

    def thumbnails(self) -> str:
        shown = [(thumbnail(path), Path(path).name) for path in reversed(self._recent)]
        return cards.thumbnails([(uri, name) for uri, name in shown if uri])

    def problems(self) -> str:
        left_out: dict[str, list[str]] = {}
        for mode, why in self._left_out.items():
            left_out.setdefault(why, []).append(mode)
        lines = [(f"left out: {', '.join(modes)}", why) for why, modes in left_out.items()]
        lines += self._failures[-_FAILURES:]
        notes = [cards.note(text) for text in dict.fromkeys(self._notes[-_FAILURES:])]
        return cards.failures(lines) + "".join(notes)

    def results(self) -> str:
        headers = ("picture", "status", "mode", "score", "prompt")
        shown = [at for at, _ in enumerate(headers) if any(row[at] for row in self._rows)]
        rows = [[row[at] for at in shown] for row in self._rows]
        return cards.table([headers[at] for at in shown], rows)
