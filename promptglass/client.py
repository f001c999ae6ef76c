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

import math
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .client_api import DEFAULT_ADDRESS, MAY_PASS, Found, Silence, encoded, form_of, messages, parsed
from .client_connection import OURS, Connection
from .errors import EndpointError, EndpointUnreachable

if TYPE_CHECKING:
    from .client_api import Picture

TIMEOUT_S = 600.0

_IMAGES = "/api/images"
_ATTEMPTS = 8  # to hear of a batch again, with nothing heard in between
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 10.0


class Client:
    """Safe to be used from many threads at once.

    key: sent as a bearer's; None for that of PROMPTGLASS_API_KEY, "" for none. credentials: "NAME:PASSWORD"
    of a WebUI, in place of a key. Both go to that host alone, and unencrypted only within one's own network.
    timeout_s: of every call that says no other. stop, in every call: an Event that ends it with Stopped, and
    the work there as well. To leave the context ends all that is under way, in the same manner.
    """

    def __init__(
        self,
        base_url: str = DEFAULT_ADDRESS,
        key: str | None = None,
        credentials: str = "",
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._connection = Connection(base_url, key, credentials, timeout_s)
        self.batches = Batches(self._connection)

    @property
    def base_url(self) -> str:
        return self._connection.base_url

    @property
    def timeout_s(self) -> float:
        return self._connection.timeout_s

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

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
        return self._connection.ask("/interrogate", {"image": encoded(image), **choice}, timeout_s, stop)

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
        return self._connection.ask("/analyze", asked, timeout_s, stop)

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
        return self._connection.ask("/refine", asked, timeout_s, stop)

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
        call = self._connection.call(timeout_s, stop)
        with self._connection.answer("POST", f"{_IMAGES}/analyze", call, form, kind) as answer:
            return parsed(b"".join(answer.chunks()), self._connection.teller)

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
        call = self._connection.call(timeout_s, stop)
        with self._connection.answer("POST", f"{_IMAGES}/analyze-stream", call, form, kind) as answer:
            for _, data in messages(answer.chunks()):
                step = parsed(data, self._connection.teller)
                if step.get("status") == "error":
                    raise EndpointError(self._connection.teller.said(str(step.get("message") or "it failed")))
                yield step
                if step.get("status") == "complete":
                    return
        raise EndpointUnreachable(self._connection.teller.said("the analysis broke off. Try again."))

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
        return self._connection.ask("/wildcards", {"folder": os.fspath(folder), **flags}, timeout_s, stop)

    def health(self, *, timeout_s: float | None = None, stop: threading.Event | None = None) -> Found:
        """What is there, and what stands in a mode's way."""
        return self._connection.ask("/health", None, timeout_s, stop)

    def endpoints(
        self, *, timeout_s: float | None = None, stop: threading.Event | None = None
    ) -> list[Found]:
        """The language models' endpoints, asked now: [{name, reachable, usable, message, models}]."""
        found: list[Found] = self._connection.ask("/endpoints", None, timeout_s, stop)["endpoints"]
        return found


class Batches:
    """Folders, interrogated where the service is. Their work goes on whether anybody listens or not."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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
        return self._connection.ask("/batches", asked, timeout_s, stop)

    def list(self, *, timeout_s: float | None = None, stop: threading.Event | None = None) -> Sequence[Found]:
        """The newest first."""
        found: Sequence[Found] = self._connection.ask("/batches", None, timeout_s, stop)["batches"]
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
        return self._connection.ask(_path_of(id) + query, None, timeout_s, stop)

    def stop(self, id: str, *, timeout_s: float | None = None, stop: threading.Event | None = None) -> Found:
        """The job, "stopping" until what is under way is saved."""
        return self._connection.ask(f"{_path_of(id)}/stop", {}, timeout_s, stop)

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
            self._connection.call(left_s, stop).pause(min(pause_s, left_s))

    def _heard(
        self, id: str, last_id: int, left_s: float, stop: threading.Event | None
    ) -> Iterator[tuple[int, Found]]:
        """Of one connection, with their ids; it ends where all was told."""
        silence, teller = Silence(), self._connection.teller
        call = self._connection.call(left_s, stop, silence.look)
        path = f"{OURS}{_path_of(id)}/events"
        with self._connection.answer("GET", path, call, last_id=last_id) as answer:
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
