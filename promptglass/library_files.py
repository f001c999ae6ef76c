"""What a picture's file and its sidecar say, as the library keeps it. Reads only; never the database.

Prompts of an encrypted sidecar stay in it: the library is a plain file.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from .analyzers import CLIP_MODES, Recipe
from .errors import EncryptionKeyError, ImageError, SidecarError, cause_of, visible
from .fingerprint import file_sha256
from .images import open_file, read_picture
from .metadata import Embedded
from .scan import Found
from .sidecar import Content, Privacy, describes, entry_of, is_private_enough, path_of, read

EMBEDDED, CLIP_GENERATED, LLM_GENERATED, TAGGED = "embedded", "clip_generated", "llm_generated", "tagged"

Origin = Literal["file", "sidecar", "library"]


@dataclass(frozen=True)
class Prompt:
    """A prompt of a picture. origin: where it can be read again; of the `library` it is nowhere else."""

    type: str
    mode: str
    text: str
    model: str = ""
    negative: str | None = None
    score: float | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    comparison: Mapping[str, object] | None = None  # with the prompt in the file: see librarian.py
    created: str = ""
    origin: Origin = "library"
    id: str = ""  # given by the library
    image_id: str = ""


@dataclass(frozen=True)
class Looked:
    """A picture as it lies there. prompts: of its file and its sidecar.

    keeps: the sidecar could not be read (`note` says why), so what is known of it stays.
    """

    path: str
    sha256: str
    size_bytes: int
    modified_ns: int
    width: int
    height: int
    format: str
    prompts: Sequence[Prompt] = ()
    sidecar_ns: int | None = None  # when it was written; None: there is none
    keeps: bool = False
    is_private: bool = False
    note: str = ""


def type_of(mode: str) -> str | None:
    """What a prompt of a mode is called in the library; None for what is no prompt, a palette say."""
    if mode in CLIP_MODES or mode.startswith("webui/"):
        return CLIP_GENERATED
    if mode.startswith("llm/"):
        return LLM_GENERATED
    return {"embedded": EMBEDDED, "tags": TAGGED}.get(mode)


def look(found: Found, admit: Callable[[int], None] = lambda size_bytes: None) -> Looked:
    """A picture with what its sidecar holds. It is decoded only where its sidecar does not say enough.

    admit: see read_picture. Raises ImageError.
    """
    sidecar_ns = sidecar_time(found.path) if found.has_sidecar else None
    content, is_private, note = _sidecar(found.path) if sidecar_ns is not None else ({}, False, "")
    looked = _as_noted(found, content) if not is_private else None
    looked = looked or _as_read(found.path, admit)
    is_of_it = content.get("file_info", {}).get("sha256") == looked.sha256
    prompts = [*looked.prompts, *(_prompts(content) if is_of_it and not is_private else ())]
    return Looked(
        looked.path,
        looked.sha256,
        looked.size_bytes,
        looked.modified_ns,
        looked.width,
        looked.height,
        looked.format,
        prompts,
        -1 if note else sidecar_ns,  # to be tried again
        keeps=bool(note),
        is_private=is_private,
        note=note,
    )


def found_at(path: str) -> Found:
    """One picture as a scan would find it. Raises ImageError."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (OSError, ValueError) as error:
        reason = cause_of(error) if isinstance(error, OSError) else "this cannot be a path. Check the path."
        raise ImageError(path, reason) from error
    name = os.path.basename(path)  # noqa: PTH119
    extension = name[name.rfind(".") :].lower()
    has_sidecar = os.path.lexists(path_of(path))
    return Found(path, extension, status.st_size, status.st_mtime_ns, has_sidecar)


def sidecar_time(path: str) -> int | None:
    """When a picture's sidecar was written, in ns; None where there is none."""
    try:
        return path_of(path).stat().st_mtime_ns
    except OSError:
        return None


class Fence:
    """Whether a path, with its links resolved, lies in one of several folders; None: all are let in."""

    def __init__(self, roots: Sequence[Path] | None) -> None:
        self._roots = roots
        self._folders: dict[str, str] = {}  # as they are called, to where they are

    def lets_in(self, path: str) -> bool:
        if self._roots is None:
            return True
        folder, name = os.path.split(path)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)
        place = os.path.join(self._folders[folder], name)  # noqa: PTH118 - for every one of many files
        place = os.path.realpath(place) if os.path.islink(place) else place  # noqa: PTH114
        return any(Path(place).is_relative_to(root) for root in self._roots)


def iso(ns: int) -> str:
    """UTC as sidecars write it, sorting as text; "" for a time that no calendar has."""
    try:
        return (datetime(1970, 1, 1) + timedelta(0, 0, ns // 1000)).isoformat("T", "microseconds") + "Z"
    except OverflowError:
        return ""


def _sidecar(path: str) -> tuple[Content, bool, str]:
    """What it holds, whether it is encrypted, and why it cannot be used."""
    try:
        content = read(path_of(path))
        if content is None:
            return {}, False, f"{visible(str(path_of(path)))} cannot be understood. Run the batch again."
        return content, is_private_enough(path, Privacy(encrypt=True)), ""
    except EncryptionKeyError:
        return {}, True, ""
    except (SidecarError, OSError, ValueError) as error:  # of the second reading: it was replaced meanwhile
        return {}, False, visible(str(error))


def _as_noted(found: Found, content: Content) -> Looked | None:
    """The picture as its sidecar describes it; None where that is not enough, or it is another picture."""
    if not describes(content, found.size_bytes, found.modified_ns):
        return None
    info = content["file_info"]
    sha256, width, height, format_ = (info.get(name) for name in ("sha256", "width", "height", "format"))
    embedded = entry_of(content, "embedded", Recipe(None))
    is_known = isinstance(sha256, str) and isinstance(format_, str) and embedded is not None
    if not (is_known and _is_side(width) and _is_side(height)):
        return None
    return Looked(found.path, sha256, found.size_bytes, found.modified_ns, width, height, format_)


def _is_side(value: object) -> bool:
    return isinstance(value, int) and 0 < value < 2**31


def _as_read(path: str, admit: Callable[[int], None]) -> Looked:
    try:
        with open_file(path) as file:
            status, sha256 = os.fstat(file.fileno()), file_sha256(file)
            file.seek(0)
            picture = read_picture(file, path, admit=admit)
    except OSError as error:
        raise ImageError(path, cause_of(error)) from error
    size, modified_ns = status.st_size, status.st_mtime_ns
    prompts = [embedded_prompt(picture.embedded, iso(modified_ns))] if picture.embedded else []
    return Looked(path, sha256, size, modified_ns, *picture.size, picture.format, prompts)


def embedded_prompt(found: Embedded, created: str) -> Prompt:
    return Prompt(
        EMBEDDED, EMBEDDED, found.positive, found.source, found.negative, created=created, origin="file"
    )


def _prompts(content: Content) -> Iterator[Prompt]:
    """The prompts of a sidecar, which somebody else may have written."""
    for mode, entries in content.get("analysis", {}).items():
        type_ = type_of(mode)
        for entry in entries if type_ and isinstance(entries, list) else ():
            text = entry.get("prompt") if isinstance(entry, dict) else None
            if type_ and isinstance(text, str) and (text.strip() or mode == EMBEDDED):
                yield _prompt(type_, mode, text, entry)


def _prompt(type_: str, mode: str, text: str, entry: Mapping[str, Any]) -> Prompt:
    def given(name: str, kind: type | tuple[type, ...]) -> Any:
        value = entry.get(name)
        return value if isinstance(value, kind) and not isinstance(value, bool) else None

    score = given("score", (int, float))
    return Prompt(
        type_,
        mode,
        text,
        given("model", str) or "",
        given("negative", str),
        float(score) if score is not None and math.isfinite(score) and abs(score) < 1e6 else None,
        given("settings", dict) or {},
        given("comparison", dict),
        given("at", str) or "",
        "file" if mode == EMBEDDED else "sidecar",
    )
