"""Rows of the library's tables, and what SQLite says of its file."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import Busy, InputError, visible
from .library_files import Prompt

LIBRARY_VARIABLE = "PROMPTGLASS_LIBRARY"


@dataclass(frozen=True)
class Image:
    """missing_since: when a scan did not find its file; "" while it is there."""

    id: str
    path: str
    sha256: str
    size_bytes: int
    modified_ns: int
    width: int
    height: int
    format: str
    added: str
    missing_since: str


def below(folders: Sequence[Path] | None) -> tuple[str, list[Any]]:
    """A condition on images: in one of the folders, or below. Paths are bytes: a name need not be text."""
    if folders is None:
        return "1", []
    values: list[Any] = []
    for folder in folders:
        start = os.fsencode(os.path.join(folder, ""))  # noqa: PTH118 - with the separator at its end
        values += [start, start[:-1] + bytes([start[-1] + 1])]
    ranges = " OR ".join(["(path >= ? AND path < ?)"] * len(folders))
    return f"({ranges})" if ranges else "0", values


def storable(ns: int) -> int:
    return max(-(2**63), min(ns, 2**63 - 1))


def image_of(row: sqlite3.Row) -> Image:
    names = (
        "id",
        "sha256",
        "size_bytes",
        "modified_ns",
        "width",
        "height",
        "format",
        "added",
        "missing_since",
    )
    return Image(path=os.fsdecode(row["path"]), **{name: row[name] for name in names})


def prompt_of(row: sqlite3.Row) -> Prompt:
    names = ("id", "image_id", "type", "mode", "model", "text", "negative", "score", "created", "origin")
    comparison = None if row["comparison"] is None else json.loads(row["comparison"])
    settings = json.loads(row["settings"])
    return Prompt(settings=settings, comparison=comparison, **{name: row[name] for name in names})


def told(error: sqlite3.Error, path: Path) -> Exception:
    said, name = visible(str(error)), visible(str(path))
    if "locked" in said or "busy" in said:
        return Busy(f"the library {name} is being written by another process. Try again.")
    if "full" in said:
        return InputError(f"cannot write the library {name}: the disk is full. Make room and try again.")
    if "readonly" in said or "unable to open" in said:
        variable = f"or name another file in {LIBRARY_VARIABLE}"
        return InputError(f"cannot use the library {name}: {said}. Change its permissions, {variable}.")
    if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError) and (
        "malformed" in said or "not a database" in said or "disk I/O" in said
    ):
        again = "Move it away and scan again: it is made anew from the sidecars."
        return InputError(f"the library {name} is damaged, or no library ({said}). {again}")
    return error  # a mistake of ours: let it be seen
