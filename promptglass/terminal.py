"""What the command line shows: a small table for a person, plain lines for a pipe, progress on stderr."""

from __future__ import annotations

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

from .errors import visible

if TYPE_CHECKING:
    from .analyzers import Answer
    from .images import Picture

_MODE_WIDTH = 9
_INDENT = "  "


def table(picture: Picture, answers: Sequence[Answer], colour: bool, width: int | None = None) -> str:
    """A picture and its answers for a person to read."""
    width = min(width or shutil.get_terminal_size().columns, 110)
    w, h = picture.size
    bold, dim, reset = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    lines = [f"{bold}{visible(picture.name)}{reset}  {dim}{w}×{h} {picture.format}{reset}"]
    for answer in answers:
        left = f"{_INDENT}{answer.mode:<{_MODE_WIDTH}} "
        shown = textwrap.wrap(visible(_body(answer)), max(20, width - len(left))) or ["(nothing found)"]
        lines.append(f"{_INDENT}{bold}{answer.mode:<{_MODE_WIDTH}}{reset} {shown[0]}")
        lines += [" " * len(left) + line for line in shown[1:]]
        evidence = textwrap.wrap(visible(_evidence(answer)), max(20, width - len(left)))
        lines += [" " * len(left) + dim + line + reset for line in evidence]
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
        "answers": [
            {
                "mode": answer.mode,
                "text": answer.text,
                "model": answer.model,
                "score": answer.score,
                "elapsed_s": round(answer.elapsed_s, 3),
                **answer.details,
            }
            for answer in answers
        ],
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
    if answer.mode == "palette":
        return ", ".join(f"{colour['name']} {colour['share']:.0%}" for colour in details["colours"])
    if answer.mode == "embedded" and details["negative"]:
        return f"{answer.text} ─ negative: {details['negative']}"
    return answer.text


def _evidence(answer: Answer) -> str:
    details: Any = answer.details
    parts = [] if answer.score is None else [f"score {answer.score:.3f}"]
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
