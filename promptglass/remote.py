"""Interrogation by a WebUI that runs already, here or elsewhere: promptglass's own routes there,
clip-interrogator-ext's, or the WebUI's own.

    remote = RemoteWebUI("http://gpu-box:7860")
    print(remote.interrogate(open_picture("photo.jpg").image, "fast").text)

What is there is looked up once, and never by an interrogation. Name and password go to that host alone, and
into no address, log or sidecar. Whoever stops, closes the connection, which stops promptglass's work there.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .analyzers import FROM_A_CAPTION, Answer, Failure
from .errors import (
    EndpointError,
    EndpointRefused,
    EndpointUnreachable,
    InputError,
    ModeUnavailable,
    ReplyError,
    Stopped,
    visible,
)
from .llm.faults import Fault
from .llm.pictures import png
from .llm.profiles import Profile
from .remote_api import (
    AUTH_VARIABLE,
    CLIP,
    DEEPDANBOORU,
    EXT_MODELS,
    EXT_PROMPT,
    GENERIC,
    OPTIONS,
    OUR_HEALTH,
    OURS,
    SAMPLERS,
    SDAPI,
    Offer,
    RemoteTeller,
    Wish,
    is_our_health,
    offer_of,
    outcomes_in,
    parsed,
    paths_of,
    question,
    why_nothing,
)

if TYPE_CHECKING:
    from PIL import Image

    from .llm.transport import Call, Transport

DEFAULT_ADDRESS = "http://127.0.0.1:7860"
ADDRESS_VARIABLES = ("STABLE_DIFFUSION_BASE_URL", "STABLE_DIFFUSION_API_URL")
TIMEOUT_VARIABLE, ENABLED_VARIABLE = "CLIP_TIMEOUT_SECS", "CLIP_ENABLED"
# A WebUI interrogates when it has generated what is in its queue, which may take minutes.
TIMEOUT_S = 600.0
PROBE_S = 30.0  # for all of what is looked up; it answers that while it generates

_MAX_SIDE = 2048  # CLIP sees 224, BLIP 384
_CONNECT_S = 5.0
_RETRIES = 3

# What comes of a deepdanbooru without weights: at first, and in Forge from then on.
_NOT_LOADED = re.compile("IndexError|has no attribute 'load_device'")

Watch = Callable[[], None]


class RemoteWebUI:
    """credentials: "NAME:PASSWORD", or "" for none. source: how the user gave the address, for errors."""

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        credentials: str = "",
        timeout_s: float = TIMEOUT_S,
        source: str = "the address",
    ) -> None:
        self.address = _checked_address(address, source)
        self.timeout_s = timeout_s
        self.shown = f"WebUI ({self.address})"
        self._source = source
        self._password = _checked_credentials(credentials).partition(":")[2]
        self._token = base64.b64encode(credentials.encode()).decode() if credentials else ""
        self._teller = RemoteTeller(self.shown, self._password, self._token, source)
        self._offer: Offer | None = None
        self._lock = threading.Lock()
        self._made: Transport | None = None

    @classmethod
    def from_environment(cls, address: str = "auto", source: str = "--via") -> RemoteWebUI:
        """auto: the address that the environment names, or that of a WebUI on this machine.

        Raises InputError where CLIP_ENABLED says no, and for what cannot be used.
        """
        if os.environ.get(ENABLED_VARIABLE, "").strip().lower() in ("false", "0", "no", "off"):
            raise InputError(f"{ENABLED_VARIABLE} switches {source} off. Unset it, or leave {source} out.")
        if address.strip().lower() == "auto":
            named = [name for name in ADDRESS_VARIABLES if os.environ.get(name, "").strip()]
            source = named[0] if named else source
            address = os.environ[named[0]] if named else DEFAULT_ADDRESS
        credentials = os.environ.get(AUTH_VARIABLE, "").strip()
        return cls(address, credentials, _timeout_s(), source)

    def probe(self, watch: Watch = lambda: None) -> Offer:
        """What is there, asked once. Raises EndpointError where nothing is, or we may not ask it.

        watch: called all the time; what it raises ends the request at once.
        """
        with self._lock:
            if self._offer is None:
                limit_s = min(PROBE_S, self.timeout_s)
                late = f"not finished within {limit_s:g} s. Check that it is not stuck."
                with self._errors():
                    self._offer = self._probed(self._call(limit_s, late, watch))
            return self._offer

    def interrogate(
        self,
        image: Image.Image,
        mode: str,
        caption: str = "",
        model: str = "",
        stop: threading.Event | None = None,
    ) -> Answer:
        """What one mode says of a picture. caption, model: see Wish.

        Raises EndpointError (ModeUnavailable, ReplyError, …) where it says nothing; Stopped.
        """

        def watch() -> None:
            if stop is not None and stop.is_set():
                raise Stopped("stopped")

        (outcome,) = self.ask(image, [mode], Wish(caption, model), watch)
        if isinstance(outcome, Failure):
            raise outcome.error
        return outcome

    def ask(
        self,
        image: Image.Image,
        modes: Sequence[str],
        wish: Wish = Wish(),  # noqa: B008 - frozen
        watch: Watch = lambda: None,
    ) -> Iterator[Answer | Failure]:
        """One outcome for each mode. watch: as of probe()."""
        offer = self.offer(wish, watch)
        self.check(modes, wish, offer)
        encoded = base64.b64encode(png(image, _MAX_SIDE)).decode()
        for route, its_modes in offer.by_route(modes):
            try:
                yield from self._asked(route, its_modes, encoded, wish, watch)
            except (EndpointRefused, EndpointUnreachable, ModeUnavailable):
                raise
            except EndpointError as error:  # of this picture: another may fare better
                for mode in its_modes:
                    yield Failure(mode, error)

    def offer(self, wish: Wish, watch: Watch = lambda: None) -> Offer:
        """What is there for such a wish."""
        offer = self.probe(watch)
        return offer.with_a_caption() if wish.caption else offer

    def check(self, modes: Sequence[str], wish: Wish, offer: Offer) -> None:
        """Raises ModeUnavailable for a mode that is not there, InputError for a wish that is not heeded."""
        for mode in modes:
            if mode not in offer.routes:
                why = offer.lacks.get(mode, "there is no such mode")
                raise ModeUnavailable(f"{self.shown}: no {mode}: {why}. It gives {', '.join(offer.modes)}.")
            route = offer.routes[mode]
            if wish.caption and route != OURS and (mode in FROM_A_CAPTION or mode == CLIP):
                raise InputError(f"{self.shown}: {mode} through {route} starts from no caption of yours.")
            if wish.model and route in (SDAPI, *GENERIC):
                raise InputError(f"{self.shown}: {mode} through {route} lets nobody choose its model.")

    # -- what is there -------------------------------------------------------------------------------------

    def _probed(self, call: Call) -> Offer:
        paths = paths_of(self._get("/openapi.json", call))
        # A WebUI that was asked for its schema while it started has it without the routes that came later:
        # what is not listed is looked for by itself.
        health = self._get(OUR_HEALTH, call)
        health = health if is_our_health(health) else None
        has_ext = health is None and (EXT_PROMPT in paths or isinstance(self._get(EXT_MODELS, call), list))
        plain_route = self._plain_route(paths, call, must_answer=health is None and not has_ext)
        offer = offer_of(health, has_ext, plain_route)
        if not offer.routes and health is not None:
            raise ModeUnavailable(f"{self.shown}: promptglass there has no models: {offer.lacks['tables']}")
        if not offer.routes:
            raise EndpointRefused(f"{self.shown}: {why_nothing(paths, self._source)}")
        return offer

    def _plain_route(self, paths: frozenset[str], call: Call, must_answer: bool) -> str:
        """The first that answers as the host likes; "" for none. must_answer: there is no other way."""
        has_api = any(path.startswith("/sdapi/") for path in paths)
        if SDAPI in paths or not has_api:
            try:
                if isinstance(self._get(SAMPLERS, call), list):  # asks for the password, and costs nothing
                    return SDAPI
            except Fault:
                if must_answer:
                    raise
                return ""
        if paths:
            return next((route for route in GENERIC if route in paths), "")
        return next((route for route in GENERIC if self._takes_posts(route, call)), "")

    def _get(self, path: str, call: Call) -> Any:
        """The JSON of an address; None where there is no such thing. Raises Fault for all but that."""
        try:
            return self._persistently("GET", path, None, call)
        except Fault as fault:
            status = fault.error.status or 0
            is_elsewhere = status >= 400 and status not in (401, 403, 429, 502, 503)
            if is_elsewhere or isinstance(fault.error, ReplyError):
                return None
            raise

    def _takes_posts(self, path: str, call: Call) -> bool:
        """Whether an address is one to post to, as far as getting it tells."""
        try:
            self._persistently("GET", path, None, call)
        except Fault as fault:
            return fault.error.status in (405, 422)
        return False

    # -- requests ------------------------------------------------------------------------------------------

    def _asked(
        self,
        route: str,
        modes: Sequence[str],
        image: str,
        wish: Wish,
        watch: Watch,
    ) -> list[Answer | Failure]:
        late = f"not finished within {self.timeout_s:g} s. It may still generate: raise {TIMEOUT_VARIABLE}."
        call = self._call(self.timeout_s, late, watch)
        began = time.monotonic()
        with self._errors():
            try:
                answer = self._persistently("POST", route, question(route, modes, image, wish), call)
                outcomes = outcomes_in(answer, route, modes, wish, time.monotonic() - began)
            except (Fault, ReplyError) as error:
                raise self._explained(error, route, modes[0], watch) from None
        return [self._named(outcome) for outcome in outcomes]

    def _explained(self, error: Fault | ReplyError, route: str, mode: str, watch: Watch) -> Exception:
        """What a WebUI's own interrogation says of its failures is next to nothing."""
        if isinstance(error, Fault):
            if mode == DEEPDANBOORU and error.error.status == 500 and _NOT_LOADED.search(error.said):
                return ModeUnavailable(
                    "its deepdanbooru is not there, and could not be fetched. Go online once."
                )
            return error
        if mode == DEEPDANBOORU and error.text == "":
            # Once it could not be loaded, A1111 goes on with a model that knows no tags.
            cause = (
                "no tags: none is above its threshold, or its model could not be fetched (see its console)."
            )
            return ReplyError(cause)
        if route != SDAPI or "<error>" not in error.text.lower():
            return error
        beams = self._beams(watch)
        if beams > 1:
            return ModeUnavailable(
                f"its interrogation fails with the setting BLIP: num_beams = {beams}, as in every WebUI. "
                "Set it to 1 in Settings → Interrogate."
            )
        return ReplyError(
            "its interrogation failed (<error>): BLIP or CLIP could not be fetched, or memory ran out. "
            "Its console says which.",
            error.text,
        )

    def _beams(self, watch: Watch) -> int:
        with contextlib.suppress(Fault):
            options = self._get(OPTIONS, self._call(PROBE_S, "", watch))
            beams = options.get("interrogate_clip_num_beams") if isinstance(options, Mapping) else None
            return int(beams) if isinstance(beams, int | float) else 1  # A1111 says 4.0
        return 1

    def _named(self, outcome: Answer | Failure) -> Answer | Failure:
        if isinstance(outcome, Failure) and isinstance(outcome.error, EndpointError):
            return replace(outcome, error=type(outcome.error)(f"{self.shown}: {outcome.error}"))
        return outcome

    def _persistently(self, method: str, path: str, asked: Any, call: Call) -> Any:
        """The JSON that comes back. Raises Fault."""
        transport = self._transport()
        body = None if asked is None else json.dumps(asked).encode()
        headers = {"Authorization": f"Basic {self._token}"} if self._token else {}

        def attempt() -> Any:
            with transport.request(method, self.address + path, headers, body, call) as answer:
                content = b"".join(answer.chunks())
                if (found := parsed(content)) is None:
                    is_page = "html" in answer.content_type or content.lstrip().startswith(b"<")
                    what = "a web page" if is_page else "no JSON, or half of it,"
                    raise self._teller.unusable(f"{what} came back. Check {self._source}.")
                return found

        return transport.persist(attempt, call)

    def _call(self, limit_s: float, late: str, watch: Watch) -> Call:
        from .llm.transport import Call

        return Call(time.monotonic() + limit_s, late, watch=watch)

    def _transport(self) -> Transport:
        """Made for the first request: only then is `requests` worth its import."""
        from .llm.transport import Transport

        if self._made is None:
            limit_s = self.timeout_s + 1  # that of the call comes first
            profile = Profile(
                "via",
                "webui",
                self.address,
                connect_s=_CONNECT_S,
                first_byte_s=limit_s,
                between_chunks_s=limit_s,
                retries=_RETRIES,
            )
            self._made = Transport(profile, self._token, self._teller)
        return self._made

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Faults as the errors that they carry, and every error with the host's name."""
        try:
            yield
            return
        except Fault as fault:
            error = fault.error
        except (ReplyError, ModeUnavailable) as unnamed:
            error = unnamed
            if not str(unnamed).startswith(self.shown):
                error = type(unnamed)(f"{self.shown}: {self._teller.without_key(str(unnamed))}")
        raise error from None


def _checked_address(address: str, source: str) -> str:
    """Without a slash at its end. Nothing of it is repeated in an error: it may hold a password."""
    address = address.strip()
    address = address if "://" in address else f"http://{address}"
    try:
        parts = urlsplit(address)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not address.isprintable() or " " in address:
        raise InputError(f"{source} must be an address such as {DEFAULT_ADDRESS}, or auto.")
    if parts.username is not None or parts.password is not None:
        raise InputError(f"{source} must hold no password. Put NAME:PASSWORD into {AUTH_VARIABLE}.")
    if parts.query or parts.fragment:
        raise InputError(f"{source} must end with the path: leave out what follows ? or #.")
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")  # where a server listens
    netloc = parts.netloc if host is None else f"{host}:{parts.port}" if parts.port else host
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"


def _checked_credentials(credentials: str) -> str:
    name, colon, _ = credentials.partition(":")
    if credentials and not (name and colon and credentials.isprintable()):
        raise InputError(f"{AUTH_VARIABLE} must be NAME:PASSWORD.")
    return credentials


def _timeout_s() -> float:
    said = os.environ.get(TIMEOUT_VARIABLE, "").strip()
    try:
        seconds = float(said) if said else TIMEOUT_S
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise InputError(f"{TIMEOUT_VARIABLE}={visible(said)[:40]} is no number of seconds above 0.")
    return seconds
