"""From a file to a picture that this process alone works on: claimed, hashed and decoded, in bounded memory.

Runs on threads, ahead of the models.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from .analyzers import Answer
from .atomic import Claim, claim
from .errors import ImageError, InputError, cause_of
from .fingerprint import file_sha256, pixels_sha256
from .images import Picture, open_file, read_picture
from .scan import Found
from .sidecar import Content, FileFacts, describes, path_of, read


@dataclass
class Claimed:
    """A picture that this process works on, with what was found out about it so far."""

    path: str
    claim: Claim
    content: Content  # of its sidecar; empty where there is none, or one of another picture
    missing: list[str] = field(default_factory=list)  # modes
    new_times: os.stat_result | None = None  # nothing is missing, but size and time are to be noted
    picture: Picture | None = None  # where something is missing
    facts: FileFacts | None = None
    budget_bytes: int = 0  # its share
    answers: list[Answer] = field(default_factory=list)
    answered_modes: set[str] = field(default_factory=set)  # also with nothing to say
    failures: list[str] = field(default_factory=list)
    note: str | None = None  # what the user should know although it went well


class Intake:
    """Claims and loads pictures. verify: hash also where size and time are the noted ones."""

    def __init__(self, missing: Callable[[Content], list[str]], verify: bool, budget: Budget) -> None:
        self._missing = missing
        self._verify = verify
        self._budget = budget

    def load(self, found: Found) -> Claimed | None:
        """A picture, decoded if something is missing; None where another process has it.

        Raises ImageError, SidecarError, EncryptionKeyError; OSError where nothing can be written beside it.
        """
        taken = claim(Path(found.path))
        if taken is None:
            return None
        claimed = Claimed(found.path, taken, {})
        try:
            self._look(claimed, found)
        except OSError as error:
            self.give_back(claimed)
            raise ImageError(found.path, cause_of(error)) from error
        except BaseException:
            self.give_back(claimed)
            raise
        return claimed

    def give_back(self, claimed: Claimed) -> None:
        self.forget_pixels(claimed)
        claimed.claim.release()

    def forget_pixels(self, claimed: Claimed) -> None:
        claimed.picture = None
        self._budget.release(claimed.budget_bytes)
        claimed.budget_bytes = 0

    def _look(self, claimed: Claimed, found: Found) -> None:
        # Read again: between the scan and the claim another process may have done the picture.
        claimed.content = read(path_of(found.path)) or {}
        is_known = describes(claimed.content, found.size_bytes, found.modified_ns) and not self._verify
        if is_known and not self._missing(claimed.content):
            return
        with open_file(found.path) as file:
            status = os.fstat(file.fileno())
            sha256 = file_sha256(file)
            if claimed.content.get("file_info", {}).get("sha256", sha256) != sha256:
                claimed.content = {}
            claimed.missing = self._missing(claimed.content)
            if claimed.missing:
                self._decode(claimed, file, status, sha256)
            elif not describes(claimed.content, status.st_size, status.st_mtime_ns):
                claimed.new_times = status

    def _decode(self, claimed: Claimed, file: BinaryIO, status: os.stat_result, sha256: str) -> None:
        def admit(size_bytes: int) -> None:
            claimed.budget_bytes = self._budget.take(size_bytes)

        file.seek(0)
        picture = read_picture(file, claimed.path, admit=admit)
        now = os.fstat(file.fileno())
        if (now.st_size, now.st_mtime_ns) != (status.st_size, status.st_mtime_ns):
            raise ImageError(claimed.path, "it changed while it was read. Run again.")
        pixels = pixels_sha256(file)
        claimed.picture = picture
        claimed.facts = _facts(picture, status, sha256, pixels)


def facts_of(path: str) -> FileFacts:
    """What a sidecar says about a picture's file. Raises ImageError, OSError."""
    with open_file(path) as file:
        status, sha256 = os.fstat(file.fileno()), file_sha256(file)
        file.seek(0)
        return _facts(read_picture(file, path), status, sha256, pixels_sha256(file))


def _facts(picture: Picture, status: os.stat_result, sha256: str, pixels: str | None) -> FileFacts:
    size, modified_ns, created_ns = status.st_size, status.st_mtime_ns, _created_ns(status)
    return FileFacts(sha256, pixels, size, modified_ns, created_ns, *picture.size, picture.format)


class Budget:
    """Bytes that may be held at a time; who wants more waits until others have given back theirs.

    What is larger than all of it comes in alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._is_closed = False
        self._changed = threading.Condition()

    def take(self, size: int) -> int:
        """The bytes to give back. Raises InputError once the budget is closed."""
        size = min(size, self._limit)
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed or self._held + size <= self._limit)
            if self._is_closed:
                raise InputError("stopped")
            self._held += size
        return size

    def release(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    def close(self) -> None:
        """Let in nobody more: the work ends, and those who wait are to end, too."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()


def _created_ns(status: os.stat_result) -> int | None:
    if (birth := getattr(status, "st_birthtime", None)) is not None:
        return int(birth * 1e9)
    return status.st_ctime_ns if os.name == "nt" else None  # elsewhere it is the time of the last change
