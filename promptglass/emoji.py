"""An emoji for a label, or none: nothing is better than a wrong one.

Names come from our own list (data/emoji.txt) and, where it is installed, from the library `emoji`, of which
only the official names count: its chat aliases make a waving hand of a wave and a flag of "it".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

_OURS = Path(__file__).parent / "data" / "emoji.txt"
# Unicode's emoji version of 2022: newer ones are empty boxes on many a machine.
_NEWEST_SHOWN = 15
_LONGEST_NAME = 4  # words of a phrase that are tried together
# The thing itself stands before these: a girl with a pearl earring is a girl.
_AFTER_THE_THING = re.compile(r" (?:of|with|without|in|on|at|by|from|near|under|holding|wearing) ")


def emoji_of(label: str) -> str:
    """The emoji that a label names, "" where none does.

    Of a phrase it is the whole one's, else that of the thing the phrase is about: its last words.
    """
    phrase = _name(label)
    words = _AFTER_THE_THING.split(phrase, maxsplit=1)[0].split()[-_LONGEST_NAME:]
    for name in (phrase, *(" ".join(words[start:]) for start in range(len(words)))):
        if found := _named(name):
            return found
    return ""


def label_lines(text: str) -> dict[str, str]:
    """Labels, one a line, and the emoji that each one states ("" where none).

    `label` or `label = EMOJI`; a line that begins with # and a label that was there before, in whatever case,
    are left out.
    """
    found: dict[str, str] = {}
    seen: set[str] = set()
    for line in text.lstrip("\ufeff").splitlines():
        label, emoji = _split(" ".join(line.split()))
        if label and not label.startswith("#") and label.casefold() not in seen:
            seen.add(label.casefold())
            found[label] = emoji
    return found


def _split(line: str) -> tuple[str, str]:
    head, equals, emoji = (part.strip() for part in line.rpartition("="))
    # What is no emoji is the rest of a label: of `e=mc2`, of `fox = dog`.
    is_emoji = not emoji.isascii() and not any(c.isalpha() or c.isspace() for c in emoji)
    return (head, emoji) if equals and (is_emoji or not emoji) else (line, "")


def _named(name: str) -> str:
    for form in (name, *_other_numbers(name)):
        for names in (_own_names(), _library_names()):
            if form in names:
                return names[form]
    return ""


def _other_numbers(name: str) -> Iterator[str]:
    """The singulars that a plural may have, and the plural: the library knows grapes, but no grape."""
    if name.endswith("ies"):
        yield f"{name[:-3]}y"
    if name.endswith("ves"):
        yield f"{name[:-3]}f"
        yield f"{name[:-3]}fe"
    if name.endswith("es"):
        yield name[:-2]
    if name.endswith("s") and not name.endswith("ss"):
        yield name[:-1]
    else:
        yield f"{name[:-1]}ies" if name.endswith("y") else f"{name}s"


@functools.cache
def _own_names() -> Mapping[str, str]:
    return {_name(label): emoji for label, emoji in label_lines(_OURS.read_text("utf-8")).items()}


@functools.cache
def _library_names() -> Mapping[str, str]:
    try:
        from emoji import EMOJI_DATA, STATUS
    except ImportError:  # not installed, older than 2.0, or another thing of this name
        return {}
    return {
        _name(entry["en"].strip(":")): symbol
        for symbol, entry in EMOJI_DATA.items()
        if entry["status"] == STATUS["fully_qualified"] and entry["E"] <= _NEWEST_SHOWN
        if not _is_flag_of_a_country(symbol)  # a turkey is a bird, a jersey a shirt
    }


def _is_flag_of_a_country(symbol: str) -> bool:
    return "\U0001f1e6" <= symbol[0] <= "\U0001f1ff"


def _name(label: str) -> str:
    """A label as names are compared: in lower case, words apart, without article."""
    words = re.sub("[_-]", " ", label.casefold().replace("’", "'")).split()
    return " ".join(words[1:] if words[:1] and words[0] in ("a", "an", "the") else words)
