"""The text in a picture, put together from what a language model and OCR have read."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ocr import Line


@dataclass(frozen=True)
class Reading:
    """A line, and who has read it: ("llm",), ("ocr",) or ("llm", "ocr")."""

    text: str
    by: tuple[str, ...]


def merged(lines_of_llm: Sequence[str], lines_of_ocr: Sequence[Line]) -> list[Reading]:
    """What a language model and OCR have read in the same picture.

    What both have read is said once, as the model spells it and parts it into lines. What OCR alone has read
    follows the line after which it stands in the picture. Blank lines are left out.
    """
    said = [line for line in lines_of_llm if line.strip()]
    seen = [line.text for line in lines_of_ocr if line.text.strip()]
    places = _places(said, seen)
    both = {number for place in places for number in place.lines}
    here = next((place.lines[0] for place in places if place.lines), len(said))
    only_ocr: list[list[str]] = [[] for _ in (None, *said)]  # in front of the first line and after each
    for text, place in zip(seen, places, strict=True):
        if place.lines:
            here = place.lines[-1] + 1
        if not place.is_said:
            only_ocr[here].append(text)
    readings = [Reading(text, ("ocr",)) for text in only_ocr[0]]
    for number, text in enumerate(said):
        readings.append(Reading(text, ("llm", "ocr") if number in both else ("llm",)))
        readings += [Reading(more, ("ocr",)) for more in only_ocr[number + 1]]
    return readings


# One wrong letter in so many is an error of OCR; shorter lines must be alike, and be whole words.
_ONE_ERROR_IN = 5
_LOOKALIKES = str.maketrans("01i258", "ollzsb")


class _Letters:
    """A text as it is compared: no case, no accents, no spaces, no punctuation, no lookalikes."""

    def __init__(self, *lines: str) -> None:
        words = [word for line in lines for word in _words(line)]
        self.plain = "".join(words)
        self.key = self.plain.translate(_LOOKALIKES)
        # Where a word may begin or end; anywhere in scripts without spaces.
        self.edges = {0, *accumulate(map(len, words))}
        self.edges |= {
            k
            for k in range(1, len(self.key))
            if not (_has_spaces(self.key[k - 1]) and _has_spaces(self.key[k]))
        }

    def spans(self, other: _Letters) -> list[tuple[int, int]]:
        """Wherever the other stands in this one."""
        length = len(other.key)
        spans = [(start, start + length) for start in self._found(other.key)]
        if length < _ONE_ERROR_IN:
            return [span for span in spans if self.edges.issuperset(span)]
        return spans or self._alike(other)

    def _alike(self, other: _Letters) -> list[tuple[int, int]]:
        """Where the other stands but for single wrong letters; a wrong digit is no small error."""
        length, errors = len(other.key), len(other.key) // _ONE_ERROR_IN
        matcher = SequenceMatcher(None, "", other.key, autojunk=False)
        spans = []
        for start in sorted(self._starts(other.key, errors)):
            window = self.key[start : start + length + errors]
            matcher.set_seq1(window)
            if matcher.quick_ratio() * (len(window) + length) / 2 < length - errors:  # letters in common
                continue
            end, wrong = start, 0
            for kind, i, i_end, j, j_end in matcher.get_opcodes():
                if j_end == length:  # what follows in the window is not wrong
                    i_end = min(i_end, i + j_end - j)
                end = start + i_end
                if kind != "equal":
                    letters = self.plain[start + i : end] + other.plain[j:j_end]
                    is_small = len(letters) <= 3 and not any(letter.isdigit() for letter in letters)
                    wrong += max(i_end - i, j_end - j) if is_small else length
            if wrong <= errors:
                spans.append((start, end))
        return spans

    def _starts(self, key: str, errors: int) -> set[int]:
        """Where the key may begin with a word: of so many parts, one more than errors, one has no error."""
        part = len(key) // (errors + 1)
        return self.edges & {
            found - k + shift
            for k in range(0, len(key) - part + 1, part)
            for found in self._found(key[k : k + part])
            for shift in range(-errors, errors + 1)
        }

    def _found(self, key: str) -> Iterator[int]:
        start = -1
        while (start := self.key.find(key, start + 1)) >= 0:
            yield start


def _words(text: str) -> list[str]:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(c for c in decomposed if not unicodedata.category(c).startswith("M"))
    words: list[str] = re.findall(r"[^\W_]+", unicodedata.normalize("NFC", bare))
    return words or text.split()  # signs alone must be the same signs


def _has_spaces(letter: str) -> bool:
    """Whether this script parts its words: Chinese, Japanese and Thai know no capitals either."""
    return letter.isdigit() or letter.upper() != letter


@dataclass(frozen=True)
class _Place:
    """The lines of the model that a line of OCR belongs to: they say all of it, or are parts of it."""

    lines: Sequence[int]
    is_said: bool


def _places(said: list[str], seen: list[str]) -> list[_Place]:
    """Long lines choose first, and of several alike each gets a line of its own, as long as there is one."""
    lines, whole = [_Letters(line) for line in said], _Letters(*said)
    ends = list(accumulate(len(line.key) for line in lines))
    taken: set[int] = set()

    def touched(start: int, end: int) -> range:
        return range(bisect(ends, start), bisect(ends, end - 1) + 1)

    def fit(span: tuple[int, int]) -> tuple[bool, int, int, int]:
        numbers = touched(*span)
        around = sum(len(lines[number].key) for number in numbers)
        return not taken.isdisjoint(range(*span)), around, len(numbers), span[0]

    letters = [_Letters(line) for line in seen]
    places = [_Place([], is_said=False)] * len(seen)
    for place in sorted(range(len(seen)), key=lambda place: -len(letters[place].key)):
        if spans := whole.spans(letters[place]):
            start, end = min(spans, key=fit)
            taken.update(range(start, end))
            places[place] = _Place(touched(start, end), is_said=True)
        else:
            parts = [number for number, line in enumerate(lines) if letters[place].spans(line)]
            places[place] = _Place(parts, is_said=False)
    return places
