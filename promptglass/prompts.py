"""What language models are told: our prompts, with a person's own file merged over them.

The rule for braces: `{caption}`, `{tags}`, `{tables}`, `{prompt}` and `{user}` are filled in, `{{word}}` is
the word in braces, any other `{word}` is a mistake, and every other brace stands for itself.

What comes from a picture is put on one line between quotation marks that it cannot close, and no value can
hold a model's control tokens. So a text on a photographed sign cannot pass for a line of ours; that a weak
model obeys it all the same, no wording can rule out.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import DependencyMissing, InputError, ReplyError, one_line, visible
from .folders import config_path
from .llm.replies import check_schema, parse

PLACEHOLDERS = ("caption", "tags", "tables", "prompt", "user")

Message = dict[str, str]


@dataclass(frozen=True)
class Example:
    """A worked example. input: what is put to the model, or values for the placeholders of the text."""

    input: str | Mapping[str, str]
    output: str


@dataclass(frozen=True)
class Prompt:
    """One task for a language model.

    judged: several answers are asked for, and CLIP chooses (refine.py). clip_tokens: how many of CLIP's
    tokens a judged answer may have; 77 is all that SD 1.5 and SDXL read, 0 is no limit. with_ocr: its `lines`
    are merged with what OCR reads.
    """

    id: str
    title: str
    text: str
    system: str = ""
    temperature: float = 0.5
    max_tokens: int = 150
    needs_image: bool = False
    judged: bool = False
    clip_tokens: int = 0
    with_ocr: bool = False
    schema: Mapping[str, Any] | None = None
    examples: tuple[Example, ...] = ()

    def messages(
        self,
        *,
        caption: str | None = None,
        tags: str | Sequence[str] | None = None,
        tables: str | Mapping[str, Iterable[str]] | None = None,
        prompt: str | None = None,
        user: str | None = None,
        with_image: bool = False,
    ) -> list[Message]:
        """The messages to send, oldest first. A line whose value is missing is left out.

        Raises InputError where no value is given that the text asks for, and no image is sent along; wishes
        alone are nothing to work on, unless the text asks for nothing else.
        """
        if isinstance(tables, Mapping):
            listed = {name: ", ".join(labels) for name, labels in tables.items()}
            tables = "; ".join(f"{name}: {labels}" for name, labels in listed.items() if labels)
        tags = tags if isinstance(tags, (str, type(None))) else ", ".join(tags)
        values = {"caption": caption, "tags": tags, "tables": tables, "prompt": prompt, "user": user}
        given = {name: value for name, value in values.items() if value and visible(value).strip()}
        asked = [name for name in PLACEHOLDERS if name in _placeholders(self.text)]
        matter = {*asked} - {"user"} or {*asked}
        if asked and not (self.needs_image or with_image) and not given.keys() & matter:
            needed = " or ".join(name for name in asked if name in matter)
            raise InputError(f"the prompt {self.id} has nothing to work on: give it {needed}")
        return [*self._opening, {"role": "user", "content": _filled(self.text, given)}]

    @property
    def fingerprint(self) -> str:
        """Changes with everything that shapes an answer, so that old answers can be told from new ones."""
        shaping = {
            "rendering": _RENDERING,
            "opening": self._opening,
            "text": self.text,
            "temperature": float(self.temperature),
            "max_tokens": self.max_tokens,
            "needs_image": self.needs_image,
            "judged": self.judged,
            "clip_tokens": self.clip_tokens,
            "with_ocr": self.with_ocr,
            "schema": self.schema,
        }
        return hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _opening(self) -> list[Message]:
        """What comes before the task itself."""
        opening = [{"role": "system", "content": self.system}] if self.system else []
        for example in self.examples:
            shown = example.input if isinstance(example.input, str) else _filled(self.text, example.input)
            opening += [{"role": "user", "content": shown}, {"role": "assistant", "content": example.output}]
        return opening


def load_prompts() -> dict[str, Prompt]:
    """Every prompt by its id: ours, changed and extended by the user's file where there is one.

    Raises InputError for a file that cannot be used; it names the file, the prompt and the field.
    """
    merged = _read(_OURS)
    path = user_file()
    theirs = _read(path) if path else {}
    for id_, entry in theirs.items():
        merged[id_] = {**merged.get(id_, {}), **entry}
    return {
        id_: _prompt(path if id_ in theirs and path else _OURS, id_, entry) for id_, entry in merged.items()
    }


def built_in_prompts() -> dict[str, Prompt]:
    """Ours, as they are without the user's file."""
    return {id_: _prompt(_OURS, id_, entry) for id_, entry in _read(_OURS).items()}


def user_file() -> Path | None:
    """The user's own prompts, where there are any; a file that $PROMPTGLASS_PROMPTS names must be there."""
    path = user_place()
    return path if os.environ.get("PROMPTGLASS_PROMPTS") or path.is_file() else None


def user_place() -> Path:
    """Where the user's own prompts belong: $PROMPTGLASS_PROMPTS, or prompts.yaml beside the settings."""
    named = os.environ.get("PROMPTGLASS_PROMPTS")
    return Path(named).expanduser() if named else config_path().parent / "prompts.yaml"


_OURS = Path(__file__).parent / "data" / "prompts.yaml"

# Part of every fingerprint: raise it when _filled changes what a model reads.
_RENDERING = 1
_PLACEHOLDER = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")


def _placeholders(text: str) -> list[str]:
    return [word for _, word in _PLACEHOLDER.findall(text) if word]


def _filled(text: str, given: Mapping[str, str]) -> str:
    kept = [line for line in text.splitlines() if {*_placeholders(line)} <= given.keys()]
    shown = {name: unmarked(value) if name == "user" else _quoted(value) for name, value in given.items()}
    filled = _PLACEHOLDER.sub(
        lambda match: shown[match[2]] if match[2] else f"{{{match[1]}}}", "\n".join(kept)
    )
    return re.sub(r"\n{3,}", "\n\n", filled).strip()


def _quoted(value: str) -> str:
    """One line between quotation marks, with none of them inside."""
    return '"' + visible(unmarked(value).replace('"', "'")).strip() + '"'


# <|im_end|>, </s>, <start_of_turn>, <<SYS>>, [INST]: what chat templates are made of. A server may take them
# for the real thing wherever they stand. <lora:name:1> is none.
_CONTROL = re.compile(r"<(?=[|<\uff5c]|/?\w+>)|\[(?=/?(?:INST|SYSTEM_PROMPT|THINK)\])", re.IGNORECASE)


def unmarked(text: str) -> str:
    """A text without control tokens, as a model gets to read it."""
    return _CONTROL.sub(lambda match: {"<": "‹", "[": "("}[match[0]], text.strip())


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The entries of a file by id, each with checked fields."""
    try:
        import yaml
    except ImportError as error:
        raise DependencyMissing("the prompt library", "PyYAML") from error
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise _wrong(path, f"{error.strerror or error}. Check its path and its permissions.") from error
    # ValueError: a date that no calendar has.
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _wrong(path, f"it is no YAML, {one_line(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise _wrong(path, "it must hold prompts by their id, such as `refine: {temperature: 0.2}`")
    for id_, entry in content.items():
        _check_entry(path, id_, entry)
    return content


def _check_entry(path: Path, id_: object, entry: object) -> None:
    if not isinstance(id_, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", id_):
        raise _wrong(
            path, f"{id_!r} is no id. Use lower-case letters, digits, - and _, a letter or digit first"
        )
    if not isinstance(entry, dict):
        raise _wrong(path, f"{id_} must hold fields such as text and temperature, not {entry!r}")
    for field, value in entry.items():
        if field not in _CHECKS:
            raise _wrong(path, f"{id_} has no field {field!r}.{_did_you_mean(field, _CHECKS)}")
        try:
            problem = _CHECKS[field](value)
        except RecursionError:  # an anchor inside of what it names
            problem = "refers to itself"
        if problem:
            raise _wrong(path, f"{id_}.{field} {problem}")


def _prompt(path: Path, id_: str, entry: Mapping[str, Any]) -> Prompt:
    for field in ("title", "text"):
        if field not in entry:
            raise _wrong(path, f"{id_}.{field} is missing")
    examples = tuple(Example(**example) for example in entry.get("examples", ()))
    prompt = Prompt(**{**entry, "id": id_, "examples": examples})
    if prompt.judged and prompt.schema is not None:
        raise _wrong(path, f"{id_} is judged, so its answer is a prompt: leave out schema or judged")
    lines = (prompt.schema or {}).get("properties", {}).get("lines", {})
    if prompt.with_ocr and (lines.get("type"), lines.get("items", {}).get("type")) != ("array", "string"):
        raise _wrong(path, f"{id_} has with_ocr: its schema needs `lines`, strings as in the prompt text")
    for place, example in enumerate(examples):
        try:
            if prompt.schema is not None:
                parse(example.output, prompt.schema)
        except ReplyError as error:
            raise _wrong(path, f"{id_}.examples[{place}].output must fit the schema, but {error}") from error
    return prompt


def _wrong(path: Path, reason: str) -> InputError:
    return InputError(visible(f"cannot use the prompts in {path}: {reason}"))


def _did_you_mean(word: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(word), known, n=1)
    return f" Did you mean {near[0]}?" if near else f" Known are {', '.join(known)}."


# What is wrong with the value of a field, if anything is; read after "refine.text ".


def _check_line(value: object) -> str | None:
    if not isinstance(value, str):
        return (
            f"must be text, not {value!r}. Put it between quotation marks, or after `|-` on lines of its own"
        )
    return None if value.strip() else "must not be empty"


def _check_text(value: object) -> str | None:
    problem = _check_line(value)
    unknown = [word for word in _placeholders(str(value)) if word not in PLACEHOLDERS]
    if problem or not unknown:
        return problem
    word, hint = unknown[0], _did_you_mean(unknown[0], PLACEHOLDERS)
    return f"has {{{word}}}, which nothing fills in.{hint} Double the braces for the word {{{word}}} itself"


def _check_system(value: object) -> str | None:
    if value == "":
        return None
    asked = [word for word in _placeholders(str(value)) if word in PLACEHOLDERS]
    return _check_line(value) or (f"has {{{asked[0]}}}, which is filled in only in text" if asked else None)


def _check_temperature(value: object) -> str | None:
    is_right = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 2
    return None if is_right else f"must be a number from 0 to 2, not {value!r}"


def _check_max_tokens(value: object) -> str | None:
    is_right = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return None if is_right else f"must be a whole number above 0, not {value!r}"


def _check_clip_tokens(value: object) -> str | None:
    is_right = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return None if is_right else f"must be a whole number, 0 for no limit, not {value!r}"


def _check_bool(value: object) -> str | None:
    return None if isinstance(value, bool) else f"must be true or false, not {value!r}"


def _check_schema(value: Any) -> str | None:
    try:
        if value is not None:
            check_schema(value)
    except ValueError as error:
        return f"cannot be used: {error}"
    return None


def _check_examples(value: object) -> str | None:
    if not isinstance(value, list):
        return "must be a list of input and output"
    for place, example in enumerate(value):
        if not isinstance(example, dict) or example.keys() != {"input", "output"}:
            return f"must be a list of input and output, which number {place + 1} is not"
        given = example["input"]
        values = given if isinstance(given, dict) else {"user": given}
        if not all(isinstance(text, str) for text in (*values.values(), example["output"])):
            return f"must hold text, which number {place + 1} does not"
        if unknown := [name for name in values if name not in PLACEHOLDERS]:
            return f"number {place + 1} gives {unknown[0]!r}.{_did_you_mean(unknown[0], PLACEHOLDERS)}"
    return None


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "title": _check_line,
    "text": _check_text,
    "system": _check_system,
    "temperature": _check_temperature,
    "max_tokens": _check_max_tokens,
    "needs_image": _check_bool,
    "judged": _check_bool,
    "clip_tokens": _check_clip_tokens,
    "with_ocr": _check_bool,
    "schema": _check_schema,
    "examples": _check_examples,
}
