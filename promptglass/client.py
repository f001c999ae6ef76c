"""promptglass that runs elsewhere, as a service or in a WebUI, by its HTTP API.

    with Client("http://gpu-box:8000") as glass:
        for answer in glass.interrogate("photo.jpg", "best,negative")["answers"]:
            print(answer["mode"], answer["text"])

What comes back is the wire's own JSON. A call is sent once; only the events of a batch are asked for again
where the connection breaks. What fails there is an EndpointError with the service's own line and `status`:
EndpointRefused where the key will not do, EndpointUnreachable where nobody answers, ReplyError where the
answer makes no sense. What fails here is an InputError; a picture that cannot be read, an ImageError.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .client_api import (
    DEFAULT_ADDRESS,
    KEY_VARIABLE,
    MAY_PASS,
    SILENT_S,
    Found,
    ServiceTeller,
    Silence,
    Silent,
    authorization,
    checked_address,
    encoded,
    form_of,
    messages,
    parsed,
)
from .errors import EndpointError, EndpointUnreachable, Stopped
from .llm.faults import Fault
from .llm.profiles import Profile
from .llm.wire import without

if TYPE_CHECKING:
    from .client_api import Picture
    from .llm.transport import Answer, Call, Transport

TIMEOUT_S = 600.0

_OURS, _IMAGES = "/promptglass/v1", "/api/images"
_JSON = "application/json"
_CONNECT_S = 5.0
_DAY_S = 86400.0  # the call's own limit comes first
_ATTEMPTS = 8  # to hear of a batch again, with nothing heard in between
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0


class Client:
    """Safe to be used from many threads at once.

    key: sent as a bearer's; None for that of PROMPTGLASS_API_KEY, "" for none. credentials: "NAME:PASSWORD"
    of a WebUI, in place of a key. Both go to that host alone, and unencrypted only within one's own network.
    timeout_s: of every call that says no other. stop, in every call: an Event that ends it with Stopped, and
    the work there as well. To leave the context ends all that is under way, in the same manner.
    """

    batches: Batches

    def __init__(
        self,
        base_url: str = DEFAULT_ADDRESS,
        key: str | None = None,
        credentials: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.base_url = checked_address(base_url)
        self.timeout_s = timeout_s
        self.batches = Batches(self)
        key = os.environ.get(KEY_VARIABLE, "").strip() if key is None and not credentials else key or ""
        self._headers = authorization(key, credentials)
        self._teller = ServiceTeller(self.base_url, key, credentials)
        self._lock = threading.Lock()
        self._made: Transport | None = None
        self._is_closed = False

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._is_closed = True

    # -- pictures ------------------------------------------------------------------------------------------

    def interrogate(
        self,
        image: Picture,
        modes: str | Sequence[str] | None = None,
        *,
        caption: str = "",
        model: str | None = None,
        llm: str | None = None,
        wishes: str = "",
        keep: Sequence[str] = (),
        candidates: int | None = None,
        deep: bool = False,
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Found:
        """{picture, format, width, height, answers, failures, left_out}.

        image: a path, the bytes of a file, or an image, whose pixels alone are sent. modes: "best,negative",
        a list, or None for the best that can run there. model, llm, candidates: None for the service's own.
        """
        choice = _choice(modes, caption, model, llm, wishes, keep, candidates, deep)
        return self._ask("/interrogate", {"image": encoded(image), **choice}, timeout_s, stop)

    def analyze(
        self,
        image: Picture,
        categories: Sequence[str] | None = None,
        *,
        labels: str | Sequence[str] = "",
        top: int = 5,
        model: str | None = None,
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Found:
        """{…, model, categories: {name: [{label, confidence, score, emoji}, …]}}.

        categories: None for all that are built in. labels: one's own, a list or one a line.
        """
        own = labels if isinstance(labels, str) else "\n".join(labels)
        chosen = None if categories is None else [*categories]
        asked = {"image": encoded(image), "categories": chosen, "labels": own, "top": top, "model": model}
        return self._ask("/analyze", asked, timeout_s, stop)

    def refine(
        self,
        text: str = "",
        image: Picture | None = None,
        *,
        prompt_id: str | None = None,
        profile: str | None = None,
        model: str = "",
        wishes: str = "",
        keep: Sequence[str] = (),
        candidates: int | None = None,
        deep: bool = False,
        seed: int = 0,
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Found:
        """{answers, warnings}: what a language model makes of a text, a picture, or both."""
        asked = {
            "text": text,
            "image": None if image is None else encoded(image),
            "prompt_id": prompt_id,
            "profile": profile,
            "model": model,
            "wishes": wishes,
            "keep": [*keep],
            "candidates": candidates,
            "deep": deep,
            "seed": seed,
        }
        return self._ask("/refine", asked, timeout_s, stop)

    def analyze_image(
        self,
        image: Picture,
        user_prompt: str = "",
        deep_thinking: bool = False,
        *,
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Found:
        """{success, generatedPrompt, analysis, userInput}; `note`: why the prompt is no language model's."""
        form, kind = form_of(image, user_prompt, deep_thinking)
        call = self._call(timeout_s, stop)
        with self._answer("POST", f"{_IMAGES}/analyze", call, form, kind) as answer:
            return parsed(b"".join(answer.chunks()), self._teller)

    def analyze_image_stream(
        self,
        image: Picture,
        user_prompt: str = "",
        deep_thinking: bool = False,
        *,
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[Found]:
        """The same step by step: {status: "analyzing" | "analyzed" | "generating" | "complete", …}."""
        form, kind = form_of(image, user_prompt, deep_thinking)
        call = self._call(timeout_s, stop)
        with self._answer("POST", f"{_IMAGES}/analyze-stream", call, form, kind) as answer:
            for _, data in messages(answer.chunks()):
                step = parsed(data, self._teller)
                if step.get("status") == "error":
                    raise EndpointError(self._teller.said(str(step.get("message") or "it failed")))
                yield step
                if step.get("status") == "complete":
                    return
        raise EndpointUnreachable(self._teller.said("the analysis broke off. Try again."))

    # -- what is there -------------------------------------------------------------------------------------

    def wildcards(
        self,
        folder: str | os.PathLike[str],
        *,
        recursive: bool = False,
        per_folder: bool = False,
        format: str = "txt",
        weights: bool = False,
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Found:
        """{files, notes}: the prompts of a folder there, as wildcard files."""
        flags = {"recursive": recursive, "per_folder": per_folder, "format": format, "weights": weights}
        return self._ask("/wildcards", {"folder": os.fspath(folder), **flags}, timeout_s, stop)

    def health(self, *, timeout_s: float | None = None, stop: threading.Event | None = None) -> Found:
        """What is there, and what stands in a mode's way."""
        return self._ask("/health", None, timeout_s, stop)

    def endpoints(
        self, *, timeout_s: float | None = None, stop: threading.Event | None = None
    ) -> list[Found]:
        """The language models' endpoints, asked now: [{name, reachable, usable, message, models}]."""
        found: list[Found] = self._ask("/endpoints", None, timeout_s, stop)["endpoints"]
        return found

    # -- within --------------------------------------------------------------------------------------------

    def _ask(
        self,
        path: str,
        question: Mapping[str, Any] | None,
        timeout_s: float | None,
        stop: threading.Event | None,
    ) -> Found:
        """question: None to get. What is None in it is left to the service."""
        body = None if question is None else json.dumps(without(question)).encode()
        method = "GET" if body is None else "POST"
        with self._answer(method, _OURS + path, self._call(timeout_s, stop), body) as answer:
            return parsed(b"".join(answer.chunks()), self._teller)

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        call: Call,
        body: bytes | None = None,
        content_type: str = _JSON,
        last_id: int = 0,
    ) -> Iterator[Answer]:
        headers = {**self._headers, "Content-Type": content_type}
        if last_id:
            headers["Last-Event-ID"] = str(last_id)
        try:
            with self._transport().request(method, self.base_url + path, headers, body, call) as answer:
                yield answer
        except Silent:
            cause = f"nothing heard for {SILENT_S:g} s. Check that it still runs."
            raise self._teller.unreachable(cause).error from None
        except Fault as fault:
            raise fault.error from None

    def _call(
        self,
        timeout_s: float | None,
        stop: threading.Event | None,
        watch: Callable[[], None] = lambda: None,
    ) -> Call:
        from .llm.transport import Call

        limit_s = self.timeout_s if timeout_s is None else timeout_s

        def look() -> None:
            if self._is_closed:
                raise Stopped("the client is closed")
            watch()

        late = f"not finished within {limit_s:g} s. Raise timeout_s."
        return Call(time.monotonic() + limit_s, late, stop, look)

    def _transport(self) -> Transport:
        """Made for the first request: only then is `requests` worth its import."""
        from .llm.transport import Transport

        with self._lock:
            if self._made is None:
                profile = Profile(
                    "promptglass",
                    "promptglass",
                    self.base_url,
                    connect_s=_CONNECT_S,
                    first_byte_s=_DAY_S,
                    between_chunks_s=_DAY_S,
                )
                self._made = Transport(profile, self._teller.secret, self._teller)
            return self._made


class Batches:
    """Folders, interrogated where the service is. Their work goes on whether anybody listens or not."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def start(
        self,
        folder: str | os.PathLike[str],
        modes: str | Sequence[str] | None = None,
        *,
        recursive: bool = False,
        force: bool = False,
        verify: bool = False,
        caption: str = "",
        model: str | None = None,
        llm: str | None = None,
        wishes: str = "",
        keep: Sequence[str] = (),
        candidates: int | None = None,
        deep: bool = False,
        txt: str | None = None,
        prefix: str = "",
        suffix: str = "",
        exclude: Sequence[str] = (),
        replace: Sequence[str] = (),
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Found:
        """The job, which has begun. txt and what follows: captions to train on, as in `promptglass batch`."""
        asked = {
            "folder": os.fspath(folder),
            **_choice(modes, caption, model, llm, wishes, keep, candidates, deep),
            **{"recursive": recursive, "force": force, "verify": verify},
            **{"txt": txt, "prefix": prefix, "suffix": suffix},
            **{"exclude": [*exclude], "replace": [*replace]},
        }
        return self._client._ask("/batches", asked, timeout_s, stop)

    def list(self, *, timeout_s: float | None = None, stop: threading.Event | None = None) -> Sequence[Found]:
        """The newest first."""
        found: Sequence[Found] = self._client._ask("/batches", None, timeout_s, stop)["batches"]
        return found

    def get(
        self,
        id: str,
        after: int | None = None,
        *,
        timeout_s: float | None = None,
        stop: threading.Event | None = None,
    ) -> Found:
        """The job; with `after` also its events from there on."""
        query = "" if after is None else f"?after={after}"
        return self._client._ask(_path_of(id) + query, None, timeout_s, stop)

    def stop(self, id: str, *, timeout_s: float | None = None, stop: threading.Event | None = None) -> Found:
        """The job, "stopping" until what is under way is saved."""
        return self._client._ask(f"{_path_of(id)}/stop", {}, timeout_s, stop)

    def events(
        self,
        id: str,
        after: int = 0,
        *,
        timeout_s: float = math.inf,
        stop: threading.Event | None = None,
    ) -> Iterator[Found]:
        """Events as they come; the last is the job itself, of kind "end".

        Each is told once, over however many connections. after: the id of the last that is known.
        """
        deadline = time.monotonic() + timeout_s
        last_id, attempts = after, 0
        while True:
            try:
                for number, event in self._heard(id, last_id, deadline - time.monotonic(), stop):
                    last_id, attempts = number, 0
                    yield event
                    if event.get("kind") == "end":
                        return
                return
            except EndpointError as error:
                attempts += 1
                if not _may_pass(error) or attempts > _ATTEMPTS or time.monotonic() >= deadline:
                    raise
            pause_s = min(_FIRST_PAUSE_S * 2 ** (attempts - 1), _LONGEST_PAUSE_S) * random.uniform(0.75, 1.25)
            left_s = max(deadline - time.monotonic(), 0)
            self._client._call(left_s, stop).pause(min(pause_s, left_s))

    def _heard(
        self, id: str, last_id: int, left_s: float, stop: threading.Event | None
    ) -> Iterator[tuple[int, Found]]:
        """Of one connection, with their ids; it ends where all was told."""
        silence, teller = Silence(), self._client._teller
        call = self._client._call(left_s, stop, silence.look)
        path = f"{_OURS}{_path_of(id)}/events"
        with self._client._answer("GET", path, call, last_id=last_id) as answer:
            for number, data in messages(silence.ended_by(answer.chunks())):
                last_id = number or last_id
                yield last_id, parsed(data, teller)
            if answer.status == 204:
                return
        raise EndpointUnreachable(teller.said("the events broke off before the end of the batch. Ask again."))


def _may_pass(error: EndpointError) -> bool:
    return error.status in MAY_PASS or isinstance(error, EndpointUnreachable)


def _choice(
    modes: str | Sequence[str] | None,
    caption: str,
    model: str | None,
    llm: str | None,
    wishes: str,
    keep: Sequence[str],
    candidates: int | None,
    deep: bool,
) -> dict[str, Any]:
    return {
        "modes": modes if modes is None or isinstance(modes, str) else [*modes],
        "caption": caption,
        "model": model,
        "llm": llm,
        "wishes": wishes,
        "keep": [*keep],
        "candidates": candidates,
        "deep": deep,
    }


def _path_of(id: str) -> str:
    return f"/batches/{quote(id, safe='')}"
