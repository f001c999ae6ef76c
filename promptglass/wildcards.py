"""Wildcard files from sidecars: one per mode and per table, for dynamicprompts and Impact-Pack.

Promises: every line written here is literal in both. What a user adds, edits or deletes in a file stays as it
is, where it is. A file is replaced whole or not at all, and not touched when nothing changed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .atomic import locked
from .errors import InputError, one_line, visible
from .literal import literal_line
from .wildcard_files import (
    HOME,
    WildcardFile,
    file_name,
    read_wildcards,
    text_of,
    wildcard_name,
    write_entries,
    write_whole,
)

log = logging.getLogger("promptglass")

FORMATS = ("txt", "yaml", "json")
Lines = dict[str, int]  # a line, and how often the sidecars give it

# What was written for which pictures: it tells the user's lines from ours. Hidden and without a suffix, as
# dynamicprompts takes every .txt, .json and .yaml for wildcards, and Impact-Pack does so even in dot-folders.
_RECORD = ".written"
_OUR_NAME = re.compile(r"promptglass([./][a-z0-9-]+)+\.(txt|yaml|json)")  # never outside, whoever wrote it

_PLURALS = {"mediums", "artists", "movements", "trendings", "flavors"}  # a table of the user's keeps its name


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    path: Path
    name: str  # prompts write __name__
    state: str  # "written", "unchanged", or "removed": no picture gives any of its lines now
    lines: int  # the user's and ours
    is_ascii: bool  # if not, Impact-Pack misreads it as .txt


def collect(
    sidecars: Iterable[tuple[str, Any]], per_folder: bool = False, keep_networks: bool = False
) -> dict[str, Lines]:
    """The lines of every wildcard ("best", "artist", "trip/best") in the order of the sidecars, each once.

    `sidecars` are pairs of a sub-folder ("" or "a/b") and a sidecar's content. The malformed is passed by.
    """
    texts: dict[tuple[str, str], Lines] = {}
    for folder, sidecar in sidecars:
        for mode, text in _texts(sidecar):
            counts = texts.setdefault((folder if per_folder else "", _slug_path(mode)), {})
            counts[text] = counts.get(text, 0) + 1
    slugs = _folder_slugs({folder for folder, _ in texts})
    wildcards = {
        slugs[folder] + name: _lines(counts, keep_networks) for (folder, name), counts in texts.items()
    }
    return {name: lines for name, lines in wildcards.items() if lines}


def write_wildcards(
    wildcards: dict[str, Lines],
    out: Path,
    source: str,
    format: str = "txt",
    weights: bool = False,
    adds: bool = False,
) -> list[Outcome]:
    """Merge what `collect` gave into the files below `out`.

    `source` says whose pictures these are: lines it gave before and gives no more are removed, unless another
    source gives them too. adds: nothing is removed; it gives these besides what it gave before.
    """
    if format not in FORMATS:
        raise InputError(f"no wildcard format is called {format}: choose from {', '.join(FORMATS)}")
    if weights and format != "json":
        raise InputError(
            f"weights need --format json: dynamicprompts reads `2::cat` in a .txt as text, and Impact-Pack "
            f"fails on a .yaml with weights. Leave them out, or change --format {format}."
        )
    try:
        (out / HOME).mkdir(parents=True, exist_ok=True)
        with locked(out / HOME / ".merge"):  # all of it: record and files belong together
            given = {file_name(name, format): lines for name, lines in wildcards.items()}
            return _merge_and_write(given, out, source, weights, adds)
    except (OSError, UnicodeEncodeError) as error:
        raise InputError(
            f"cannot write wildcards to {visible(str(out))}: {one_line(error)}. "
            "Make it writable or choose another folder."
        ) from error


def _texts(sidecar: Any) -> Iterator[tuple[str, str]]:
    """(mode or table, text) of every entry."""
    analysis = sidecar.get("analysis") if isinstance(sidecar, dict) else None
    for mode, entries in analysis.items() if isinstance(analysis, dict) else ():
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict):
                continue
            if mode == "tables" and "tables" in entry:
                yield from _best_labels(entry.get("tables"))
                continue
            text = entry.get("prompt", entry.get("text"))
            if isinstance(text, str):
                yield mode, text


def _best_labels(tables: Any) -> Iterator[tuple[str, str]]:
    for table, scores in tables.items() if isinstance(tables, dict) else ():
        if isinstance(scores, dict) and scores:
            yield table.removesuffix("s") if table in _PLURALS else table, next(iter(scores))


@lru_cache(maxsize=1024)
def _slug_path(path: str) -> str:
    return "/".join(map(_slug, path.split("/")))


def _slug(name: str) -> str:
    """[a-z0-9-]+, for any host and file system; a name in another script becomes its hash."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name)[:60].strip("-") or _short_hash(name)


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:6]


def _folder_slugs(folders: set[str]) -> dict[str, str]:
    """What precedes the wildcards of each sub-folder. "Trip 1" is "trip-1/"; where "trip-1" or "trip 1" lies
    beside it, all but the first of these get a hash of their name, so that none depends on the order."""
    alike: dict[str, list[str]] = {}
    for folder in folders:
        alike.setdefault(_slug_path(folder)[:120].rstrip("/"), []).append(folder)
    return {
        folder: f"{slug}/" if len(group) == 1 or folder == slug else f"{slug}-{_short_hash(folder)}/"
        for slug, group in alike.items()
        for folder in group
    } | {"": ""}


def _lines(texts: Lines, keep_networks: bool) -> Lines:
    """Literal lines, each once whatever its case: the first spelling stays."""
    spellings: dict[str, str] = {}
    lines: Lines = {}
    for text, count in texts.items():
        line = literal_line(text, keep_networks)
        if line:
            line = spellings.setdefault(line.casefold(), line)
            lines[line] = lines.get(line, 0) + count
    return lines


def _merge_and_write(
    given: dict[str, Lines], out: Path, source: str, weights: bool, adds: bool
) -> list[Outcome]:
    record = _read_record(out / HOME / _RECORD)
    if adds:
        before_now = record.get(source, {})
        names = dict.fromkeys([*before_now, *given])
        given = {name: _sum((before_now.get(name, {}), given.get(name, {}))) for name in names}
    sources: dict[str, dict[str, Lines]] = {**record, source: {}}
    merges = []
    for name in dict.fromkeys([*given, *(name for files in record.values() for name in files)]):
        file = read_wildcards(out, name)
        recorded = _sum(files.get(name, {}) for files in record.values())
        # A file that is gone starts anew: only a line deleted from a file stays deleted.
        before = {} if file.document is None else recorded
        theirs = {text_of(entry).casefold() for entry in file.entries if not _is_ours(entry, before)}
        sources[source][name] = _claimed(given.get(name, {}), recorded, theirs)
        wanted = _sum(files.get(name, {}) for files in sources.values())
        merges.append((file, _merged(file.entries, before, wanted, weights)))
    # All files are read before the first is written: where one cannot be used, all stay as they are.
    outcomes = [_settled(file, entries) for file, entries in merges if entries or file.entries]
    _warn_of_namesakes(given, out)
    # The record comes last: killed in between, a line of ours counts as the user's, and nothing is lost.
    record_now = _without_empty({name: _without_empty(files) for name, files in sources.items()})
    if record_now != record:
        write_whole(out / HOME / _RECORD, json.dumps({"schema": 1, "sources": record_now}))
    return outcomes


def _warn_of_namesakes(given: dict[str, Lines], out: Path) -> None:
    for file in given:
        name = wildcard_name(file).removeprefix(f"{HOME}/")
        others = [out / file_name(name, format) for format in FORMATS if file_name(name, format) != file]
        for other in filter(Path.exists, others):
            shown = visible(str(other))
            log.warning(
                "%s is the same wildcard as %s, and readers take only one: move its lines", shown, file
            )


def _read_record(path: Path) -> dict[str, dict[str, Lines]]:
    """source to file to lines. Lost or damaged, all lines there are count as the user's."""
    shown = visible(str(path))
    try:
        record = json.loads(path.read_bytes())
        if record["schema"] != 1:
            raise InputError(f"{shown} is of a newer promptglass: update this one or write elsewhere.")
        return {
            source: {
                name: {line: int(count) for line, count in lines.items()}
                for name, lines in files.items()
                if _OUR_NAME.fullmatch(name)
            }
            for source, files in record["sources"].items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, LookupError, TypeError, AttributeError):
        log.warning("cannot read %s: every line in the wildcard files counts as yours now", shown)
        return {}


def _claimed(given: Lines, recorded: Lines, theirs: set[str]) -> Lines:
    """What of these lines is ours, spelled as it was first written; a line the user has is the user's."""
    spellings = {line.casefold(): line for line in recorded}
    keyed = ((line.casefold(), line, count) for line, count in given.items())
    return {
        spellings.get(key, line): count for key, line, count in keyed if key in spellings or key not in theirs
    }


def _merged(entries: list[Any], before: Lines, wanted: Lines, weights: bool) -> list[Any]:
    """The entries where they are, less ours that no picture gives now; then those of ours that are new."""
    ours = {line: {"text": line, "weight": count} if weights else line for line, count in wanted.items()}
    kept = [ours.get(text_of(entry)) if _is_ours(entry, before) else entry for entry in entries]
    return [entry for entry in kept if entry is not None] + [
        ours[line] for line in wanted if line not in before
    ]


def _is_ours(entry: Any, before: Lines) -> bool:
    """Whether an entry is just as it was written: one that was edited is the user's."""
    line = text_of(entry)
    return line in before and entry in (line, {"text": line, "weight": before[line]})


def _settled(file: WildcardFile, entries: list[Any]) -> Outcome:
    if entries != file.entries:
        write_entries(file, entries)
    state = "unchanged" if entries == file.entries else "written" if entries else "removed"
    lines = list(filter(None, map(text_of, entries)))
    return Outcome(file.path, file.name, state, len(lines), all(map(str.isascii, lines)))


def _sum(parts: Iterable[Lines]) -> Lines:
    total: Lines = {}
    for lines in parts:
        for line, count in lines.items():
            total[line] = total.get(line, 0) + count
    return total


def _without_empty(mapping: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if value}
