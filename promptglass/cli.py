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
from .errors import ImageError, InputError, PromptglassError
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
    arguments = _parser().parse_args(argv)
    try:
        with _logging_to_stderr(arguments.verbose):
            return arguments.run(arguments)
    except PromptglassError as error:
        if arguments.verbose:
            traceback.print_exc()
        _complain(error)
        return 2
    except KeyboardInterrupt:
        print("\npromptglass: stopped; what was computed so far is kept", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


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
            tables=_tables(arguments.tables),
            device=arguments.device,
            dtype=arguments.dtype,
            progress=progress,
        ),
        TagsAnalyzer(arguments.tagger),
        PaletteAnalyzer(),
    ]
    modes = _runnable(_modes(arguments.mode), analyzers, is_wish=arguments.mode in (None, "all"))
    failures = 0
    for source in _expanded(arguments.pictures):
        try:
            picture, answers = _answers(source, modes, analyzers)
        except ImageError as error:
            failures += 1
            _report(error, source, arguments)
            continue
        finally:
            progress.close()
        _show(picture, answers, arguments)
    return 1 if failures else 0


def _modes(wanted: str | None) -> list[str]:
    if wanted is None:
        return list(FIRST_CHOICE)
    if wanted == "all":
        return list(MODES)
    modes = [mode.strip().lower() for mode in wanted.split(",") if mode.strip()]
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
    left_out: dict[str, list[str]] = {}  # by obstacle
    for mode in MODES:
        if obstacle := _analyzer_of(mode, analyzers).obstacle(mode):
            left_out.setdefault(obstacle, []).append(mode)
    for obstacle, blocked in left_out.items():
        print(f"left out: {', '.join(blocked)}: {obstacle}", file=sys.stderr)
    return [mode for mode in modes if not any(mode in blocked for blocked in left_out.values())]


def _answers(source: str, modes: list[str], analyzers: list[Analyzer]) -> tuple[Picture, list[Answer]]:
    from .images import open_picture

    picture = open_picture(source)
    found: dict[str, Answer] = {}
    for analyzer in analyzers:
        of_analyzer = [mode for mode in modes if mode in analyzer.modes]
        if of_analyzer:
            found.update((answer.mode, answer) for answer in analyzer.analyze(picture, of_analyzer))
    return picture, [found[mode] for mode in modes if mode in found]


def _show(picture: Picture, answers: list[Answer], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps(as_json(picture, answers), ensure_ascii=False), flush=True)
    elif sys.stdout.isatty():
        print(table(picture, answers, colour="NO_COLOR" not in os.environ), flush=True)
    elif answers:
        print(plain(picture, answers), flush=True)


def _report(error: ImageError, source: str, arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps({"picture": source, "error": str(error)}, ensure_ascii=False), flush=True)
    _complain(error)


def _complain(error: PromptglassError) -> None:
    print(f"promptglass: {error}", file=sys.stderr, flush=True)


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


def _tables(options: list[str]) -> dict[str, list[str]] | None:
    """The tables of `--tables`; None where none was given."""
    items = [item.strip() for option in options for item in option.split(",") if item.strip()]
    if not items:
        return None
    from .clip.vocabulary import default_tables, read_labels, without_artists

    known = default_tables()
    only = [item for item in items if "=" not in item]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(
            f"there is no table {', '.join(unknown)}: choose from {', '.join(known)}, or NAME=FILE"
        )
    tables = {name: known[name] for name in (only or known)}
    for item in items:
        name, _, value = item.partition("=")
        if item.endswith("=off"):
            if name not in tables:
                raise InputError(f"there is no table {name} to switch off: choose from {', '.join(tables)}")
            tables = (
                without_artists(tables)
                if name == "artists"
                else {k: v for k, v in tables.items() if k != name}
            )
        elif name.endswith("+"):
            tables[name[:-1]] = [*tables.get(name[:-1], []), *read_labels(value)]
        elif "=" in item:
            tables[name] = read_labels(value)
    return tables


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
