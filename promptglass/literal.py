"""Text that every reader of wildcards gives back as it is.

Neither dynamicprompts nor Impact-Pack has an escape character: a `{`, `$`, `%`, `#` or `__` in a line changes
the prompt or breaks it, whatever stands before it. So what means something to either is replaced.
"""

from __future__ import annotations

import re
import unicodedata

# Nearly every line: words with single separators between them, nothing to replace. One pass and no
# backtracking, as no character can be both.
_SAFE = r"[^ _:/*{}|$%#<]"
_PLAIN = re.compile(rf"(?=[\W_]*[^\W_])(?!,){_SAFE}+(?:(?:[_:/*] ?| ){_SAFE}+)*(?<!,)")

_REPLACED = str.maketrans({"{": "(", "}": ")", "|": "/", "$": None, "#": None})
_ODD = re.compile(r"[^\w\x20-\x7e]")
_BLANK = {"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"}
_ZERO_WIDTH_JOINER = "\u200d"  # holds a woman and a rocket together: an astronaut
_WEIGHT = re.compile(r"[ ,]*(?:[-+]?[\d.]+ ?:: ?)+")  # newer Impact-Packs honour it in any file
_NETWORK = re.compile(r"<(?=\w+:)")  # <lora:…>, <lyco:…>, <hypernet:…>: what A1111 and Impact-Pack load


def literal_line(text: str, keep_networks: bool = False) -> str:
    """One line that all readers take literally; empty when no letter or digit is left.

    A network in a text that a model wrote would be loaded when a picture is made, so it is dropped.
    """
    if text.isprintable() and unicodedata.is_normalized("NFC", text) and _PLAIN.fullmatch(text):
        return text
    # What one replacement leaves may be what another looks for (`_$_`): repeat until nothing changes.
    while (line := _replaced(text, keep_networks)) != text:
        text = line
    return line if any(map(str.isalnum, line)) else ""


def _replaced(text: str, keep_networks: bool) -> str:
    text = _ODD.sub(_visible, unicodedata.normalize("NFC", text)).translate(_REPLACED)
    text = re.sub(r"%+(\w?)", lambda match: f" percent {match[1]}".rstrip(), text)
    text = " ".join(text.split())
    if not keep_networks and _NETWORK.search(text):
        text = _without_networks(text)
    text = _WEIGHT.sub("", text) if _WEIGHT.match(text) else text
    text = re.sub(r"_{2,}", "_", text)
    text = re.sub(r":{2,}", ":", text)
    text = re.sub(r"[/*]{2,}", lambda match: "/" if "/" in match[0] else match[0], text)  # // and /* */
    return text.strip(" ,")


def _visible(match: re.Match[str]) -> str:
    character = match[0]
    is_blank = unicodedata.category(character) in _BLANK and character != _ZERO_WIDTH_JOINER
    return " " if is_blank else character


def _without_networks(text: str) -> str:
    *closed, rest = text.split(">")
    kept = []
    for segment in closed:
        opening = _NETWORK.search(segment)
        kept.append(segment[: opening.start()] + " " if opening else segment + ">")
    # A `>` elsewhere in the user's prompt must not close what is open here.
    text = "".join([*kept, _NETWORK.sub(" ", rest)])
    return re.sub(r"[ ,]*,", ",", " ".join(text.split()))
