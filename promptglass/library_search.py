"""What a user looks for, as SQLite takes it: any text at all is a question, and none is an error."""

from __future__ import annotations

import unicodedata

_MOST_CHARS, _MOST_WORDS = 1000, 32  # SQLite's parser of full text stops at some hundred words


def as_text(text: str) -> str:
    """Text that UTF-8 can hold: half a character becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def match_of(text: str) -> str:
    """An expression of FTS5 for texts with all of these words; "" where it would not find them.

    Every word is quoted, so that none is an operator. FTS5 knows no words in scripts without spaces, and no
    emoji.
    """
    words = _words(text)
    if any(unicodedata.east_asian_width(char) in "WF" for word in words for char in word):
        return ""
    return " ".join('"' + word.replace('"', '""') + '"' for word in words if any(map(str.isalnum, word)))


def contains(text: str, *columns: str) -> tuple[str, list[str]]:
    """A condition and its values: every word stands in one of the columns. For no words, it is false."""
    conditions, values = [], []
    for word in _words(text):
        pattern = "".join("\\" + char if char in "\\%_" else char for char in word)
        conditions.append("(" + " OR ".join(f"{column} LIKE ? ESCAPE '\\'" for column in columns) + ")")
        values += [f"%{pattern}%"] * len(columns)
    return "(" + " AND ".join(conditions) + ")" if conditions else "0", values


def _words(text: str) -> list[str]:
    # NUL would end the text for SQLite.
    return as_text(text[:_MOST_CHARS]).replace("\0", " ").split()[:_MOST_WORDS]
