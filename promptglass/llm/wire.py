"""What the three wire formats share: a question before it has a format, and what is heard in answer to it.

A whole answer is one piece, a streamed one is many; a reply is their sum. Everything here is pure: the
formats (`openai`, `ollama`, `anthropic`) turn questions into bodies, and bodies and lines into pieces.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

# How JSON is asked for: by its schema, as any JSON at all, or in words alone.
Form = Literal["json_schema", "json_object", "words"]


@dataclass(frozen=True)
class Turn:
    role: str  # system, user or assistant
    content: str
    jpegs: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Question:
    model: str
    turns: tuple[Turn, ...]
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    is_streamed: bool = False
    schema: Mapping[str, Any] | None = None
    form: Form = "words"
    left_out: frozenset[str] = frozenset()  # parameters that the endpoint has refused


@dataclass(frozen=True)
class Piece:
    text: str = ""
    reasoning: str = ""
    model: str = ""
    finish_reason: str = ""  # stop, length, refusal, or the server's own word
    usage: Mapping[str, int] = field(default_factory=dict)  # prompt_tokens, completion_tokens
    is_end: bool = False


class ServerError(Exception):
    """An error object where an answer was expected: with status 200, or in the middle of a stream."""

    def __init__(self, answer: object) -> None:
        super().__init__("an error object")
        self.answer = answer


class Wire(Protocol):
    """A format. The modules of this package are its only implementations."""

    FORMS: tuple[Form, ...]

    def addresses(self, base_url: str) -> Addresses: ...

    def headers(self, key: str, body: Mapping[str, Any]) -> dict[str, str]: ...

    def body(self, question: Question) -> dict[str, Any]: ...

    def whole(self, answer: Any) -> Piece: ...

    def line(self, line: str) -> Piece | None: ...

    def models(self, answer: Any) -> dict[str, bool | None]: ...


@dataclass(frozen=True)
class Addresses:
    root: str  # without the version: what is not part of the format lies below it
    chat: str
    models: str


def lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a body, wherever it is cut; no line is decoded before it is whole."""
    rest = bytearray()
    for chunk in chunks:
        rest += chunk
        if b"\n" in chunk:
            *whole, rest = rest.split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace").rstrip("\r")
    if rest:
        yield rest.decode("utf-8", "replace").rstrip("\r")


def event_data(line: str) -> str | None:
    """What a line of server-sent events carries. Comments, names of events and blank lines carry nothing."""
    line = line.lstrip("\ufeff")
    return line[len("data:") :].strip() or None if line.startswith("data:") else None


def joined(pieces: Iterable[Piece]) -> Piece:
    """Everything that was heard, as one piece."""
    heard = list(pieces)
    usage: dict[str, int] = {}
    for piece in heard:
        usage.update(piece.usage)
    return Piece(
        text=_whole_characters("".join(piece.text for piece in heard)),
        reasoning="".join(piece.reasoning for piece in heard),
        model=next((piece.model for piece in heard if piece.model), ""),
        finish_reason=next((piece.finish_reason for piece in reversed(heard) if piece.finish_reason), ""),
        usage=usage,
        is_end=any(piece.is_end for piece in heard),
    )


def as_text(content: object) -> str:
    """The text of a message: a string, null, or a list of parts of which some are text."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if part.get("type") == "text")
    return content if isinstance(content, str) else ""


def counted(usage: object, **names: str) -> dict[str, int]:
    """Token counts under our names, those that are there: counted(usage, prompt_tokens="input_tokens")."""
    if not isinstance(usage, Mapping):
        return {}
    counts = {ours: usage.get(theirs) for ours, theirs in names.items()}
    return {name: count for name, count in counts.items() if isinstance(count, int)}


def base64_of(jpeg: bytes) -> str:
    return base64.b64encode(jpeg).decode("ascii")


def without(given: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that were given at all."""
    return {name: value for name, value in given.items() if value is not None}


def versioned_base(base_url: str, *endings: str) -> tuple[str, str]:
    """Root and base of an address given with or without `/v1`, or down to one of the endings.

    An address that names any version in its path is taken as it is: `…/v1beta/openai`, `…/api/paas/v4`.
    """
    base = base_url.rstrip("/")
    for ending in endings:
        base = base.removesuffix(ending).rstrip("/")
    path = base.split("://", 1)[-1].split("/")[1:]
    if not any(part[:1] == "v" and part[1:2].isdigit() for part in path):
        return base, base + "/v1"
    return base.removesuffix("/v1"), base


def _whole_characters(text: str) -> str:
    """An emoji that was cut in two by the escapes of JSON is one again; half of one becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
