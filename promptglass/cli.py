"""The command line: `promptglass interrogate` and `promptglass models`.

Answers go to stdout, everything else to stderr. Exit codes: 0 all went well; 1 a picture could not be read or
a mode failed, the rest was done; 2 the command cannot be carried out; 130 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from . import __version__
from .analyzers import (
    FIRST_CHOICE,
    MODES,
    Analyzer,
    Answer,
    ClipAnalyzer,
    EmbeddedAnalyzer,
    PaletteAnalyzer,
    TagsAnalyzer,
)
from .clip.tables import choose_tables
from .errors import DependencyMissing, ImageError, InputError, PromptglassError, visible
from .terminal import TerminalProgress, as_json, plain, table

if TYPE_CHECKING:
    from .images import Picture

log = logging.getLogger("promptglass")

_INTERROGATE = """\
Which words make this picture?

modes:
  embedded  the prompt that is already in the file (A1111, ComfyUI, InvokeAI, NovelAI, Fooocus)
  best      a caption grown label by label towards the picture; the closest prompt, and the slowest
  fast      a caption and the labels nearest to the picture
  classic   a caption, then medium, artist, site, movement and flavors
  caption   the caption alone
  negative  the words least like the picture, for a negative prompt
  tags      what is in the picture, by a tagger
  palette   its dominant colours
  all       every mode that can run
Without --mode: embedded, best, tags and palette, as far as they can run here and now."""

_EXAMPLES = """\
examples:
  promptglass interrogate photo.jpg
  promptglass interrogate *.png --mode fast,negative --json > prompts.jsonl
  promptglass interrogate photo.jpg --mode best --caption "a cat on a mat" --tables artists=off
  promptglass interrogate photo.jpg --mode fast --tables flavors+=my-words.txt"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    _make_output_safe()
    # Libraries' own bars say nothing that ours do not.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    arguments = _parser().parse_args(argv)
    try:
        with _logging_to_stderr(arguments.verbose):
            return arguments.run(arguments)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (PromptglassError, ModuleNotFoundError, OSError, MemoryError) as error:
        if arguments.verbose:
            traceback.print_exc()
        _complain(error)
        return 2
    except KeyboardInterrupt:
        print("\npromptglass: stopped; what was computed so far is kept", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="promptglass", description="From a picture to a prompt.")
    parser.add_argument("--version", action="version", version=f"promptglass {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_interrogate(commands)
    _add_models(commands)
    return parser


def _add_interrogate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "interrogate",
        help="which words make these pictures?",
        description=_INTERROGATE,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("pictures", nargs="+", metavar="PATH|URL")
    command.add_argument("--mode", metavar="MODE,…", help="one mode, several, or all")
    command.add_argument(
        "--model",
        default="ViT-L-14/openai",
        metavar="NAME",
        help="open_clip name, hub repository, folder, or ARCH/FILE (default: %(default)s)",
    )
    command.add_argument(
        "--captioner",
        default="blip-large",
        metavar="NAME",
        help="who writes captions: a name or a folder (default: %(default)s)",
    )
    command.add_argument("--caption", metavar="TEXT", help="start from this caption instead")
    command.add_argument(
        "--tagger",
        default="starter",
        metavar="NAME",
        help="starter, a WD14 tagger's name or its folder (default: %(default)s)",
    )
    command.add_argument(
        "--tables",
        action="append",
        default=[],
        metavar="TABLE…",
        help="which word lists: `flavors,mediums` only those; `artists=off` all but one; "
        "`flavors=FILE` your own instead; `flavors+=FILE` your own besides; may be repeated",
    )
    command.add_argument(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1, mps (default: %(default)s)"
    )
    command.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "fp32", "fp16", "bf16"),
        help="precision; auto is fp16 on a GPU, fp32 on the CPU",
    )
    command.add_argument("--json", action="store_true", help="one JSON line per picture")
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_interrogate)


def _add_models(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "models",
        help="which models are known and here; get one",
        description="Which models are known, where each lies, its size and licence. `get NAME` fetches one.",
        epilog="HF_ENDPOINT names a mirror, HF_HUB_OFFLINE=1 keeps to what is here, HF_HOME moves the cache.",
    )
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_list_models)
    actions = command.add_subparsers(metavar="")
    get = actions.add_parser("get", help="fetch a model; run again to continue", description="Fetch a model.")
    get.add_argument("name", metavar="NAME")
    get.set_defaults(run=_get_model)


def _interrogate(arguments: argparse.Namespace) -> int:
    progress = TerminalProgress()
    analyzers: list[Analyzer] = [
        EmbeddedAnalyzer(),
        ClipAnalyzer(
            model=arguments.model,
            captioner=arguments.captioner,
            caption=arguments.caption,
            tables=choose_tables(arguments.tables) if arguments.tables else None,
            device=arguments.device,
            dtype=arguments.dtype,
            progress=progress,
        ),
        TagsAnalyzer(arguments.tagger),
        PaletteAnalyzer(),
    ]
    modes = _runnable(_modes(arguments.mode), analyzers, is_wish="all" in (arguments.mode or "all"))
    run = _Run(arguments, modes, analyzers)
    for source in _expanded(arguments.pictures):
        run.picture(source)
        progress.close()
    return run.exit_code()


class _Run:
    """The pictures of one command: an analyzer that fails is left out from there on, the rest goes on."""

    def __init__(self, arguments: argparse.Namespace, modes: list[str], analyzers: list[Analyzer]) -> None:
        self._arguments = arguments
        self._modes = modes
        self._analyzers = [analyzer for analyzer in analyzers if set(analyzer.modes) & set(modes)]
        self._answered = 0
        self._failures = 0

    def picture(self, source: str) -> None:
        from .images import open_picture

        answers: list[Answer] = []
        try:
            picture = open_picture(source)
        except ImageError as error:
            self._failures += 1
            if self._arguments.json:
                print(json.dumps({"picture": error.name, "error": str(error)}), flush=True)
            _complain(error)
            return
        try:
            for analyzer in [*self._analyzers]:
                self._analyze(analyzer, picture, answers)
        finally:  # what is done is shown, also when the next thing is Ctrl-C
            answers.sort(key=lambda answer: self._modes.index(answer.mode))
            _show(picture, answers, self._arguments)
        self._answered += 1

    def exit_code(self) -> int:
        nothing_works = self._failures and not self._analyzers
        return 2 if nothing_works else 1 if self._failures else 0

    def _analyze(self, analyzer: Analyzer, picture: Picture, answers: list[Answer]) -> None:
        try:
            for answer in analyzer.analyze(picture, [mode for mode in self._modes if mode in analyzer.modes]):
                answers.append(answer)
        except (PromptglassError, ModuleNotFoundError) as error:
            if self._arguments.verbose:
                traceback.print_exc()
            _complain(error)
            self._failures += 1
            self._analyzers.remove(analyzer)


def _modes(wanted: str | None) -> list[str]:
    if wanted is None:
        return list(FIRST_CHOICE)
    modes = [mode.strip().lower() for mode in wanted.split(",") if mode.strip()]
    if "all" in modes:
        return list(MODES)
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise InputError(
            f"there is no mode {', '.join(unknown) or repr(wanted)}: choose from {', '.join(MODES)}, all"
        )
    return list(dict.fromkeys(modes))


def _runnable(modes: list[str], analyzers: list[Analyzer], is_wish: bool) -> list[str]:
    """The modes to run. Asked for by name, a mode may fetch what it needs; otherwise it must be ready."""
    if not is_wish:
        return modes
    obstacles = {mode: _analyzer_of(mode, analyzers).obstacles(mode) for mode in MODES}
    blocked = [mode for mode in MODES if obstacles[mode]]
    if blocked:
        reasons = dict.fromkeys(reason for mode in blocked for reason in obstacles[mode])
        print(f"left out: {', '.join(blocked)}: {'; '.join(reasons)}", file=sys.stderr)
    return [mode for mode in modes if mode not in blocked]


def _show(picture: Picture, answers: list[Answer], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(as_json(picture, answers)), flush=True)  # ASCII: right in every encoding
    elif sys.stdout is not None and sys.stdout.isatty():
        print(table(picture, answers, colour="NO_COLOR" not in os.environ), flush=True)
    elif answers:
        print(plain(picture, answers), flush=True)


def _complain(error: Exception) -> None:
    if isinstance(error, ModuleNotFoundError):
        error = DependencyMissing("this", str(error.name).partition(".")[0])
    print(f"promptglass: {visible(str(error))}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _logging_to_stderr(verbose: bool) -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("promptglass: %(message)s"))
    level, propagate = log.level, log.propagate
    log.addHandler(handler)
    log.setLevel(logging.DEBUG if verbose else logging.WARNING)
    log.propagate = False  # a library may have given the root logger a handler of its own
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


def _analyzer_of(mode: str, analyzers: list[Analyzer]) -> Analyzer:
    return next(analyzer for analyzer in analyzers if mode in analyzer.modes)


def _expanded(patterns: list[str]) -> list[str]:
    """Windows' shells leave `*.png` to the program."""
    found: list[str] = []
    for pattern in patterns:
        matches = [] if "://" in pattern or os.path.lexists(pattern) else sorted(glob.glob(pattern))  # noqa: PTH207 - patterns may be absolute
        found += matches or [pattern]
    return found


def _list_models(arguments: argparse.Namespace) -> int:
    from .weights import listing

    rows = [("NAME", "FOR", "SIZE", "LICENCE", "WHERE")]
    for weights, folder in listing():
        size = f"{weights.size_bytes / 1e9:.1f} GB"
        rows.append(
            (weights.name, weights.kind, size, weights.licence, str(folder) if folder else "not here")
        )
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for *cells, where in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)), where]))
    return 0


def _get_model(arguments: argparse.Namespace) -> int:
    from .weights import get

    print(get(arguments.name))
    return 0


def _make_output_safe() -> None:
    """A console that cannot show a character (cp1252 and emoji) shows a stand-in, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
