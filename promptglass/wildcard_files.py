"""A file of wildcards on disk: lines of a .txt, or a list in a .yaml or .json, read and replaced whole.

A wildcard has the same name for all readers. dynamicprompts puts a file's folder before the keys of a .yaml
or .json, and calls a .json that is a list by its file name; Impact-Pack goes by the keys of a .yaml alone.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import locked, replace_file
from .errors import DependencyMissing, InputError, one_line, visible

HOME = "promptglass"  # wildcards are named __promptglass/…__


@dataclass(frozen=True)
class WildcardFile:
    """A file as it was found. `entries` are its choices, and of a .txt its comments and blank lines too."""

    path: Path
    name: str  # of its wildcard
    document: Any  # all of a .yaml or .json; None where there is no file
    entries: list[Any]

    @property
    def key(self) -> str:
        """Under which a mapping holds the entries."""
        return self.name if self.path.suffix == ".yaml" else self.path.stem


def file_name(name: str, format: str) -> str:
    """Below the readers' folder. A .yaml stands at its top, where the key alone is the name for all."""
    return f"{HOME}.{name.replace('/', '.')}.yaml" if format == "yaml" else f"{HOME}/{name}.{format}"


def wildcard_name(file_name: str) -> str:
    return file_name.rpartition(".")[0].replace(".", "/")


def read_wildcards(folder: Path, name: str) -> WildcardFile:
    """The file of that name, and where there is none, one without entries."""
    path = folder / name
    empty = WildcardFile(path, wildcard_name(name), None, [])
    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        document = _parsed(path.suffix, text)
        entries = _entries(document, empty.key, path.suffix)
    except FileNotFoundError:
        return empty
    except (ValueError, RecursionError) as error:
        reason = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else one_line(error)
        raise InputError(
            f"cannot merge into {visible(str(path))}: {reason}. Correct it or rename it."
        ) from error
    return WildcardFile(path, empty.name, document, entries)


def text_of(entry: Any) -> str:
    """What an entry gives to a prompt; nothing for a comment, a blank line and what is no text."""
    if isinstance(entry, dict):
        entry = entry.get("text") or entry.get("content")
    text = entry.strip() if isinstance(entry, str) else ""
    return "" if text.startswith("#") else text


def write_entries(file: WildcardFile, entries: list[Any]) -> None:
    """Replace the entries; a file that is left with nothing in it is removed."""
    document = _with_entries(file, entries)
    if document:
        write_whole(file.path, _dumped(file.path.suffix, document))
    else:
        file.path.unlink()


def write_whole(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Until it is whole it has a hidden name and a suffix that no host reads; a lock keeps sweepers off.
    with locked(path):
        replace_file(path, text.encode())


def _parsed(suffix: str, text: str) -> Any:
    if suffix == ".txt":
        return text.removesuffix("\n").split("\n") if text else []
    if suffix == ".json":
        return json.loads(text)
    yaml = _yaml()
    try:
        return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
    except yaml.YAMLError as error:
        raise ValueError(one_line(error)) from error


def _entries(document: Any, key: str, suffix: str) -> list[Any]:
    if isinstance(document, list) and suffix != ".yaml":
        return document
    if not isinstance(document, dict):
        raise ValueError("it holds no mapping")
    entries = document.get(key)
    entries = [entries] if isinstance(entries, str) else entries or []
    if not isinstance(entries, list):
        raise ValueError(f"it holds no list under {key}")
    return entries


def _with_entries(file: WildcardFile, entries: list[Any]) -> Any:
    if isinstance(file.document, dict):
        document = {**file.document, file.key: entries}
        return document if entries else {key: held for key, held in document.items() if key != file.key}
    # dynamicprompts drops what has a weight from a .json that is a list.
    has_weights = any(isinstance(entry, dict) for entry in entries)
    return {file.key: entries} if entries and (file.path.suffix == ".yaml" or has_weights) else entries


def _dumped(suffix: str, document: Any) -> str:
    if suffix == ".txt":
        return "".join(f"{line}\n" for line in document)
    if suffix == ".json":
        return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    yaml = _yaml()
    # Impact-Pack reads bytes as ISO-8859-1, so only ASCII comes out right; a choice may be long.
    return yaml.dump(
        document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), width=10**6, sort_keys=False
    )


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise DependencyMissing("a .yaml of wildcards", "pyyaml") from error
    return yaml
