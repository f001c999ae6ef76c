"""What the command line shows: a small table for a person, plain lines for a pipe, progress on stderr."""

from __future__ import annotations

import logging
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .analyzers import Answer
from .analyzers import as_json as answer_as_json
from .errors import DependencyMissing, visible

if TYPE_CHECKING:
    from .images import Picture

log = logging.getLogger("promptglass")

_MODE_WIDTH, _LONGEST_MODE = 9, 20  # a longer one has a line of its own
_INDENT = "  "


def table(picture: Picture, answers: Sequence[Answer], colour: bool, width: int | None = None) -> str:
    """A picture and its answers for a person to read."""
    width = min(width or shutil.get_terminal_size().columns, 110)
    w, h = picture.size
    bold, dim, reset = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    lines = [f"{bold}{visible(picture.name)}{reset}  {dim}{w}×{h} {picture.format}{reset}"]
    mode_width = max([_MODE_WIDTH, *(len(a.mode) for a in answers if len(a.mode) <= _LONGEST_MODE)])
    left = " " * (len(_INDENT) + mode_width + 1)
    for answer in answers:
        mode = visible(answer.mode)
        shown = textwrap.wrap(visible(_body(answer)), max(20, width - len(left))) or ["(nothing found)"]
        if len(mode) <= mode_width:
            lines.append(f"{_INDENT}{bold}{mode:<{mode_width}}{reset} {shown.pop(0)}")
        else:
            lines.append(f"{_INDENT}{bold}{mode}{reset}")
        lines += [left + line for line in shown]
        evidence = textwrap.wrap(visible(_evidence(answer)), max(20, width - len(left)))
        lines += [left + dim + line + reset for line in evidence]
    if not answers:
        lines.append(f"{_INDENT}{dim}nothing found{reset}")
    return "\n".join(lines) + "\n"


def plain(picture: Picture, answers: Sequence[Answer]) -> str:
    """PICTURE, MODE and PROMPT, parted by tabs: one line per answer, for `cut` and `grep`."""
    rows = ((picture.name, answer.mode, answer.text) for answer in answers)
    return "\n".join("\t".join(visible(cell) for cell in row) for row in rows)


def as_json(picture: Picture, answers: Sequence[Answer]) -> dict[str, Any]:
    """A picture and its answers for a script."""
    width, height = picture.size
    return {
        "picture": picture.name,
        "format": picture.format,
        "width": width,
        "height": height,
        "answers": [answer_as_json(answer) for answer in answers],
    }


class TerminalProgress:
    """A Progress on stderr: a bar where a person watches, else a line every tenth of the way."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._bar: Any = None
        self._what = ""
        self._said = -1
        self._started = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self.close()
            self._what, self._said, self._started = what, -1, time.monotonic()
        if self._stream.isatty():
            self._draw(what, done, total)
        elif total >= 1000:  # short work needs no lines in a log
            self._say(what, done, total)
        if done >= total:
            self.close()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar, self._what = None, ""

    def _draw(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(
                total=total, desc=what, leave=False, file=self._stream, initial=done, unit_scale=True
            )
        self._bar.update(done - self._bar.n)

    def _say(self, what: str, done: int, total: int) -> None:
        tenth = 10 * done // total
        if tenth > self._said:
            self._said = tenth
            seconds = time.monotonic() - self._started
            print(f"{what}: {done:,} of {total:,} ({seconds:.0f} s)", file=self._stream, flush=True)


def _body(answer: Answer) -> str:
    details: Any = answer.details
    if answer.mode == "tags":
        return ", ".join(f"{tag['label']} {tag['confidence']:.2f}" for tag in details["tags"])
    if "lines" in details:
        return " / ".join(line["text"] for line in details["lines"])
    if answer.mode == "palette":
        return ", ".join(f"{colour['name']} {colour['share']:.0%}" for colour in details["colours"])
    if answer.mode == "tables":
        ranked = ((name, *next(iter(labels.items()))) for name, labels in details["tables"].items() if labels)
        return ", ".join(f"{name}: {label} {score:.3f}" for name, label, score in ranked)
    if answer.mode == "embedded" and details["negative"]:
        return f"{answer.text} \u2500 negative: {details['negative']}"
    return answer.text


def _evidence(answer: Answer) -> str:
    details: Any = answer.details
    parts = [] if answer.score is None else [f"score {answer.score:.3f}"]
    parts += [details["why"]] if "why" in details else []  # of a refined prompt
    parts += [f"from {answer.model}" if answer.mode == "embedded" else answer.model] if answer.model else []
    if answer.mode == "embedded":
        wanted = (
            "steps",
            "sampler",
            "sampler_name",
            "cfg scale",
            "cfg",
            "seed",
            "size",
            "model",
            "ckpt_name",
        )
        settings = {str(key).lower(): value for key, value in details["settings"].items()}
        parts += [
            f"{key} {settings[key]}" for key in wanted if isinstance(settings.get(key), str | int | float)
        ]
    elif answer.mode != "palette":
        parts.append(
            f"{answer.elapsed_s:.1f} s" if answer.elapsed_s >= 0.1 else f"{answer.elapsed_s * 1000:.0f} ms"
        )
    return " · ".join(parts)


class BatchProgress:
    """How far a batch is: a bar where a person watches, else a line every ten seconds.

    It is a Progress, too: what a model does meanwhile is shown beside the file that was done last.
    """

    def __init__(self, is_quiet: bool = False, stream: IO[str] | None = None) -> None:
        self._stream = stream or sys.stderr
        self._is_quiet = is_quiet
        self._bar: Any = None
        self._total = self._done = self._failed = 0
        self._last = self._doing = ""
        self._started = self._said = time.monotonic()

    def start(self, total: int) -> None:
        self._total = total
        self._started = self._said = time.monotonic()
        if not self._is_quiet and total and self._stream.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, unit="picture", file=self._stream, dynamic_ncols=True)

    def __call__(self, what: str, done: int, total: int) -> None:
        self._doing = f"{what} {done / max(total, 1):.0%}" if done < total else ""
        self._show()

    def next(self, path: str, failed: int) -> None:
        self._done += 1
        self._failed = failed
        self._last = visible(Path(path).name)
        if self._bar is not None:
            self._bar.update()
        self._show()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _show(self) -> None:
        failed = f"{self._failed} failed" if self._failed else ""
        now_at = ", ".join(filter(None, (self._doing, self._last, failed)))
        if self._bar is not None:
            self._bar.set_postfix_str(now_at, refresh=False)
            if time.monotonic() - self._said >= 0.1:
                self._said = time.monotonic()
                self._bar.refresh()
        elif not self._is_quiet and time.monotonic() - self._said >= 10:
            self._said = time.monotonic()
            rate = self._done / (self._said - self._started)
            left = f"{timedelta(seconds=round((self._total - self._done) / rate))} left" if rate else ""
            far = f"{self._done:,} of {self._total:,} pictures"
            print(", ".join(filter(None, (far, left, now_at))), file=self._stream, flush=True)


def complain(error: Exception, about: str = "") -> None:
    """What went wrong, in one line; with -v also where."""
    log.debug("", exc_info=error)
    if isinstance(error, ModuleNotFoundError):
        error = DependencyMissing("this", str(error.name).partition(".")[0])
    log.error("%s", visible(f"{about}{error}"))
