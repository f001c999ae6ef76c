"""The library's tables: numbered migrations, one after the other, and full text where SQLite has it.

A migration that was published is never edited: the next one changes what it made.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from .atomic import locked
from .errors import InputError, visible

# Paths are bytes: a name need not be text. Times are UTC as text, and sort as such; `_ns` are integers.
MIGRATIONS: Sequence[Sequence[str]] = (
    (
        """
        CREATE TABLE images (
            id TEXT PRIMARY KEY NOT NULL,
            path BLOB NOT NULL UNIQUE,
            name TEXT NOT NULL,
            sha256 TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            modified_ns INTEGER NOT NULL,
            sidecar_ns INTEGER,
            width INTEGER NOT NULL,
            height INTEGER NOT NULL,
            format TEXT NOT NULL,
            added TEXT NOT NULL,
            missing_since TEXT NOT NULL DEFAULT ''
        )
        """,
        "CREATE INDEX images_by_sha256 ON images (sha256)",
    ),
    (
        # number: what full text goes by; it must not change by VACUUM.
        """
        CREATE TABLE prompts (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            image_id TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE,
            type TEXT NOT NULL,
            mode TEXT NOT NULL,
            model TEXT NOT NULL DEFAULT '',
            text TEXT NOT NULL,
            negative TEXT,
            score REAL,
            settings TEXT NOT NULL DEFAULT '{}',
            comparison TEXT,
            created TEXT NOT NULL,
            origin TEXT NOT NULL DEFAULT 'library'
        )
        """,
        "CREATE INDEX prompts_by_image ON prompts (image_id)",
    ),
)

# Not a migration: whether it can be there is up to the SQLite at hand, which may be another one tomorrow.
FULL_TEXT = """
    CREATE VIRTUAL TABLE IF NOT EXISTS prompts_fts USING fts5 (
        text, content = 'prompts', content_rowid = 'number',
        tokenize = 'porter unicode61 remove_diacritics 2'
    )
"""
_OUT = "INSERT INTO prompts_fts (prompts_fts, rowid, text) VALUES ('delete', old.number, old.text);"
_IN = "INSERT INTO prompts_fts (rowid, text) VALUES (new.number, new.text);"
_TRIGGERS = {
    "prompts_fts_in": f"AFTER INSERT ON prompts BEGIN {_IN} END",
    "prompts_fts_out": f"AFTER DELETE ON prompts BEGIN {_OUT} END",
    "prompts_fts_new": f"AFTER UPDATE ON prompts BEGIN {_OUT} {_IN} END",
}


def prepare(connection: sqlite3.Connection, path: Path) -> bool:
    """Bring a library up to date. Whether it has full text.

    Raises InputError for a newer one and for another program's file; sqlite3.Error.
    """
    connection.row_factory = sqlite3.Row
    with locked(path):  # two processes must not both turn it to WAL, which waits for nobody
        version = _number(connection, "user_version")
        has_tables = connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None
        if not 0 <= version <= len(MIGRATIONS) or (version == 0 and has_tables):
            raise InputError(f"cannot use the library {visible(str(path))}: {_why_not(version)}")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            connection.execute("PRAGMA journal_mode = WAL")  # where a file system cannot, it stays as it was
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        for number, statements in enumerate(MIGRATIONS[version:], version + 1):
            with transaction(connection):
                for statement in statements:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {number}")
        return _with_full_text(connection)


def _why_not(version: int) -> str:
    another = "name another file in PROMPTGLASS_LIBRARY"
    if version <= 0:
        return f"it is another program's database. Move it away, or {another}."
    known = len(MIGRATIONS)
    return (
        f"a newer promptglass made it (version {version}; this one knows {known}). Update this, or {another}."
    )


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing. Within another one, a part of that."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # a full disk rolls back by itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _with_full_text(connection: sqlite3.Connection) -> bool:
    triggers = connection.execute(
        "SELECT COUNT(*) FROM sqlite_master WHERE name LIKE 'prompts_fts_%' AND type = 'trigger'"
    )
    is_complete = triggers.fetchone()[0] == len(_TRIGGERS)
    try:
        with transaction(connection):
            connection.execute(FULL_TEXT)
            connection.execute(
                "SELECT 1 FROM prompts_fts LIMIT 0"
            )  # a table may be there, and its module not
            if not is_complete:
                for name, what in _TRIGGERS.items():
                    connection.execute(f"CREATE TRIGGER IF NOT EXISTS {name} {what}")
                connection.execute("INSERT INTO prompts_fts (prompts_fts) VALUES ('rebuild')")
        return True
    except sqlite3.OperationalError as error:
        if "locked" in str(error) or "busy" in str(error):
            raise
    with transaction(connection):  # without its module they would fail; they are made again with it
        for name in _TRIGGERS:
            connection.execute(f"DROP TRIGGER IF EXISTS {name}")
    return False


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    return int(connection.execute(f"PRAGMA {pragma}").fetchone()[0])
