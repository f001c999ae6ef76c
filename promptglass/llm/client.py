"""Questions to one endpoint, in its format: sent, tried again where that helps, and heard piece by piece."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from . import anthropic, ollama, openai
from .faults import Fault, Teller
from .profiles import Profile
from .wire import Piece, Question, ServerError, Wire, lines

if TYPE_CHECKING:
    from .transport import Answer, Call, Transport

log = logging.getLogger("promptglass")

_WIRES: dict[str, Wire] = {"openai": openai, "ollama": ollama, "anthropic": anthropic}
_T = TypeVar("_T")


class Client:
    """Safe to be used from many threads."""

    def __init__(self, profile: Profile) -> None:
        self.wire = _WIRES[profile.protocol]
        self.addresses = self.wire.addresses(profile.base_url)
        self.shown = f"{profile.name} ({profile.base_url.rstrip('/')})"
        self._profile = profile
        self._lock = threading.Lock()
        self._connected: tuple[Transport, str, Teller] | None = None
        self._left_out: frozenset[str] = frozenset()

    def without_key(self, text: str) -> str:
        """A text that something from the server got into."""
        return self._connected[2].without_key(text) if self._connected else text

    def call(self, stop: threading.Event | None, within_s: float) -> Call:
        from .transport import Call

        is_total = within_s == self._profile.total_s
        way_out = "Raise total_s." if is_total else "Check that the server is not stuck."
        return Call(time.monotonic() + within_s, f"not finished within {within_s:g} s. {way_out}", stop)

    def pieces(self, question: Question, call: Call, is_shown: bool) -> Generator[Piece, None, None]:
        """What is heard. Everything that may pass is tried again, until the first word that is shown."""
        transport = self._connection()[0]
        while True:
            asked = replace(question, left_out=self._left_out)
            try:
                before, rest = transport.persist(functools.partial(self._begun, asked, call, is_shown), call)
                break
            except Fault as fault:
                refused = _refused_parameter(fault, asked)
                if refused is None:
                    raise
                log.warning("%s takes no %s: it is left out from now on", self.shown, refused)
                self._left_out |= {refused}
        with contextlib.closing(rest):
            yield from before
            yield from rest

    def json(self, method: str, url: str, body: Mapping[str, Any] | None, call: Call) -> Any:
        """What an address answers, in one try."""
        transport, key, teller = self._connection()
        content = None if body is None else json.dumps(body).encode()
        with transport.request(method, url, self.wire.headers(key, body or {}), content, call) as answer:
            return _whole(lambda content: content, answer, teller)

    def models(self, call: Call, patiently: bool = False) -> dict[str, bool | None]:
        """The models that are listed, and which of them see; None where the server does not say.

        patiently: try again where that may help, such as while it still loads.
        """
        ask = functools.partial(self.json, "GET", self.addresses.models, None, call)
        listed = self._connection()[0].persist(ask, call) if patiently else ask()
        models = _shaped(self.wire.models, listed, self._connection()[2])
        models = {self.without_key(model): sees for model, sees in models.items()}
        if self._profile.protocol == "ollama":
            return {model: self._sees_by_show(model, call) for model in models}
        if None in models.values() and "llamacpp" in json.dumps(listed):
            sees = self._sees_by_props(call)  # before it said so of each model
            return {model: sees if known is None else known for model, known in models.items()}
        return models

    def _sees_by_show(self, model: str, call: Call) -> bool | None:
        with contextlib.suppress(Fault, AttributeError):
            shown = self.json("POST", f"{self.addresses.root}/api/show", {"model": model}, call)
            return ollama.sees_images(shown)
        return None

    def _sees_by_props(self, call: Call) -> bool | None:
        with contextlib.suppress(Fault, AttributeError):
            props = self.json("GET", f"{self.addresses.root}/props", None, call)
            return (props.get("modalities") or {}).get("vision")
        return None

    def _begun(
        self, question: Question, call: Call, is_shown: bool
    ) -> tuple[list[Piece], Generator[Piece, None, None]]:
        """An attempt, heard as far as nobody else has heard it: to its end, or its first word."""
        pieces = self._attempt(question, call)
        heard: list[Piece] = []
        for piece in pieces:
            heard.append(piece)
            if piece.text and is_shown:
                break
        return heard, pieces

    def _attempt(self, question: Question, call: Call) -> Generator[Piece, None, None]:
        transport, key, teller = self._connection()
        body = _merged(self.wire.body(question), self._profile.extra)
        headers = self.wire.headers(key, body)
        content = json.dumps(body).encode()
        with transport.request("POST", self.addresses.chat, headers, content, call) as answer:
            try:
                yield from self._heard(answer, question.is_streamed, teller)
            except ServerError as error:
                raise teller.in_answer(error.answer) from None

    def _heard(self, answer: Answer, is_streamed: bool, teller: Teller) -> Generator[Piece, None, None]:
        kind = answer.content_type
        # Some servers stream without being asked, and some answer in one piece all the same.
        is_streamed = "event-stream" in kind or "ndjson" in kind or (is_streamed and "json" not in kind)
        if not is_streamed or "html" in kind:
            yield _whole(self.wire.whole, answer, teller)
            return
        is_finished = False
        for line in lines(answer.chunks()):
            piece = _shaped(self.wire.line, line, teller)
            if piece is None:
                continue
            yield piece
            is_finished = is_finished or bool(piece.finish_reason)
            if piece.is_end:
                answer.linger()
                return
        if not is_finished:
            raise teller.unreachable("the connection broke in the middle of the answer. Try again.")

    def _connection(self) -> tuple[Transport, str, Teller]:
        """Made for the first request: only then is a key needed, and `requests` worth its import."""
        from .transport import Transport

        with self._lock:
            if self._connected is None:
                key, source = self._profile.key()
                teller = Teller(self.shown, key, source)
                self._connected = Transport(self._profile, key, teller), key, teller
            return self._connected


_OPTIONAL = ("temperature", "seed", "max_tokens", "stream_options", "think", "keep_alive")
_UNKNOWN = re.compile(
    r"unsupported|not support|deprecated|removed|not permitted|not allowed|unrecognized|unknown|unexpected",
    re.IGNORECASE,
)


def _refused_parameter(fault: Fault, question: Question) -> str | None:
    """The parameter that a server does not know, or a model does not take any more."""
    if fault.error.status not in (400, 422) or not _UNKNOWN.search(fault.said):
        return None
    return next((p for p in _OPTIONAL if p in fault.said and p not in question.left_out), None)


def _merged(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(body)
    for name, value in extra.items():
        is_group = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = {**merged[name], **value} if is_group else value
    return merged


def _whole(read: Callable[[Any], _T], answer: Answer, teller: Teller) -> _T:
    text = b"".join(answer.chunks()).decode("utf-8", "replace")
    if "html" in answer.content_type or text.lstrip().startswith("<"):
        raise teller.unusable("a web page came back instead of an answer. Check base_url.")
    return _shaped(lambda text: read(json.loads(text)), text, teller)


def _shaped(read: Callable[[Any], _T], said: Any, teller: Teller) -> _T:
    """What was said, read; what has another shape than its protocol says is one clear error."""
    try:
        return read(said)
    except (ValueError, RecursionError):
        raise teller.unusable("a damaged answer: it is no JSON. Try again, or check base_url.") from None
    except (AttributeError, KeyError, TypeError, IndexError):
        raise teller.unusable("an answer in another protocol. Check protocol and base_url.") from None
