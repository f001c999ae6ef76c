"""`promptglass interrogate`: which words make these pictures?"""

from __future__ import annotations

import argparse
import glob
import json
import os
import sys
from typing import TYPE_CHECKING

from ..analyzers import Analyzer, Answer, ask, release
from ..errors import ImageError
from ..terminal import TerminalProgress, as_json, complain, plain, table
from .choosing import MODES_HELP, add_options, chosen

if TYPE_CHECKING:
    from ..images import Picture

_INTERROGATE = f"""\
Which words make this picture?

{MODES_HELP}
Without --modes: embedded, best, tags and palette, as far as they can run here and now."""

_EXAMPLES = """\
examples:
  promptglass interrogate photo.jpg
  promptglass interrogate *.png --modes fast,negative --json > prompts.jsonl
  promptglass interrogate photo.jpg --modes best --caption "a cat on a mat" --tables artists=off
  promptglass interrogate photo.jpg --modes fast --tables flavors+=my-words.txt
  promptglass interrogate photo.jpg --modes llm/refine --llm ollama/qwen2.5:3b --keep "by Ivan Aivazovsky"
  promptglass interrogate photo.jpg --modes llm/describe,llm/describe@llama.cpp --llm ollama/qwen2.5vl"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "interrogate",
        help="which words make these pictures?",
        description=_INTERROGATE,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("pictures", nargs="+", metavar="PATH|URL")
    add_options(command)
    command.add_argument("--json", action="store_true", help="one JSON line per picture")
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_interrogate)


def _interrogate(arguments: argparse.Namespace) -> int:
    progress = TerminalProgress()
    analyzers, modes = chosen(arguments, progress)
    run = _Run(arguments, modes, analyzers)
    try:
        for source in _expanded(arguments.pictures):
            run.picture(source)
            progress.close()
    except BaseException:
        progress.close()
        release(analyzers, at_once=True)
        raise
    release(analyzers)
    return run.exit_code()


class _Run:
    """The pictures of one command: a mode that fails is left out from there on, the rest goes on."""

    def __init__(self, arguments: argparse.Namespace, modes: list[str], analyzers: list[Analyzer]) -> None:
        self._arguments = arguments
        self._order = modes
        self._modes = {*modes}  # that are not left out
        self._analyzers = analyzers
        self._failures = 0
        self._said: set[str] = set()

    def picture(self, source: str) -> None:
        from ..images import open_picture

        answers: list[Answer] = []
        try:
            picture = open_picture(source)
        except ImageError as error:
            self._failures += 1
            if self._arguments.json:
                print(json.dumps({"picture": error.name, "error": str(error)}), flush=True)
            complain(error)
            return
        try:
            for analyzer in self._analyzers:
                self._ask(analyzer, picture, answers)
        finally:  # what is done is shown, also when the next thing is Ctrl-C
            answers.sort(key=lambda answer: self._order.index(answer.mode))
            _show(picture, answers, self._arguments)

    def exit_code(self) -> int:
        nothing_works = self._failures and not self._modes
        return 2 if nothing_works else 1 if self._failures else 0

    def _ask(self, analyzer: Analyzer, picture: Picture, answers: list[Answer]) -> None:
        wanted = [mode for mode in self._order if mode in analyzer.modes and mode in self._modes]
        for outcome in ask(analyzer, picture, wanted) if wanted else ():
            if isinstance(outcome, Answer):
                answers.append(outcome)
                continue
            self._failures += 1
            if not outcome.is_of_mode:
                complain(outcome.error, f"{outcome.mode}: ")
                continue
            self._modes.discard(outcome.mode)
            if str(outcome.error) not in self._said:  # several modes may lack the same model
                self._said.add(str(outcome.error))
                complain(outcome.error)


def _show(picture: Picture, answers: list[Answer], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(as_json(picture, answers)), flush=True)  # ASCII: right in every encoding
    elif sys.stdout is not None and sys.stdout.isatty():
        print(table(picture, answers, colour="NO_COLOR" not in os.environ), flush=True)
    elif answers:
        print(plain(picture, answers), flush=True)


def _expanded(patterns: list[str]) -> list[str]:
    """Windows' shells leave `*.png` to the program."""
    found: list[str] = []
    for pattern in patterns:
        matches = [] if "://" in pattern or os.path.lexists(pattern) else sorted(glob.glob(pattern))  # noqa: PTH207 - patterns may be absolute
        found += matches or [pattern]
    return found
