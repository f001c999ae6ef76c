"""A language model that somebody else runs: asked, listened to, checked, and told to free its memory.

Promises: every call ends, in a usable reply or in one EndpointError (Stopped, where that was asked for); no
text reaches the caller that is reasoning or empty, no JSON that is cut; the key is in no error and no log.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ..errors import EndpointError, EndpointRefused, EndpointUnreachable, InputError, ReplyError, visible
from .client import Client
from .faults import Fault
from .profiles import Profile, changed, profile
from .replies import clean, parse, reasoning_filter
from .wire import Piece, Question, Turn, joined

if TYPE_CHECKING:
    from PIL import Image

    from .transport import Call

log = logging.getLogger("promptglass")

Message = Mapping[str, str]
Ask = Callable[[Question], Piece]
Listen = Callable[[str], None]

CHECK_S = 15.0  # all that check() may take
RELEASE_S = 3.0  # and release(), which may be all that somebody who stopped is waiting for


@dataclass(frozen=True)
class Reply:
    text: str
    model: str  # that answered, by its own account
    finish_reason: str  # stop, length, or the server's own word
    usage: Mapping[str, int]  # prompt_tokens and completion_tokens, where the server counts
    elapsed_s: float
    data: Any = None  # the JSON that was asked for


@dataclass(frozen=True)
class Health:
    reachable: bool
    models: tuple[str, ...] = ()
    sees_images: Mapping[str, bool | None] = field(default_factory=dict)  # by model; None: it does not say
    message: str = ""
    usable: bool = False  # it takes our key and has the profile's model, as far as it says


class Endpoint:
    """Safe to be used from many threads; `concurrency` says how many at a time do it good."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.name = profile.name
        self.concurrency = profile.concurrency
        self._client = Client(profile)
        self.shown = self._client.shown
        # What the endpoint has taught us.
        self._form = self._client.wire.FORMS[0]
        self._only_model = ""
        self._has_warned = False

    @classmethod
    def from_settings(cls, name: str = "ollama", **changes: Any) -> Endpoint:
        """The endpoint of a named profile. changes: of its settings, such as model="llava"."""
        return cls(changed(profile(name), **changes))

    def chat(
        self,
        messages: Sequence[Message],
        images: Sequence[Image.Image] = (),
        schema: Mapping[str, Any] | None = None,
        stream: bool = False,
        stop: threading.Event | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        listen: Listen | None = None,
    ) -> Reply:
        """The answer to messages ({"role": …, "content": …}).

        images: seen with the last message of the user.
        schema: what the answer must be, as JSON; `data` of the reply holds it.
        stream: word by word, so that the limits of time count between words; otherwise a slow machine has to
            be done within first_byte_s. After the first word, nothing is tried again.
        listen: told all that was said so far, without reasoning, at every word; needs stream or stop.
        stop: ends it at once. It is a stream then, too, as llama.cpp finishes what nobody waits for unless it
            streams (ggml-org/llama.cpp#9273); but what breaks off may be tried again.
        """
        began = time.monotonic()
        with self._errors(stop):
            call = self._client.call(stop, self.profile.total_s)
            question = Question(
                model=self._model(call),
                turns=self._turns(messages, images),
                temperature=temperature,
                max_tokens=max_tokens,
                seed=seed,
                is_streamed=stream or stop is not None,
                schema=schema,
            )
            ask = functools.partial(
                self._heard, call=call, is_shown=stream or listen is not None, listen=listen
            )
            if schema is None:
                heard, text, content = self._prose(question, ask)
            else:
                heard, text, content = self._structured(question, schema, ask)
        elapsed_s = time.monotonic() - began
        return Reply(
            text, heard.model or question.model, heard.finish_reason, heard.usage, elapsed_s, content
        )

    def stream(
        self,
        messages: Sequence[Message],
        images: Sequence[Image.Image] = (),
        stop: threading.Event | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
    ) -> Iterator[str]:
        """The answer as it is written, without reasoning. Closing the iterator frees the server."""
        with self._errors(stop):
            call = self._client.call(stop, self.profile.total_s)
            turns = self._turns(messages, images)
            question = Question(self._model(call), turns, temperature, max_tokens, seed, is_streamed=True)
            heard: list[Piece] = []
            has_text = False
            with contextlib.closing(self._client.pieces(question, call, is_shown=True)) as pieces:
                for text in reasoning_filter(piece.text for piece in _noted(pieces, heard) if piece.text):
                    has_text = has_text or bool(text.strip())
                    yield text
            answer = self._joined(heard)
            self._check(answer)
            if not has_text:
                clean(answer.text)  # knows what is wrong with it

    def check(self, stop: threading.Event | None = None) -> Health:
        """Whether it answers, what it has, and which of that sees. Does not raise, except Stopped."""
        try:
            with self._errors(stop):
                models = self._client.models(self._client.call(stop, CHECK_S))
        except EndpointError as error:
            if error.status in (404, 405, 501):
                unlisted = f"{self.shown} answers, but does not list its models."
                return Health(True, message=unlisted, usable=True)
            return Health(not isinstance(error, EndpointUnreachable), message=str(error))
        except InputError as error:  # there is no key to ask with
            return Health(False, message=str(error))
        has_model = not self.profile.model or self._listed(models) is not None
        return Health(True, tuple(models), models, self._about(models), has_model)

    def model(self) -> str:
        """The model that is asked: the profile's, or the only one that the server has.

        Raises InputError where a profile without model does not say which of several.
        """
        with self._errors(None):
            return self._model(self._client.call(None, self.profile.first_byte_s))

    def sees_images(self) -> bool | None:
        """Whether the model that is asked sees; None where nobody says."""
        model = self.model()
        try:
            with self._errors(None):
                sees = self._client.models(self._client.call(None, self.profile.first_byte_s), patiently=True)
        except EndpointError:  # a question will tell
            return None
        return sees.get(model, sees.get(f"{model}:latest"))

    def release_within(self, patience_s: float) -> None:
        """Have it free its memory, if its profile says so; a server that hangs keeps nobody waiting."""
        if self.profile.unload != "never":
            thread = threading.Thread(target=self.release, daemon=True)
            thread.start()
            thread.join(patience_s)

    def release(self) -> None:
        """Have the server free the memory of the model. What cannot be freed is logged, and no error."""
        model = self.profile.model or self._only_model
        root = self._client.addresses.root
        unload: dict[str, tuple[str, dict[str, Any]]] = {
            "ollama": (
                f"{root}/api/chat",
                {"model": model, "messages": [], "keep_alive": 0, "stream": False},
            ),
            "llama.cpp": (f"{root}/models/unload", {"model": model}),
            "lmstudio": (f"{root}/api/v1/models/unload", {"instance_id": model}),
        }
        kind = "ollama" if self.profile.protocol == "ollama" else self.profile.server
        if not model or kind not in unload:
            return
        try:
            with self._errors(None):
                self._client.json("POST", *unload[kind], self._client.call(None, RELEASE_S))
        except (EndpointError, InputError) as error:
            # 404 is a llama.cpp that serves one model, and keeps it.
            is_usual = kind == "llama.cpp" and getattr(error, "status", None) == 404
            log.log(logging.DEBUG if is_usual else logging.WARNING, "not unloaded: %s", error)

    # What is said

    def _prose(self, question: Question, ask: Ask) -> tuple[Piece, str, None]:
        heard = ask(question)
        return heard, self._usable(clean, heard), None

    def _structured(self, question: Question, schema: Mapping[str, Any], ask: Ask) -> tuple[Piece, str, Any]:
        """By schema, as JSON, in words; whatever comes is checked, and one mistake may be mended."""
        wish = f"\n\n{_IN_JSON}{json.dumps(schema, ensure_ascii=False)}"
        turns = list(question.turns)
        asking = _last_of_user(turns)
        turns[asking] = replace(turns[asking], content=turns[asking].content + wish)
        heard = self._by_ladder(replace(question, turns=tuple(turns)), ask)
        try:
            return heard, heard.text.strip(), parse(heard.text, schema)
        except ReplyError as error:
            if not heard.text.strip():  # nothing to mend
                raise
            complaint = str(error)
        log.info("%s: %s; asking for a correction", self.shown, complaint)
        mend = Turn("assistant", heard.text), Turn("user", _MEND.format(complaint=complaint))
        heard = self._by_ladder(replace(question, turns=(*turns, *mend)), ask)
        return heard, heard.text.strip(), self._usable(lambda text: parse(text, schema), heard)

    def _by_ladder(self, question: Question, ask: Ask) -> Piece:
        forms = self._client.wire.FORMS[self._client.wire.FORMS.index(self._form) :]
        first: Fault | None = None
        for form in forms:
            try:
                heard = ask(replace(question, form=form))
            except Fault as fault:
                first = first or fault
                if form == forms[-1] or not _is_about_form(fault):
                    raise first from None
                log.info("%s: it takes no %s (%s)", self.shown, form, fault)
                continue
            self._form = form
            break
        return heard

    def _heard(self, question: Question, call: Call, is_shown: bool, listen: Listen | None) -> Piece:
        with contextlib.closing(self._client.pieces(question, call, is_shown)) as pieces:
            heard = self._joined(pieces if listen is None else self._told(pieces, listen))
        self._check(heard)
        if question.schema is not None and heard.finish_reason == "length":
            raise ReplyError("the JSON was cut off: raise max_tokens", heard.text)
        return heard

    def _told(self, pieces: Iterable[Piece], listen: Listen) -> list[Piece]:
        heard: list[Piece] = []
        said = ""
        for text in reasoning_filter(piece.text for piece in _noted(pieces, heard) if piece.text):
            said += text
            listen(self._client.without_key(said))
        return heard

    def _joined(self, pieces: Iterable[Piece]) -> Piece:
        """All that was heard, without the key: a server that repeats it must not get it into our errors."""
        heard, without_key = joined(pieces), self._client.without_key
        return replace(heard, text=without_key(heard.text), model=without_key(heard.model))

    def _check(self, heard: Piece) -> None:
        """What no text can make good."""
        if heard.finish_reason == "refusal":
            said = f" ({visible(heard.text)[:200]})" if heard.text.strip() else ""
            raise ReplyError(f"it refuses to answer this{said}: use another model or picture", heard.text)
        if heard.reasoning and not heard.text.strip():
            raise ReplyError("only reasoning was returned: raise max_tokens or switch thinking off")
        asked, answering = self.profile.model or self._only_model, heard.model
        if asked and answering and not _is_same_model(asked, answering) and not self._has_warned:
            self._has_warned = True
            log.warning("%s was asked for %s, and %s answers", self.shown, visible(asked), visible(answering))

    def _usable(self, use: Any, heard: Piece) -> Any:
        try:
            return use(heard.text)
        except ReplyError as error:
            raise ReplyError(str(error), heard.text) from None

    # What there is

    def _model(self, call: Call) -> str:
        """The profile's model, or the only one there is."""
        model = self.profile.model or self._only_model
        if model:
            return model
        models = self._client.models(call, patiently=True)
        if len(models) != 1:
            raise InputError(f"{self.shown}: name a model. {_has(models)}")
        self._only_model = next(iter(models))
        return self._only_model

    def _about(self, models: Mapping[str, bool | None]) -> str:
        model = self.profile.model
        if not model:
            return f"{self.shown} answers. {_has(models)}"
        found = self._listed(models)
        if found is None:
            return f"{self.shown} has no model {visible(model)!r}. {_has(models)}"
        sees = models[found]
        sight = "" if sees is None else ", which sees pictures" if sees else ", which does not see pictures"
        return f"{self.shown} has {visible(model)}{sight}."

    def _listed(self, models: Iterable[str]) -> str | None:
        """The profile's model, as the server calls it."""
        model = self.profile.model
        return next((name for name in models if name in (model, f"{model}:latest")), None)

    def _turns(self, messages: Sequence[Message], images: Sequence[Image.Image]) -> tuple[Turn, ...]:
        turns = [Turn(message["role"], message["content"]) for message in messages]
        asking = _last_of_user(turns)
        if images:
            from .pictures import jpeg

            jpegs = tuple(jpeg(image, self.profile.max_image_side) for image in images)
            turns[asking] = replace(turns[asking], jpegs=jpegs)
        return tuple(turns)

    @contextlib.contextmanager
    def _errors(self, stop: threading.Event | None) -> Iterator[None]:
        """Faults as the errors that they carry, and every error with the endpoint's name."""
        try:
            yield
            return
        except Fault as fault:
            error = fault.error
        except ReplyError as reply_error:
            error = ReplyError(f"{self.shown}: {reply_error}", reply_error.text)
        if error.status == 404 and self.profile.model:
            error = type(error)(f"{error} {self._what_there_is(stop)}".rstrip(), status=404)
        raise error from None

    def _what_there_is(self, stop: threading.Event | None) -> str:
        with contextlib.suppress(Fault):
            return _has(self._client.models(self._client.call(stop, CHECK_S)))
        return ""


def _last_of_user(turns: Sequence[Turn]) -> int:
    for index in reversed(range(len(turns))):
        if turns[index].role == "user":
            return index
    raise InputError("there is nothing to ask: no message of a user.")


_IN_JSON = "Answer with JSON alone, as this JSON schema says:\n"
_MEND = "That cannot be used: {complaint}. Answer with the corrected JSON alone."

_NOT_ABOUT_FORM = re.compile(r"context|too long|too many|image", re.IGNORECASE)
_ABOUT_FORM = re.compile(r"schema|grammar|format|json", re.IGNORECASE)


def _is_about_form(fault: Fault) -> bool:
    """Whether a server may take the same question if it is not told how to answer."""
    if isinstance(fault.error, EndpointRefused) or _NOT_ABOUT_FORM.search(fault.said):
        return False
    is_wrong = fault.error.status in (400, 422, 501)
    return is_wrong or (fault.error.status == 500 and bool(_ABOUT_FORM.search(fault.said)))


def _is_same_model(asked: str, answering: str) -> bool:
    """Whether an answer is by who was asked: gpt-4o may call itself gpt-4o-2026-08-06, llava llava:latest."""
    a, b = (name.lower().replace("\\", "/").rsplit("/", 1)[-1] for name in (asked, answering))
    return a.startswith(b) or b.startswith(a)


def _has(models: Mapping[str, object]) -> str:
    names = [visible(name) for name in models]
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"It has {', '.join(names[:20])}{more}." if names else "It has no models."


def _noted(pieces: Iterable[Piece], heard: list[Piece]) -> Iterator[Piece]:
    """Pieces that are also kept."""
    for piece in pieces:
        heard.append(piece)
        yield piece
