"""What a model answered, without what models put around an answer: reasoning, fences, labels, quotes.

Promises: a text that needs nothing comes back as it is, and nothing is guessed: what follows an answer stays.
Every answer that cannot be used becomes one ReplyError; those of `parse` can be quoted to the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import ReplyError, one_line, visible

Schema = Mapping[str, Any]


def clean(text: str) -> str:
    """The answer alone. Raises ReplyError where nothing is left of it."""
    answer = _outside(_REASONING.split(text))[0].strip()
    if not answer and text.strip():
        raise ReplyError("only reasoning was returned: raise max_tokens or switch thinking off")
    while (peeled := _peeled(answer)) != answer:  # `**Prompt:** "a cat"` has two layers
        answer = peeled
    if not answer:
        returned = f"nothing but {_shown(text)}" if text.strip() else "nothing"
        raise ReplyError(f"{returned} was returned: ask again, or use another model")
    return answer


def reasoning_filter(pieces: Iterable[str]) -> Iterator[str]:
    """What of a stream a person should see: the text outside of reasoning, wherever its pieces are cut.

    A closing tag that was never opened comes too late here: what stood before it is out already. `clean` of
    the whole text is right in that case too.
    """
    held, is_inside, has_begun = "", False, False
    for piece in pieces:
        *parts, last = _REASONING.split(held + piece)
        held = _begun_tag(last)
        shown, is_inside = _outside([*parts, last[: len(last) - len(held)]], is_inside)
        shown = shown if has_begun else shown.lstrip()
        if shown:
            has_begun = True
            yield shown
    if held and not is_inside:
        yield held


def parse(text: str, schema: Schema) -> Any:
    """The JSON in an answer, checked against a schema.

    Raises ReplyError with one line that says which field is wrong and how, and ValueError for a schema that
    check_schema refuses.
    """
    check_schema(schema)
    problems = []
    for value in _values(text):
        problem = next(_problems(value, schema, ""), None)
        if problem is None:
            return value
        problems.append(problem)
    if problems:
        raise ReplyError(f"the answer does not fit: {problems[0]}")
    raise ReplyError(_why_no_json(clean(text)))


def check_schema(schema: Schema, where: str = "schema") -> None:
    """Raises ValueError unless a schema keeps to the part of JSON Schema that `parse` knows."""
    if not isinstance(schema, Mapping):
        raise ValueError(f"{where} must hold keywords, not {_shown(schema)}")
    for keyword, value in schema.items():
        if keyword not in _KEYWORDS:
            raise ValueError(f"{where} has {_shown(keyword)}, known are only {', '.join(_KEYWORDS)}")
        if not _KEYWORDS[keyword](value):
            raise ValueError(f"{where}.{keyword} cannot be {_shown(value)}")
    for name, part in schema.get("properties", {}).items():
        check_schema(part, f"{where}.properties.{name}")
    if "items" in schema:
        check_schema(schema["items"], f"{where}.items")


_REASONING = re.compile(r"<(/?)(?:think|thinking|reasoning)>", re.IGNORECASE | re.ASCII)
_TAGS = [f"<{slash}{name}>" for slash in ("", "/") for name in ("think", "thinking", "reasoning")]


def _outside(parts: Sequence[str], is_inside: bool = False) -> tuple[str, bool]:
    """The text outside of tags, and whether one is open at the end. parts: text, slash, text, slash, text."""
    shown = "" if is_inside else parts[0]
    for slash, text in zip(parts[1::2], parts[2::2], strict=True):
        if slash and not is_inside:
            shown = ""  # the template had opened the tag in the prompt, only its end was returned
        is_inside = not slash
        shown += "" if is_inside else text
    return shown, is_inside


def _begun_tag(text: str) -> str:
    """The end of a text that the next piece may make a tag of."""
    end = text[text.rfind("<") :] if "<" in text else ""
    return end if any(tag.startswith(end.lower()) for tag in _TAGS) else ""


_NOUN = r"(?:prompts?|captions?|descriptions?|tags|critique|answer|output|response|result|version)"
_MODIFIERS = (
    r"(?:(?:the|your|my|a|new|final|refined|improved|revised|updated|enhanced|optimi[sz]ed|rewritten|suggested"
    r"|generated|negative|positive|image|art|training|detailed|short|stable[ ]diffusion|sdxl?|flux)\s+)*"
)
_CONSENT = r"(?:sure|certainly|of[ ]course|absolutely|okay|ok|great)(?:\s+thing)?[!,.]*"
_LABEL = re.compile(
    rf"""
      {_CONSENT}(?<=[!,.])[ ]*(?:\n|\Z)                                # Sure!
    | (?:{_CONSENT}\s+)?
      (?: [#*_ ]*{_MODIFIERS}{_NOUN}                                  # **Refined prompt:**
        | here(?:\s+is|\s+are|['’]s)\b[^:\n]{{0,60}}\b{_NOUN}\b[^:\n]{{0,60}}  # Here's a prompt for SDXL:
        | here\s+you\s+(?:go|are)
      )
      [ ]*[*_]*:[*_]*(?:\s|\Z)
    | (?:\#+|\*\*)[ ]*{_MODIFIERS}{_NOUN}[ ]*\**[ ]*(?:\n|\Z)         # ### Prompt
    """,
    re.IGNORECASE | re.VERBOSE,
)
_FENCE = re.compile(r"```(?:[\w+.-]*[ \t]*\n)?(.*?)```", re.DOTALL)
_QUOTES = (
    *(('"""', '"""'), ("**", "**"), ('"', '"'), ("'", "'"), ("`", "`")),
    *(("“", "”"), ("‘", "’"), ("„", "“"), ("„", "”"), ("”", "”"), ("«", "»"), ("»", "«")),
)


def _peeled(text: str) -> str:
    """A text without one layer of what may surround it."""
    for opening, closing in _QUOTES:
        is_quoted = text.startswith(opening) and text.endswith(closing)
        if is_quoted and len(text) >= len(opening + closing):
            inner = text[len(opening) : -len(closing)]
            letters = re.sub(r"(?<=\w)['’](?=\w)", "", inner)  # an apostrophe quotes nothing
            if opening not in letters and closing not in letters:  # unlike in `"a" and "b"`
                return inner.strip()
    fence = _FENCE.fullmatch(text)
    if fence and "```" not in fence[1]:
        return fence[1].strip()
    label = _LABEL.match(text)
    return text[label.end() :].strip() if label else text


_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*'
_OPENING = re.compile(r"[\[{]")
_TOKEN = re.compile(rf'{_STRING}(?:"|\Z)|[\[\]{{}}]', re.DOTALL)
_TRAILING_COMMA = re.compile(rf'({_STRING}")|,(?=\s*[\]}}])', re.DOTALL)
# A reader that starts anew at each bracket of a long answer full of them would never come to an end.
_ATTEMPTS = 30


def _values(text: str) -> Iterator[Any]:
    """The JSON values of an answer: the whole, or those that stand in it."""
    try:
        # First of all as it is: a picture may well show the word <think>.
        yield _loaded(text)
    except ValueError:
        yield from _values_in(clean(text))


def _values_in(text: str) -> Iterator[Any]:
    start = 0
    for _ in range(_ATTEMPTS):
        opening = _OPENING.search(text, start)
        if opening is None:
            return
        start = opening.start()
        end = _end_of_value(text, start)
        try:
            value = _loaded(_TRAILING_COMMA.sub(lambda match: match[1] or "", text[start:end]))
        except ValueError:
            start += 1  # Ollama may begin with `{{`: ollama/ollama#10929
        else:
            yield value
            start = end


def _end_of_value(text: str, start: int) -> int:
    """Where the bracket at `start` is closed again; `start` where it is not."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
        if depth == 0:
            return token.end()
    return start


def _loaded(text: str) -> Any:
    """Any JSON value that can be written again: no NaN, no infinity, no half of a character."""
    try:
        value = json.loads(text, strict=False)  # small models put bare newlines into strings
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return value


def _why_no_json(answer: str) -> str:
    opening = _OPENING.search(answer)
    if opening is None:
        return f"the answer is no JSON, it begins with {_shown(answer)}"
    start = opening.start()
    end = _end_of_value(answer, start)
    if end == start:
        return "the JSON of the answer breaks off: shorten it, or raise max_tokens"
    try:
        _loaded(answer[start:end])
    except ValueError as error:
        return f"the JSON of the answer is malformed: {one_line(error)}"
    return "the answer holds no JSON"


def _problems(value: Any, schema: Schema, path: str) -> Iterator[str]:
    """What is wrong with a value, and where."""
    name, kind = path or "the answer", schema.get("type")
    if kind and not _TYPES[kind](value):
        yield f"{name} must be of type {kind}, not {_shown(value)}"
    elif "enum" in schema and not any(_is_same(value, choice) for choice in schema["enum"]):
        yield f"{name} must be one of {', '.join(map(_shown, schema['enum']))}, not {_shown(value)}"
    elif isinstance(value, dict):
        yield from _problems_of_object(value, schema, path)
    elif isinstance(value, list):
        yield from _beyond(len(value), schema, "minItems", "maxItems", f"{name} must have", " items")
        for place, item in enumerate(value):
            yield from _problems(item, schema.get("items", {}), f"{path}[{place}]")
    elif isinstance(value, str):
        yield from _beyond(len(value), schema, "minLength", "maxLength", f"{name} must have", " characters")
    elif _TYPES["number"](value):
        yield from _beyond(value, schema, "minimum", "maximum", f"{name} must be", "")


def _problems_of_object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[str]:
    fields = schema.get("properties", {})
    for field in schema.get("required", ()):
        if field not in value:
            yield f"{_joined(path, field)} is missing"
    for field, part in value.items():
        if field in fields:
            yield from _problems(part, fields[field], _joined(path, field))
        elif not schema.get("additionalProperties", True):
            known = ", ".join(fields) or "none"
            yield f"{path or 'the answer'} must not have the field {_shown(field)}, known are: {known}"


def _joined(path: str, field: str) -> str:
    return f"{path}.{field}" if path else field


def _beyond(number: float, schema: Schema, low: str, high: str, must: str, unit: str) -> Iterator[str]:
    if number < schema.get(low, number):
        yield f"{must} at least {schema[low]}{unit}, not {number}"
    if number > schema.get(high, number):
        yield f"{must} at most {schema[high]}{unit}, not {number}"


def _is_same(value: object, choice: object) -> bool:
    return value == choice and isinstance(value, bool) == isinstance(choice, bool)  # True == 1


def _shown(value: object) -> str:
    """A value as JSON, on one line that is not too long."""
    text = visible(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 60 else text[:57] + "..."


_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "integer": lambda value: _TYPES["number"](value) and value == int(value),
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_choice(value: Any) -> bool:
    is_list = isinstance(value, list) and value != []
    return is_list and all(isinstance(item, (str, int, float, type(None))) for item in value)


def _are_names(value: Any) -> bool:
    return isinstance(value, (list, Mapping)) and all(isinstance(name, str) for name in value)


_is_text, _is_number, _is_bool = _TYPES["string"], _TYPES["number"], _TYPES["boolean"]

# What each keyword's own value must be.
_KEYWORDS: dict[str, Callable[[Any], bool]] = {
    "type": lambda value: isinstance(value, str) and value in _TYPES,
    "properties": lambda value: isinstance(value, Mapping) and _are_names(value),
    "required": lambda value: isinstance(value, list) and _are_names(value),
    "additionalProperties": _is_bool,
    "items": lambda value: isinstance(value, Mapping),
    "enum": _is_choice,
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), _is_count),
    **dict.fromkeys(("minimum", "maximum"), _is_number),
    **dict.fromkeys(("title", "description"), _is_text),  # for the model to read; they constrain nothing
}
