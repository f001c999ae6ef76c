"""A prompt that a language model proposes, put right where that is possible: what must be kept, length."""

from __future__ import annotations

import functools
import importlib.util
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from .prompts import unmarked

log = logging.getLogger("promptglass")

_TOO_LONG = 10_000  # characters; a server may pass max_tokens over


def put_right(
    text: str,
    keep: Sequence[str] = (),
    artists: Sequence[str] = (),
    clip_tokens: int = 0,
    unwanted: Collection[str] = (),
) -> tuple[str, str]:
    """The prompt in one line, with all that is to be kept; and what is wrong with it, empty if nothing is.

    artists: labels ("by X"); it is their names that are kept. clip_tokens: where a list of phrases is for
    CLIP, each phrase comes once, the unwanted ones go, and the last ones that do not fit.
    """
    if len(text) > _TOO_LONG:
        return "", "it is too long to be a prompt"
    wanted = {words: words for given in keep if (words := " ".join(given.split()).strip(" ,"))}
    text = _without_negative(" ".join(_as_given(text, wanted).split())).strip(" ,")
    wanted |= {_BY.sub("", artist): artist for artist in artists}  # to words that show it, what is appended
    phrases = [*_distinct(_phrases(text), unwanted)] if clip_tokens else [text] * bool(text)
    if not phrases:
        return "", "there is no prompt in it"
    if missing := _missing(", ".join(phrases), wanted):
        last = phrases[-1].rstrip(" .!?\u3002\uff01\uff1f")
        is_harmless = all(holds(last, words) for words in wanted if holds(phrases[-1], words))
        phrases = [*phrases[:-1], last if is_harmless else phrases[-1], *missing]
    is_fitting = not clip_tokens or _fit(phrases, wanted, clip_tokens)
    right = ", ".join(filter(None, phrases))
    if not is_fitting:
        return right, f"it is longer than the {clip_tokens} tokens that CLIP reads"
    lost = [words for words in wanted if not holds(right, words)]
    if lost:
        return right, f"it lost {lost[0]}"
    return right, "it repeats itself" if _loops(right) else ""


def holds(text: str, words: str) -> bool:
    """Whether a text has these words: in any case and spacing, but not as a part of others."""
    pattern = r"\s+".join(re.escape(word) for word in words.split())
    return re.search(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE) is not None


_of_host: list[Callable[[str], int]] = []


def count_clip_tokens_by(counter: Callable[[str], int]) -> None:
    """For a host that brings CLIP's tokenizer. counter: tokens of a text, with start and end."""
    _of_host[:] = [counter]


def clip_token_counter() -> Callable[[str], int] | None:
    """Counts the tokens of a text for SD's CLIP, with start and end; None where no tokenizer is installed."""
    return _of_host[0] if _of_host else _of_open_clip()


@functools.cache
def _of_open_clip() -> Callable[[str], int] | None:
    if importlib.util.find_spec("open_clip") is None:
        log.warning("refined prompts may be too long, nobody counts tokens: pip install open_clip_torch")
        return None
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    return lambda text: len(tokenizer.encode(text)) + 2


_BY = re.compile(r"^(?:inspired )?by (?=.)", re.IGNORECASE)
_NEGATIVE = re.compile(r"(?<![^\W_])negative[ _]prompts?[\W_]*:", re.IGNORECASE)
_NETWORK = re.compile(r"<(\w+:[^:<>]+)[^<>]*>")  # <lora:name:0.8>, of any weight


def _as_given(text: str, wanted: Iterable[str]) -> str:
    """What is to be kept as the user wrote it, where the model has it in another form."""
    for words in wanted:
        text = text.replace(unmarked(words), words)
        if network := _NETWORK.fullmatch(words):
            other = re.compile(rf"<{re.escape(network[1])}(?::[^<>]*)?>", re.IGNORECASE)
            text = words.join(other.split(text))
    return text


def _missing(said: str, wanted: Mapping[str, str]) -> list[str]:
    """What has to be appended; what is part of another comes with it."""
    missing: set[str] = set()
    for words in sorted(wanted, key=len, reverse=True):
        if not holds(", ".join((said, *missing)), words):
            missing.add(wanted[words])
    return [appended for appended in dict.fromkeys(wanted.values()) if appended in missing]


def _without_negative(text: str) -> str:
    found = _NEGATIVE.search(text)
    return text[: found.start()].rstrip(" ,;.*_#") if found else text


def _phrases(text: str) -> Iterator[str]:
    """What stands between commas; a comma in brackets parts nothing."""
    start = depth = 0
    for place, character in enumerate(text):
        depth = max(depth + (character in "([{") - (character in ")]}"), 0)
        if character == "," and not depth:
            yield text[start:place].strip()
            start = place + 1
    yield text[start:].strip()


def _distinct(phrases: Iterable[str], unwanted: Iterable[str]) -> Iterator[str]:
    seen = {"", *map(str.casefold, unwanted)}
    for phrase in phrases:
        if phrase.casefold() not in seen:
            yield phrase
            seen.add(phrase.casefold())
        elif phrase == "BREAK":  # begins another 77 tokens in A1111
            yield phrase


def _fit(phrases: list[str], wanted: Mapping[str, str], clip_tokens: int) -> bool:
    """Leave out phrases from the end until the rest fits; whether it does."""
    count = clip_token_counter()
    # A phrase with its comma has two tokens at least: most of a very long list need not be counted.
    most = clip_tokens // 2
    phrases[most:] = [phrase for phrase in phrases[most:] if any(holds(phrase, words) for words in wanted)]
    while count and count(", ".join(phrases)) > clip_tokens:
        dispensable = _last_dispensable(phrases, wanted)
        if dispensable is None:
            return False
        del phrases[dispensable]
    return True


def _last_dispensable(phrases: Sequence[str], wanted: Iterable[str]) -> int | None:
    """The last phrase, but not the first, without which nothing is lost that is to be kept."""
    for place in range(len(phrases) - 1, 0, -1):
        rest = ", ".join((*phrases[:place], *phrases[place + 1 :]))
        if all(holds(rest, words) for words in wanted):
            return place
    return None


def _loops(text: str) -> bool:
    """Whether six words in a row come three times."""
    words = re.findall(r"\w+", text.casefold())
    runs = Counter(tuple(words[place : place + 6]) for place in range(len(words) - 5))
    return any(count > 2 for count in runs.values())
