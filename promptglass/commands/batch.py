"""`promptglass batch`: a folder of pictures, sidecars beside them."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Mapping

from ..analyzers import Recipe
from ..batch import Batch, Outcome
from ..errors import InputError, SidecarError, visible
from ..sidecar import Privacy, entry_of, path_of, read
from ..terminal import BatchProgress
from ..training import EXISTING, CaptionFiles, parse_list, parse_replacement
from .choosing import MODES_HELP, add_options, chosen

log = logging.getLogger("promptglass")

_DESCRIPTION = f"""\
Interrogate every picture of a folder. What is found goes into a sidecar beside each one,
photo.png.promptglass.json; only what is missing there is computed, so a batch can be stopped at any moment
and run again.

{MODES_HELP}
Without --modes: embedded, best, tags and palette, as far as they can run here and now."""

_EPILOG = """\
examples:
  promptglass batch pictures --modes fast,negative --recursive
  promptglass batch dataset --modes caption,tags --txt overwrite --prefix "sks style" --exclude "*background"
  promptglass batch pictures --modes tables --json > tables.jsonl
  PROMPTGLASS_KEY=… promptglass batch private --encrypt --anonymize omit

Transparent pictures are laid on white; pictures of more than 178,956,970 pixels are refused. What cannot be
read is reported, and listed in FOLDER/.promptglass.journal.jsonl until it can be; the exit code is 1 then."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "batch",
        help="a folder of pictures, sidecars beside them",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("folder", metavar="FOLDER")
    command.add_argument("-r", "--recursive", action="store_true", help="folders within it, too")
    add_options(command)
    command.add_argument("--force", action="store_true", help="compute again what is there already")
    command.add_argument(
        "--verify", action="store_true", help="hash pictures even where size and time are as they were"
    )
    _add_captions(command)
    _add_privacy(command)
    command.add_argument("--json", action="store_true", help="one JSON line per picture")
    command.add_argument("-q", "--quiet", action="store_true", help="say nothing but what went wrong")
    command.add_argument(
        "--log", metavar="FILE", help="log to a file; at 5 MB a new one is begun, 3 are kept"
    )
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_batch)


def _add_captions(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group(
        "captions to train on",
        "A .txt beside each picture: the answers of the modes, in the order of --modes, as one line.\n"
        "embedded, negative, palette, tables, ocr, llm/negative, llm/text and llm/critique go there only if\n"
        "no other mode is named.",
    )
    group.add_argument(
        "--txt", choices=EXISTING, help="write captions; if a .txt exists: skip, overwrite, append or prepend"
    )
    group.add_argument(
        "--prefix", default="", metavar="TEXT", help="how every caption begins: a trigger word"
    )
    group.add_argument("--suffix", default="", metavar="TEXT", help="how every caption ends")
    group.add_argument(
        "--exclude",
        action="append",
        default=[],
        metavar="WORDS",
        help='parts to leave out: "text,*background"; may be repeated',
    )
    group.add_argument(
        "--replace",
        action="append",
        default=[],
        metavar="A=B",
        help="words to put in place of others; may be repeated",
    )


def _add_privacy(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("privacy")
    group.add_argument(
        "--anonymize",
        choices=("hash", "omit"),
        default="plain",
        help="file names in sidecars: hashed, or left out",
    )
    group.add_argument(
        "--encrypt",
        action="store_true",
        help="encrypt sidecars with the passphrase in PROMPTGLASS_KEY (pip install cryptography)",
    )


def _batch(arguments: argparse.Namespace) -> int:
    captions = _captions(arguments)
    privacy = Privacy(arguments.anonymize, arguments.encrypt)
    progress = BatchProgress(arguments.quiet)
    analyzers, modes = chosen(arguments, progress)
    batch = Batch(analyzers, modes, privacy, captions, arguments.force, arguments.verify)
    started = time.monotonic()
    plan = batch.plan(arguments.folder, arguments.recursive)
    for note in plan.notes:
        log.warning("%s", note)
    counts = Counter({"unchanged": len(plan.unchanged)})

    def tell(outcome: Outcome) -> None:
        counts[outcome.status] += 1
        progress.next(outcome.path, counts["failed"])
        _tell(outcome)
        if arguments.json:
            _print_json(outcome, plan.recipes)

    if arguments.json:
        for path in plan.unchanged:
            _print_json(Outcome(path, "unchanged"), plan.recipes)
    progress.start(len(plan.todo) + len(plan.failed))
    try:
        is_whole = batch.run(plan, tell)
    finally:
        progress.close()
        _sum_up(counts, time.monotonic() - started, arguments.quiet)
    return 0 if is_whole else 1


def _captions(arguments: argparse.Namespace) -> CaptionFiles | None:
    if arguments.txt is None:
        if arguments.prefix or arguments.suffix or arguments.exclude or arguments.replace:
            raise InputError(
                "--prefix, --suffix, --exclude and --replace are about captions: add --txt overwrite"
            )
        return None
    if arguments.encrypt:
        raise InputError("captions to train on cannot be encrypted: leave out --txt or --encrypt")
    return CaptionFiles(
        arguments.txt,
        arguments.prefix,
        arguments.suffix,
        tuple(pattern for option in arguments.exclude for pattern in parse_list(option)),
        tuple(parse_replacement(option) for option in arguments.replace),
    )


def _tell(outcome: Outcome) -> None:
    if outcome.error is not None:
        log.error("%s", visible(outcome.error))
    if outcome.note is not None:
        log.warning("%s", outcome.note)
    log.info("%s: %s", visible(outcome.path), outcome.status)


def _print_json(outcome: Outcome, recipes: Mapping[str, Recipe]) -> None:
    """A picture with what its sidecar holds of the modes that were asked for, whoever computed it."""
    told: dict[str, object] = {"picture": outcome.path, "status": outcome.status}
    if outcome.error is not None:
        told["error"] = outcome.error
    content = None
    with contextlib.suppress(SidecarError):  # then that is the error
        content = read(path_of(outcome.path))
    entries = {mode: entry_of(content or {}, mode, recipe) for mode, recipe in recipes.items()}
    told["analysis"] = {mode: entry or None for mode, entry in entries.items() if entry is not None}
    print(json.dumps(told), flush=True)


def _sum_up(counts: Counter[str], elapsed_s: float, is_quiet: bool) -> None:
    words = {"elsewhere": "left to another promptglass"}
    parts = [f"{counts[status]:,} {words.get(status, status)}" for status in _STATUSES if counts[status]]
    summary = f"{', '.join(parts) or 'nothing done'} ({elapsed_s:.1f} s)"
    log.info("%s", summary)
    if not is_quiet:
        print(f"promptglass: {summary}", file=sys.stderr, flush=True)


_STATUSES = ("done", "unchanged", "elsewhere", "failed")
