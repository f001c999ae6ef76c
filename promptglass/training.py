"""Caption files for training: `photo.txt` beside `photo.png`, as kohya's scripts read them.

What a person wrote is kept word for word unless the run says `overwrite`; the same run again changes
nothing. No caption is ever replaced by nothing, and no kill leaves half a file. Whoever writes holds the
lock of the caption file (atomic.locked).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from .atomic import replace_file
from .errors import InputError, cause_of, visible

EXISTING = ("skip", "overwrite", "append", "prepend")

# One part of a caption that is there, trimmed; lines part it as commas do.
_PART = re.compile(r"[^\s,](?:[^,\r\n]*[^\s,])?")
# A NUL makes the file look like UTF-16, a byte order mark at its start would vanish when it is read.
_UNWRITABLE = {0: " ", 0xFEFF: " "}


@dataclass(frozen=True)
class CaptionFiles:
    """How captions are written; the options of one run.

    `prefix` and `suffix` are parts that every caption starts and ends with, as a trigger word: they are added
    last, so that no model, exclusion or replacement drops them. `exclude` and `replace` touch our parts only.
    """

    existing: str  # one of EXISTING: what happens where a caption is there already
    prefix: str = ""
    suffix: str = ""
    exclude: tuple[str, ...] = ()  # whole parts, or wildcards for them: "simple background", "*background"
    replace: tuple[tuple[str, str], ...] = ()  # whole words, in order; by nothing removes

    def __post_init__(self) -> None:
        if self.existing not in EXISTING:
            known = ", ".join(EXISTING)
            raise InputError(f"captions cannot be treated as {visible(self.existing)!r}. Use one of {known}.")

    def keeps(self, picture: Path) -> bool:
        """Whether `write` would leave this picture's caption alone, whatever the texts: none need be made."""
        return self.existing == "skip" and _read(caption_path(picture)) != ""

    def write(self, picture: Path, texts: Sequence[str]) -> bool:
        """Write one line from comma-parted texts, best first; True if that made or changed a file.

        The caller holds the lock of the caption file. Raises InputError for a caption that is there and
        cannot be used, OSError.
        """
        path = caption_path(picture)
        there = _read(path)
        ours = self._ours(texts)
        if (self.existing == "skip" and there) or not (ours or self._starts or self._ends):
            return False
        if there and self.existing != "overwrite":
            caption = self._merged(ours, there)
        else:
            caption = ", ".join(self._starts + ours + self._ends)
        if caption == there:
            return False
        replace_file(path, f"{caption}\n".encode())
        return True

    @property
    def _starts(self) -> list[str]:
        return _parts(self.prefix)

    @property
    def _ends(self) -> list[str]:
        return _parts(self.suffix)

    def _ours(self, texts: Sequence[str]) -> list[str]:
        line = ", ".join(part for part in _parts(",".join(texts)) if not self._excludes(part))
        for words, others in self.replace:
            line = _replaced(line, words, others)
        return _without(_parts(line), _keys(self._starts + self._ends))

    def _excludes(self, part: str) -> bool:
        key = _key(part)
        # Compared as it is, too: "[x]" can be a tag as well as a pattern.
        return any(key == pattern or fnmatchcase(key, pattern) for pattern in _keys(self.exclude))

    def _merged(self, ours: list[str], there: str) -> str:
        """The caption that is there, with those of our parts it does not hold, inside prefix and suffix."""
        found = list(_PART.finditer(there))
        keys = [_key(part.group()) for part in found]
        starts, ends = self._starts, self._ends
        first = len(starts) if keys[: len(starts)] == _keys(starts) else 0
        last = len(keys) - len(ends)
        if last < first or keys[last:] != _keys(ends):
            last = len(keys)
        inserts = [
            (0, starts if not first else []),
            (first if self.existing == "prepend" else last, _without(ours, keys)),
            (len(keys), ends if last == len(keys) else []),
        ]
        for index, parts in reversed(inserts):  # from the back, so that the places in front stay right
            at = found[index - 1].end() if index else 0
            added = ", ".join(parts)
            if added:
                there = f"{there[:at]}, {added}{there[at:]}" if at else f"{added}, {there}"
        return there


def caption_path(picture: Path) -> Path:
    """photo.txt for photo.png: the name by which kohya's scripts look for it."""
    return picture.with_suffix(".txt")


def colliding(pictures: Iterable[Path]) -> dict[Path, list[Path]]:
    """Captions that several pictures would share (a.png and a.jpg), with these pictures in their order."""
    sharing: dict[tuple[Path, str], list[Path]] = {}
    for picture in dict.fromkeys(pictures):
        path = caption_path(picture)
        # Training sets travel to systems where A.txt is a.txt.
        sharing.setdefault((path.parent, path.name.casefold()), []).append(picture)
    return {caption_path(found[0]): found for found in sharing.values() if len(found) > 1}


def parse_replacement(text: str) -> tuple[str, str]:
    """("grey", "gray") for "grey=gray"; "grey=" removes."""
    words, equals, others = text.partition("=")
    if not equals or not words.strip():
        raise InputError(f"no replacement: {visible(text)!r}. Write grey=gray, or grey= to remove a word.")
    return words.strip(), others.strip()


def parse_list(text: str) -> tuple[str, ...]:
    """("a", "b*", "c") for "a, b*,c"."""
    return tuple(_parts(text))


def _parts(text: str) -> list[str]:
    """What stands between commas, each once, each on one line and in what UTF-8 can hold."""
    parts: dict[str, str] = {}
    for piece in text.translate(_UNWRITABLE).encode("utf-8", "replace").decode().split(","):
        part = " ".join(piece.split())
        if part:
            parts.setdefault(_key(part), part)
    return list(parts.values())


def _key(part: str) -> str:
    return " ".join(part.split()).casefold()


def _keys(parts: Iterable[str]) -> list[str]:
    return [_key(part) for part in parts]


def _without(parts: Iterable[str], keys: Sequence[str]) -> list[str]:
    held = set(keys)
    return [part for part in parts if _key(part) not in held]


def _replaced(line: str, words: str, others: str) -> str:
    words = " ".join(words.split())
    if not words:
        return line
    # Punctuation has no word boundary: ":d" and "(x)" count wherever they stand.
    before = r"(?<!\w)" if re.match(r"\w", words[0]) else ""
    after = r"(?!\w)" if re.match(r"\w", words[-1]) else ""
    return re.sub(before + re.escape(words) + after, lambda _: others, line, flags=re.IGNORECASE)


def _read(path: Path) -> str:
    """The caption that is there, without blanks and commas around it; "" where there is none."""
    name = visible(str(path))
    try:
        if not path.exists() and not path.is_symlink():
            return ""
        if not path.is_file():  # nor a pipe: it would be waited for
            kind = "a folder" if path.is_dir() else "a broken link" if path.is_symlink() else "no file"
            raise InputError(f"cannot write {name}: it is {kind}. Move it away.")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    except OSError as error:
        raise InputError(f"cannot read {name}: {cause_of(error)}") from error
    if "\0" in text:
        raise InputError(f"cannot use {name}: it is not UTF-8 text. Save it as UTF-8 or delete it.")
    found = list(_PART.finditer(text))
    return text[found[0].start() : found[-1].end()] if found else ""
