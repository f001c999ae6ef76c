"""The library: pictures and their prompts in one SQLite file, found by words.

    library = Library()
    library.scan(Path("pictures"))
    for prompt in library.search("golden light"):
        print(library.image(prompt.image_id).path, prompt.text)

Sidecars are the truth: what stands here is made again from them by a scan, under the same ids. It is made for
several threads and several processes; whoever is killed leaves it as it was before the last transaction.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from . import library_schema as schema
from .errors import ImageError, InputError, cause_of, visible
from .folders import data_folder
from .intake import Budget
from .library_files import Fence, Looked, Prompt, found_at, look, sidecar_time
from .library_rows import LIBRARY_VARIABLE, Image, below, image_of, prompt_of, storable, told
from .library_search import as_text, contains, match_of
from .progress import Progress, silent
from .scan import Found, find_pictures
from .sidecar import now

_WAIT_S = 20.0  # for another process that writes; its transactions take milliseconds
_TOGETHER = 32  # pictures in a transaction: what is lost by a kill
_DECODED_BYTES = 1 << 30  # at a time
_MOST_NOTES = 100
# Ids are made of paths, so that a library that was deleted comes back with the same ones.
_IMAGES, _PROMPTS = uuid.UUID(int=0x7072_6F6D_7074_676C_6173_7300_0000_0001), uuid.UUID(int=2)


@dataclass
class Scanned:
    """What a scan did, by pictures. changed: they are others now; updated: only what is known of them is.

    encrypted: their sidecars' prompts are not taken in. prompts: in the library, of this folder. failures:
    (path, error), the first hundred of them.
    """

    found: int = 0
    added: int = 0
    changed: int = 0
    updated: int = 0
    moved: int = 0
    unchanged: int = 0
    missing: int = 0
    encrypted: int = 0
    failed: int = 0
    prompts: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)

    def fail(self, path: str, error: str) -> None:
        self.failed += 1
        if len(self.failures) < _MOST_NOTES:
            self.failures.append((path, error))


def library_path() -> Path:
    """$PROMPTGLASS_LIBRARY, or library.db where the system keeps a user's data."""
    named = os.environ.get(LIBRARY_VARIABLE, "").strip()
    return Path(named).expanduser() if named else data_folder() / "library.db"


class Library:
    """within: folders; what lies in none of them is not there for whoever asks. None: everything is.

    Raises InputError where the file cannot be used, Busy where another process does not stop writing.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = Path(path) if path is not None else library_path()
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot use the library {visible(str(self.path))}: {cause_of(error)}"
            ) from error
        with self._errors():
            self._connection = sqlite3.connect(
                self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
            try:
                self._has_full_text = schema.prepare(self._connection, self.path)
            except BaseException:
                self._connection.close()
                raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    # -- folders -------------------------------------------------------------------------------------------

    def scan(
        self,
        folder: Path,
        recursive: bool = True,
        progress: Progress = silent,
        roots: Sequence[Path] | None = None,
    ) -> Scanned:
        """Take in a folder's pictures. Ids stay, also of files that moved; what is gone is marked as missing.

        roots: where pictures may lie, their links resolved; None: anywhere. progress may raise to stop: what
        was taken in by then stays. Raises InputError where there is no folder.
        """
        scanned, fence = Scanned(), Fence(roots)
        pictures: list[Found] = []
        folder = Path(os.path.abspath(folder))  # noqa: PTH100 - Path.absolute keeps ".."
        for found in find_pictures(folder, recursive, lambda e: scanned.fail(e.name, str(e))):
            progress("looking", len(pictures), 0)
            if fence.lets_in(found.path):
                pictures.append(found)
            else:
                scanned.fail(found.path, _is_outside(found.path))
        scanned.found = len(pictures)
        known = self._known(folder)
        todo = [found for found in pictures if not _is_as_known(found, known.get(os.fsencode(found.path)))]
        scanned.unchanged = len(pictures) - len(todo)
        self._take_in(todo, scanned, progress)
        seen = {os.fsencode(found.path) for found in pictures}
        gone = [path for path, row in known.items() if path not in seen and not row["missing_since"]]
        self._mark_missing([path for path in gone if not os.path.lexists(path)], scanned)
        scanned.prompts = self._count_prompts(folder)
        return scanned

    def refresh(self, path: str) -> Looked:
        """Take in one picture as it is now. Raises ImageError."""
        looked = look(found_at(path))
        with self._writing():
            self._put(looked)
        return looked

    # -- what is asked -------------------------------------------------------------------------------------

    def image(self, id: str, within: Sequence[Path] | None = None) -> Image | None:
        place, values = below(within)
        rows = self._rows(f"SELECT * FROM images WHERE id = ? AND {place}", [as_text(id), *values])
        return image_of(rows[0]) if rows else None

    def images(
        self,
        limit: int = 50,
        offset: int = 0,
        query: str = "",
        within: Sequence[Path] | None = None,
        with_missing: bool = False,
    ) -> list[Image]:
        """In the order of their paths. query: words of the file's name, or of a prompt."""
        where, values = self._asked(query, within, with_missing)
        rows = self._rows(
            f"SELECT * FROM images WHERE {where} ORDER BY path LIMIT ? OFFSET ?", [*values, limit, offset]
        )
        return [image_of(row) for row in rows]

    def count(self, query: str = "", within: Sequence[Path] | None = None, with_missing: bool = False) -> int:
        where, values = self._asked(query, within, with_missing)
        return int(self._rows(f"SELECT COUNT(*) FROM images WHERE {where}", values)[0][0])

    def ids(self, within: Sequence[Path] | None = None) -> list[str]:
        """Of all images that are there, in the order of their paths."""
        where, values = self._asked("", within, False)
        return [row["id"] for row in self._rows(f"SELECT id FROM images WHERE {where} ORDER BY path", values)]

    def prompts_of(self, image_id: str) -> list[Prompt]:
        """The oldest first."""
        rows = self._rows(
            "SELECT * FROM prompts WHERE image_id = ? ORDER BY created, number", [as_text(image_id)]
        )
        return [prompt_of(row) for row in rows]

    def search(self, text: str, limit: int = 50, within: Sequence[Path] | None = None) -> list[Prompt]:
        """Prompts that have all of these words, the best first. No text is an error; none finds nothing."""
        place, values = below(within)
        picked = f"image_id IN (SELECT id FROM images WHERE {place})"
        if self._has_full_text and (match := match_of(text)):
            sql = (
                "SELECT prompts.* FROM prompts_fts JOIN prompts ON prompts.number = prompts_fts.rowid "
                f"WHERE prompts_fts MATCH ? AND {picked} ORDER BY bm25(prompts_fts), number LIMIT ?"
            )
            return [prompt_of(row) for row in self._rows(sql, [match, *values, limit])]
        holds, patterns = contains(text, "text")
        sql = f"SELECT * FROM prompts WHERE {holds} AND {picked} ORDER BY number DESC LIMIT ?"
        return [prompt_of(row) for row in self._rows(sql, [*patterns, *values, limit])]

    def add_prompt(self, image_id: str, prompt: Prompt) -> Prompt:
        """Keep a prompt; one that came about in the same way gives way to it. Raises InputError."""
        with self._writing():
            if self.image(image_id) is None:
                raise InputError(
                    f"there is no image {visible(image_id)[:64]} in the library. Scan its folder."
                )
            return self._keep(image_id, prompt)

    # -- within --------------------------------------------------------------------------------------------

    def _take_in(self, todo: Sequence[Found], scanned: Scanned, progress: Progress) -> None:
        """Decoded on threads, ahead of the transactions."""
        budget = Budget(_DECODED_BYTES)
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "promptglass-scan") as pool:
            try:
                for start in range(0, len(todo), _TOGETHER):
                    progress("taking in", start, len(todo))
                    these = todo[start : start + _TOGETHER]
                    looked = [*pool.map(lambda found: _looked(found, budget), these)]
                    with self._writing():
                        for one in looked:
                            self._count(one, scanned)
            finally:
                budget.close()
        progress("taking in", len(todo), len(todo))

    def _count(self, looked: Looked | ImageError, scanned: Scanned) -> None:
        if isinstance(looked, ImageError):
            scanned.fail(looked.name, str(looked))
            return
        status = self._put(looked)
        setattr(scanned, status, getattr(scanned, status) + 1)
        scanned.encrypted += looked.is_private
        if looked.note:
            scanned.fail(looked.path, looked.note)

    def _put(self, looked: Looked) -> str:
        """Within a transaction. What became of it: "added", "changed", "updated" or "moved"."""
        path = os.fsencode(looked.path)
        row = self._one("SELECT id, sha256 FROM images WHERE path = ?", path)
        status = "added" if row is None else "updated" if row["sha256"] == looked.sha256 else "changed"
        if row is None and (row := self._moved(looked.sha256)):
            status = "moved"
        image_id = row["id"] if row else self._new_id(path)
        name = as_text(os.path.basename(looked.path))  # noqa: PTH119
        self._run(
            "INSERT INTO images (id, path, name, sha256, size_bytes, modified_ns, sidecar_ns, width, height, "
            "format, added, missing_since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '') "
            "ON CONFLICT (id) DO UPDATE SET path = excluded.path, name = excluded.name, "
            "sha256 = excluded.sha256, size_bytes = excluded.size_bytes, modified_ns = excluded.modified_ns, "
            "sidecar_ns = excluded.sidecar_ns, width = excluded.width, height = excluded.height, "
            "format = excluded.format, missing_since = ''",
            image_id,
            path,
            name,
            as_text(looked.sha256),
            looked.size_bytes,
            storable(looked.modified_ns),
            None if looked.sidecar_ns is None else storable(looked.sidecar_ns),
            looked.width,
            looked.height,
            as_text(looked.format),
            now(),
        )
        if status == "changed":
            self._run("DELETE FROM prompts WHERE image_id = ?", image_id)
        kept = {self._keep(image_id, prompt).id for prompt in looked.prompts}
        if not looked.keeps:
            self._drop_all_but(kept, image_id)
        return status

    def _drop_all_but(self, kept: Collection[str], image_id: str) -> None:
        """Prompts that the file or its sidecar no longer hold."""
        rows = self._rows("SELECT id FROM prompts WHERE image_id = ? AND origin != 'library'", [image_id])
        for row in rows:
            if row["id"] not in kept:
                self._run("DELETE FROM prompts WHERE id = ?", row["id"])

    def _moved(self, sha256: str) -> sqlite3.Row | None:
        """An image of the same content whose file is gone from where it was."""
        rows = self._rows("SELECT id, path FROM images WHERE sha256 = ?", [as_text(sha256)])
        return next((row for row in rows if not os.path.lexists(row["path"])), None)

    def _new_id(self, path: bytes) -> str:
        id_ = str(uuid.uuid5(_IMAGES, path.hex()))
        is_taken = self._one("SELECT 1 FROM images WHERE id = ?", id_)  # by one that moved away from here
        return str(uuid.uuid4()) if is_taken else id_

    def _keep(self, image_id: str, prompt: Prompt) -> Prompt:
        settings = json.dumps(prompt.settings, sort_keys=True)
        mode, model = as_text(prompt.mode), as_text(prompt.model)
        id_ = str(uuid.uuid5(_PROMPTS, "\n".join((image_id, mode, model, settings))))
        kept = replace(prompt, id=id_, image_id=image_id, created=prompt.created or now())
        self._run(
            "INSERT INTO prompts (id, image_id, type, mode, model, text, negative, score, settings, "
            "comparison, created, origin) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (id) DO UPDATE SET "
            "text = excluded.text, negative = excluded.negative, score = excluded.score, "
            "comparison = excluded.comparison, created = excluded.created, origin = excluded.origin",
            id_,
            image_id,
            as_text(kept.type),
            mode,
            model,
            as_text(kept.text),
            None if kept.negative is None else as_text(kept.negative),
            kept.score,
            settings,
            None if kept.comparison is None else json.dumps(kept.comparison),
            as_text(kept.created),
            kept.origin,
        )
        return kept

    def _known(self, folder: Path) -> dict[bytes, sqlite3.Row]:
        place, values = below([folder])
        columns = "path, size_bytes, modified_ns, sidecar_ns, missing_since"
        return {
            bytes(row["path"]): row
            for row in self._rows(f"SELECT {columns} FROM images WHERE {place}", values)
        }

    def _mark_missing(self, paths: Sequence[bytes], scanned: Scanned) -> None:
        with self._writing():
            for path in paths:  # none of the library's any more, where the picture was found elsewhere
                scanned.missing += self._run(
                    "UPDATE images SET missing_since = ? WHERE path = ?", now(), path
                )

    def _count_prompts(self, folder: Path) -> int:
        place, values = below([folder])
        where = f"image_id IN (SELECT id FROM images WHERE {place} AND missing_since = '')"
        return int(self._rows(f"SELECT COUNT(*) FROM prompts WHERE {where}", values)[0][0])

    def _asked(self, query: str, within: Sequence[Path] | None, with_missing: bool) -> tuple[str, list[Any]]:
        """A condition on images."""
        place, values = below(within)
        conditions = [place, *([] if with_missing else ["missing_since = ''"])]
        if query.strip():
            has_name, names = contains(query, "name")
            match = match_of(query) if self._has_full_text else ""
            if match:
                numbers = "SELECT rowid FROM prompts_fts WHERE prompts_fts MATCH ?"
                has_prompt, prompts = f"number IN ({numbers})", [match]
            else:
                has_prompt, prompts = contains(query, "text")
            conditions.append(f"({has_name} OR id IN (SELECT image_id FROM prompts WHERE {has_prompt}))")
            values += [*names, *prompts]
        return " AND ".join(conditions), values

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock, self._errors():
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> sqlite3.Row | None:
        return next(iter(self._rows(sql, values)), None)

    def _run(self, sql: str, *values: Any) -> int:
        """Within a transaction. How many rows it concerned."""
        with self._errors():
            return self._connection.execute(sql, values).rowcount

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """All of it or nothing."""
        with self._lock, self._errors(), schema.transaction(self._connection):
            yield

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise told(error, self.path) from error


def _looked(found: Found, budget: Budget) -> Looked | ImageError:
    held: list[int] = []
    try:
        return look(found, lambda size_bytes: held.append(budget.take(size_bytes)))
    except ImageError as error:
        return error
    finally:
        budget.release(sum(held))


def _is_as_known(found: Found, row: sqlite3.Row | None) -> bool:
    if row is None or row["missing_since"]:
        return False
    if (row["size_bytes"], row["modified_ns"]) != (found.size_bytes, storable(found.modified_ns)):
        return False
    noted = row["sidecar_ns"]
    written = sidecar_time(found.path) if found.has_sidecar else None
    return bool(noted == (None if written is None else storable(written)))


def _is_outside(path: str) -> str:
    return f"{visible(path)} is a link out of the folders that may be used. Copy the picture here."
