"""What lies in a folder: its pictures, its sidecars, and what a killed process left behind.

Hidden and temporary files are passed over, a folder is never entered twice (links may lead back), and the
order is always the same. No picture is opened.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from .atomic import sweep
from .errors import ImageError, InputError, SidecarError, cause_of
from .images import AVIF, HEIC
from .sidecar import SUFFIX, Content, read

_RASTER = (
    ".apng",
    ".bmp",
    ".dib",
    ".gif",
    ".jfif",
    ".jpe",
    ".jpeg",
    ".jpg",
    ".png",
    ".tif",
    ".tiff",
    ".webp",
)
EXTENSIONS = frozenset((*_RASTER, *HEIC, *AVIF))  # of pictures
# Folders of the system, and thumbnails that a NAS keeps of the pictures beside them.
_NOT_OURS = frozenset({"$recycle.bin", "@eadir", "__macosx", "lost+found", "system volume information"})

_DANGLING = "it is a link to something that is not there. Delete the link."

Entries = dict[str, "os.DirEntry[str]"]
Report = Callable[[ImageError], None]


class Found(NamedTuple):
    """A picture as the directory knows it."""

    path: str
    extension: str  # ".png"
    size_bytes: int
    modified_ns: int
    has_sidecar: bool


def find_pictures(folder: Path, recursive: bool, report: Report) -> Iterator[Found]:
    """The pictures of a folder, in the order of their names. What cannot be looked at is reported.

    Removes what promptglass itself left there when it was killed. Raises InputError where there is no folder.
    """
    for place, entries in _folders(folder, recursive, report):
        for name, entry in entries.items():
            if name[0] == ".":
                sweep(place, name)
                continue
            extension = name[name.rfind(".") :].lower()
            if extension not in EXTENSIONS or name[0] == "~":
                continue
            try:
                status = entry.stat()
            except OSError as error:
                is_gone = isinstance(error, FileNotFoundError)
                if not is_gone or entry.is_symlink():  # else it was removed meanwhile
                    report(ImageError(entry.path, _DANGLING if is_gone else cause_of(error)))
                continue
            if not (stat.S_ISDIR(status.st_mode) or _is_hidden(status)):
                has_sidecar = name + SUFFIX in entries
                yield Found(entry.path, extension, status.st_size, status.st_mtime_ns, has_sidecar)


def read_sidecars(
    folder: Path, recursive: bool, report: Callable[[SidecarError | ImageError], None]
) -> Iterator[tuple[str, Content]]:
    """The sidecars of a folder in the order of their names, each with the folder it lies in ("", "a/b").

    What cannot be read is reported. Raises InputError where there is no folder, EncryptionKeyError.
    """
    for place, entries in _folders(folder, recursive, report):
        within = Path(place).relative_to(folder).as_posix()
        for name, entry in entries.items():
            if not name.endswith(SUFFIX) or name[0] in ".~":
                continue
            try:
                content = read(entry.path)
            except SidecarError as error:
                report(error)
                continue
            if content is None:
                report(SidecarError(entry.path, "it cannot be understood. Run the batch again."))
            else:
                yield ("" if within == "." else within), content


def _folders(folder: Path, recursive: bool, report: Report) -> Iterator[tuple[str, Entries]]:
    """Folders with what is in them, in the order of the names."""
    if not folder.is_dir():
        what = "it is a file. Give the folder it lies in." if folder.exists() else "there is no such folder."
        raise InputError(f"cannot read {folder}: {what}")
    waiting, seen = [str(folder)], set()
    while waiting:
        place = waiting.pop()
        try:
            status = os.stat(place)  # noqa: PTH116 - a Path for every one of many folders takes longer
            # Some network shares number nothing.
            identity = (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(place)
            if identity in seen:
                continue
            seen.add(identity)
            with os.scandir(place) as found:
                entries = {entry.name: entry for entry in found}
        except OSError as error:
            report(ImageError(place, cause_of(error)))
            continue
        entries = {name: entries[name] for name in sorted(entries)}
        if recursive:
            folders = [entry for entry in entries.values() if _is_folder(entry)]
            waiting += [entry.path for entry in reversed(folders) if _is_worth_entering(entry)]
        yield place, entries


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and not (sys.platform == "win32" and _is_hidden(entry.stat()))
    except OSError:  # a link that leads back to itself
        return False


def _is_worth_entering(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    return name[0] not in ".~" and name.lower() not in _NOT_OURS


def _is_hidden(status: os.stat_result) -> bool:
    return sys.platform == "win32" and bool(status.st_file_attributes & stat.FILE_ATTRIBUTE_HIDDEN)
