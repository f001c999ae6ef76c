"""The JSON beside a picture: what was found out about it, by which model, with which settings.

`photo.png.promptglass.json` belongs to photo.png; docs/sidecar.schema.json describes it. Whatever else stands
in such a file survives: unknown keys, unknown modes, answers of other models. A file that cannot be
understood is kept aside, one of a newer schema is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import encryption
from .atomic import locked, replace_file
from .errors import SidecarError, cause_of

if TYPE_CHECKING:
    from .analyzers import Answer, Recipe

SUFFIX = ".promptglass.json"
SCHEMA = 1

Content = dict[str, Any]


class _NotOurs(ValueError):
    """A file that is no sidecar, or a damaged one."""

    is_encrypted = False


@dataclass(frozen=True)
class FileFacts:
    """What a sidecar says about its picture's file."""

    sha256: str
    pixels_sha256: str | None  # see fingerprint.py
    size_bytes: int
    modified_ns: int
    created_ns: int | None
    width: int
    height: int
    format: str


@dataclass(frozen=True)
class Privacy:
    """What a sidecar may give away: the picture's file name, and all of it. Never loosened once written."""

    names: Literal["plain", "hash", "omit"] = "plain"
    encrypt: bool = False

    @property
    def hides(self) -> bool:
        return self.encrypt or self.names != "plain"


PLAIN = Privacy()


def path_of(picture: str | os.PathLike[str]) -> Path:
    """Where a picture's sidecar lies."""
    return Path(os.fspath(picture) + SUFFIX)


def read(path: str | os.PathLike[str]) -> Content | None:
    """What a sidecar holds, decrypted; None where there is none, or one that cannot be understood.

    Raises SidecarError for a newer schema or a file that cannot be opened, EncryptionKeyError for one that
    the key at hand does not open.
    """
    try:
        return _parsed(path)[0]
    except (FileNotFoundError, _NotOurs):
        return None


def section_of(mode: str) -> str:
    """Where a mode's entries stand: llm/describe@eyes beside those of llm/describe by other models."""
    return mode.partition("@")[0]


def now() -> str:
    """The time as entries note it: UTC, sorting as text."""
    return str(_time(time.time_ns()))


def describes(content: Content, size_bytes: int, modified_ns: int) -> bool:
    """Whether a file of this size and time is the one the sidecar was written for, as far as these tell."""
    info = content.get("file_info", {})
    return info.get("size") == size_bytes and info.get("modified") == _time(modified_ns)


def entry_of(content: Content, mode: str, recipe: Recipe) -> Content | None:
    """What a mode answered by this recipe: {} where it found nothing to say, None where it was not asked."""
    entries = content.get("analysis", {}).get(section_of(mode))
    if not isinstance(entries, list):
        return None
    for entry in reversed(entries):
        if recipe.made(entry):
            return entry
    return {} if recipe.model is None else None  # {}: a file without a prompt in it, say


def update(
    picture: str | os.PathLike[str],
    facts: FileFacts,
    recipes: Mapping[str, Recipe],
    answers: Sequence[Answer],
    privacy: Privacy = PLAIN,
) -> Path | None:
    """Put answers into a picture's sidecar. `recipes` names the modes that were asked, answered or not.

    Gives the place where a file that could not be understood was kept, if there was one. Raises SidecarError,
    EncryptionKeyError, and OSError where the folder cannot be written to.
    """
    path = path_of(picture)
    kept: Path | None = None
    with locked(path):
        content: Content = {}
        was_encrypted = False
        try:
            content, was_encrypted = _parsed(path)
            _written(content, encrypt=False)  # a number too large for JSON, or too deep a nesting
        except FileNotFoundError:
            pass
        except (ValueError, RecursionError) as error:
            content, kept = {}, _keep_aside(path)
            was_encrypted = was_encrypted or (isinstance(error, _NotOurs) and error.is_encrypted)
        merged = _merged(content, facts, recipes, answers)
        merged = _with_name(merged, Path(picture).name, privacy, is_new="file_info" not in content)
        try:
            written = _written(merged, privacy.encrypt or was_encrypted)
        except ValueError as error:
            raise SidecarError(str(path), f"an answer cannot be written as JSON ({error}).") from error
        replace_file(path, written)
    return kept


def is_private_enough(picture: str | os.PathLike[str], privacy: Privacy) -> bool:
    """Whether a sidecar that is there gives away no more than it may."""
    content, is_encrypted = _parsed(path_of(picture))
    name = content.get("file_info", {}).get("filename", "")
    is_hidden = {"plain": True, "hash": not name or _is_hashed(name), "omit": not name}[privacy.names]
    return is_hidden and (is_encrypted or not privacy.encrypt)


def rewrite(
    picture: str | os.PathLike[str], new_times: os.stat_result | None = None, privacy: Privacy = PLAIN
) -> None:
    """Note the size and time of a file that was only copied or restored; hide what is to be hidden."""
    path = path_of(picture)
    with locked(path):
        content, was_encrypted = _parsed(path)
        if new_times is not None:
            times = {"size": new_times.st_size, "modified": _time(new_times.st_mtime_ns)}
            content = {**content, "file_info": {**content.get("file_info", {}), **times}}
        content = _with_name(content, Path(picture).name, privacy, is_new=False)
        replace_file(path, _written(content, privacy.encrypt or was_encrypted))


def _parsed(path: str | os.PathLike[str]) -> tuple[Content, bool]:
    """A sidecar's content, and whether it was encrypted. Raises FileNotFoundError and _NotOurs as well."""
    try:
        raw = _bytes(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SidecarError(str(path), cause_of(error)) from error
    content = _checked(path, raw)
    envelope = content.get("encrypted")
    if envelope is None:
        return content, False
    try:
        return _checked(path, encryption.unseal(envelope, str(path))), True
    except ValueError as error:
        not_ours = _NotOurs()
        not_ours.is_encrypted = True
        raise not_ours from error


def _bytes(path: str | os.PathLike[str]) -> bytes:
    # A rescan reads tens of thousands of these: a file object for each would take as long as all the rest.
    descriptor = os.open(path, _READ)
    try:
        raw = block = os.read(descriptor, _BLOCK)
        while len(block) == _BLOCK:
            block = os.read(descriptor, _BLOCK)
            raw += block
            if len(raw) > _TOO_LARGE:
                raise SidecarError(str(path), "it is too large to be a sidecar. Move it away.")
    finally:
        os.close(descriptor)
    return raw


_BLOCK, _TOO_LARGE = 1 << 14, 1 << 26
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe would be waited for


def _checked(path: str | os.PathLike[str], raw: bytes) -> Content:
    try:
        # Nearly always UTF-8 without a mark; asking takes as long as decoding.
        text = raw.decode("utf-8" if raw[:2] == b"{\n" else json.detect_encoding(raw)).strip()
        content, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError) as error:
        raise _NotOurs from error
    if end != len(text) or not isinstance(content, dict):
        raise _NotOurs
    schema = content.get("schema", SCHEMA)
    if isinstance(schema, bool) or not isinstance(schema, int | float):
        raise _NotOurs
    if schema > SCHEMA:
        reason = f"it has schema {schema}, written by a newer promptglass. Update this one."
        raise SidecarError(str(path), reason)
    parts = content.get("file_info", {}), content.get("analysis", {})
    if schema != SCHEMA or not all(isinstance(part, dict) for part in parts):
        raise _NotOurs
    return content


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _keep_aside(path: Path) -> Path:
    stem = path.name if len(os.fsencode(path.name)) < 240 else f"{_hashed(path.name)[-16:]}{SUFFIX}"
    names = (path.with_name(f"{stem}.bad{number or ''}") for number in count())
    kept = next(name for name in names if not os.path.lexists(name))
    path.rename(kept)
    return kept


def _merged(
    content: Content, facts: FileFacts, recipes: Mapping[str, Recipe], answers: Sequence[Answer]
) -> Content:
    at = now()
    info = dict(content.get("file_info", {}))
    is_same_picture = info.get("sha256", facts.sha256) == facts.sha256
    analysis = dict(content.get("analysis", {})) if is_same_picture else {}
    for mode, recipe in recipes.items():
        entries = analysis.get(section := section_of(mode), [])
        entries = entries if isinstance(entries, list) else [entries]
        analysis[section] = [entry for entry in entries if not recipe.made(entry)]
        analysis[section] += [_entry(answer, at) for answer in answers if answer.mode == mode]
    info = {
        **info,
        "sha256": facts.sha256,
        "pixels_sha256": facts.pixels_sha256,
        "size": facts.size_bytes,
        "modified": _time(facts.modified_ns),
        "created": None if facts.created_ns is None else _time(facts.created_ns),
        "processed": at,
        "width": facts.width,
        "height": facts.height,
        "format": facts.format,
    }
    return {**content, "schema": SCHEMA, "file_info": info, "analysis": analysis}


def _with_name(content: Content, name: str, privacy: Privacy, is_new: bool) -> Content:
    """The sidecar with as much of the picture's name as it may hold: never more than it held before."""
    info = dict(content["file_info"])
    shown = info.pop("filename", name if is_new else None)
    if isinstance(shown, str) and privacy.names != "omit":
        # The file may have been renamed together with its sidecar.
        hide = privacy.names == "hash" or _is_hashed(shown)
        info = {"filename": _hashed(name) if hide else name, **info}
    return {**content, "file_info": info}


def _entry(answer: Answer, now: str | None) -> Content:
    score = {} if answer.score is None else {"score": round(answer.score, 6)}
    settings = {"settings": answer.settings} if answer.settings else {}
    elapsed = {"elapsed_s": round(answer.elapsed_s, 3), "at": now}
    return {"model": answer.model, "prompt": answer.text, **score, **settings, **answer.details, **elapsed}


def _written(content: Content, encrypt: bool) -> bytes:
    if encrypt:
        envelope = encryption.seal(json.dumps(content, allow_nan=False).encode())
        content = {"schema": SCHEMA, "encrypted": envelope}
    try:
        text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False).encode()
    except UnicodeEncodeError:  # a file name that is no text
        text = json.dumps(content, indent=1, allow_nan=False).encode()
    return text + b"\n"


_HASHED = "sha256:"


def _is_hashed(name: object) -> bool:
    return isinstance(name, str) and name.startswith(_HASHED)


def _hashed(name: str) -> str:
    return _HASHED + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _time(ns: int) -> str | None:
    """UTC to the microsecond; None for a time that no calendar has."""
    try:
        return (_EPOCH + timedelta(0, 0, ns // 1000)).isoformat("T", "microseconds") + "Z"
    except OverflowError:
        return None


_EPOCH = datetime(1970, 1, 1)
