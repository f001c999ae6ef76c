"""Tables of labels: clip-interrogator's lists, a user's own, and which of them to use."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from ..errors import InputError
from ..program import python

# clip-interrogator merges its tables in this order, and two-stage ranking depends on it. A user's own
# tables come next; `negative` stays apart.
MERGED_TABLES = ("artists", "flavors", "mediums", "movements", "trendings")
NEGATIVE_TABLE = "negative"


def vocabulary_id(tables: Mapping[str, Sequence[str]]) -> str:
    """A name for these tables with these labels, as a Vocabulary has it and settings note it."""
    names = in_order(tables)
    sizes = [f"{name}:{len(tables[name])}" for name in names]
    # A rescan of a folder waits for this, so not labels_hash, which takes four times as long.
    content = "\0".join([*sizes, *(label for name in names for label in tables[name])])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def in_order(tables: Mapping[str, Sequence[str]]) -> list[str]:
    """The tables' names in the order of a vocabulary: the known ones, a user's own, `negative`."""
    known = [name for name in MERGED_TABLES if name in tables]
    own = [name for name in tables if name not in (*MERGED_TABLES, NEGATIVE_TABLE)]
    return [*known, *own, *(name for name in (NEGATIVE_TABLE,) if name in tables)]


def labels_hash(labels: Sequence[str]) -> str:
    return hashlib.sha256(as_bytes(labels)).hexdigest()


def as_bytes(labels: Sequence[str]) -> bytes:
    return json.dumps(list(labels)).encode()


def default_tables() -> dict[str, list[str]]:
    """The tables of clip-interrogator 0.6.0, built from the lists that its package carries.

    Raises InputError where the package is not installed.
    """
    folder = _reference_data()
    if folder is None:
        raise InputError(
            f"the word lists are missing: {python()} -m pip install --no-deps clip-interrogator, "
            "or give lists of your own"
        )
    return {name: [*labels] for name, labels in _reference_tables(folder).items()}


def given_or_default(tables: Mapping[str, Sequence[str]] | None) -> Mapping[str, Sequence[str]]:
    """None stands for the default tables."""
    return default_tables() if tables is None else tables


@lru_cache(maxsize=1)  # every job asks for them, and an installed package stays as it is
def _reference_tables(folder: Path) -> dict[str, list[str]]:
    lists = {name: _lines(folder / f"{name}.txt") for name in (*MERGED_TABLES[:-1], NEGATIVE_TABLE)}
    sites = [*_SITES, *(f"trending on {s}" for s in _SITES), *(f"featured on {s}" for s in _SITES)]
    return {
        **lists,
        "artists": [f"by {artist}" for artist in lists["artists"]]
        + [f"inspired by {artist}" for artist in lists["artists"]],
        "trendings": [*sites, *(f"{s} contest winner" for s in _SITES)],
    }


# clip_interrogator.py 0.6.0, Interrogator.load_clip_model; spelling as there.
_SITES = (
    "Artstation",
    "behance",
    "cg society",
    "cgsociety",
    "deviantart",
    "dribble",
    "flickr",
    "instagram",
    "pexels",
    "pinterest",
    "pixabay",
    "pixiv",
    "polycount",
    "reddit",
    "shutterstock",
    "tumblr",
    "unsplash",
    "zbrush central",
)


def _reference_data() -> Path | None:
    """The lists' folder, found without importing the package (which would import torch)."""
    spec = importlib.util.find_spec("clip_interrogator")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "data"


def without_artists(tables: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The tables with no artist in them: neither the table nor their names inside other tables.

    Only names of two words or more are looked for: "Beeple" alone could be anything.
    """
    names = {re.sub(r"^(inspired )?by ", "", label).lower() for label in tables.get("artists", ())}
    names = {name for name in names if " " in name}
    longest = max((name.count(" ") + 1 for name in names), default=0)

    def names_an_artist(label: str) -> bool:
        words = re.findall(r"[\w'.-]+", re.sub(r"['’]s\b", "", label.lower()))
        runs = (words[i : i + n] for n in range(2, longest + 1) for i in range(len(words) - n + 1))
        return any(" ".join(run) in names for run in runs)

    return {
        name: [label for label in labels if not names_an_artist(label)]
        for name, labels in tables.items()
        if name != "artists"
    }


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """A user's list: one label a line, stripped, blank lines left out (UTF-8, broken bytes replaced)."""
    return [label for label in _lines(Path(path)) if label]


def _lines(path: Path) -> list[str]:
    """As clip-interrogator's load_list reads its own lists, blank lines included: its caches count them."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return [line.strip() for line in file]
    except OSError as error:
        raise InputError(f"cannot read the table {path}: {error.strerror or error}") from error


def choose_tables(options: Sequence[str]) -> dict[str, list[str]]:
    """The tables that options choose, starting from the default ones.

    `flavors,mediums`: only those. `artists=off`: not that one. `flavors=FILE`: a list of one's own instead
    (or beside the others, under a new name). `flavors+=FILE`: besides. A file name may hold commas: it
    reaches to the end of its option. Raises InputError for what does not exist.
    """
    items = [item for option in options for item in _items(option)]
    has_files = any("=" in item and not item.endswith("=off") for item in items)
    # Without clip-interrogator's package a user's own lists are enough.
    known = {} if has_files and not _reference_data() else default_tables()
    only = [item for item in items if "=" not in item]
    unknown = [name for name in only if name not in known]
    if unknown:
        raise InputError(
            f"there is no table {', '.join(unknown)}: choose from {', '.join(known)}, or NAME=FILE"
        )
    tables = {name: known[name] for name in (only or known)}
    for item in items:
        if "=" in item:
            tables = _changed(tables, item)
    return tables


def _changed(tables: dict[str, list[str]], item: str) -> dict[str, list[str]]:
    found = re.fullmatch(r"([\w-]+)(\+?)=(.+)", item)
    if found is None:
        raise InputError(f"cannot read the table option {item!r}: write NAME=FILE, NAME+=FILE or NAME=off")
    name, plus, value = found.groups()
    if value != "off":
        return {**tables, name: [*(tables.get(name, []) if plus else []), *read_labels(value)]}
    if name not in tables:
        raise InputError(f"there is no table {name} to switch off: choose from {', '.join(tables)}")
    if name == "artists":
        return without_artists(tables)
    return {other: labels for other, labels in tables.items() if other != name}


def _items(option: str) -> Iterator[str]:
    head, _, rest = option.partition(",")
    if "=" in head and not head.strip().endswith("=off"):
        yield option.strip()
        return
    if head.strip():
        yield head.strip()
    if rest:
        yield from _items(rest)
