"""What WebUIs answer, as pure functions: which routes there are, what is asked, and whether that is a prompt.

Many of them report a failure as a prompt, with status 200. Nothing leaves here as one that may be none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .analyzers import CLIP_MODES, FROM_A_CAPTION, Answer, Failure, Recipe
from .errors import EndpointError, EndpointRefused, ModeUnavailable, ReplyError, visible
from .llm.faults import Fault, Teller

PREFIX = "webui/"
# What a plain route answers is the host's own: a caption and its nearest labels, in no mode of ours.
CLIP, DEEPDANBOORU = "webui/clip", "webui/deepdanbooru"
REMOTE_MODES = (*CLIP_MODES, CLIP, DEEPDANBOORU)

OURS, OUR_HEALTH = "/promptglass/v1/interrogate", "/promptglass/v1/health"
EXT_PROMPT, EXT_TABLES, EXT_MODELS = "/interrogator/prompt", "/interrogator/analyze", "/interrogator/models"
SDAPI, SAMPLERS, OPTIONS = "/sdapi/v1/interrogate", "/sdapi/v1/samplers", "/sdapi/v1/options"
GENERIC = ("/api/v1/interrogate", "/interrogate")

AUTH_VARIABLE = "PROMPTGLASS_VIA_AUTH"

_EXT_MODES = ("best", "fast", "classic", "negative")  # that its documentation names
_EXT_MODEL = "ViT-L-14/openai"  # its own default
_EXT_NAMES = {
    "medium": "mediums",
    "artist": "artists",
    "movement": "movements",
    "trending": "trendings",
    "flavor": "flavors",
}
_FIRST = ("best", "fast", "classic", "caption", CLIP, "negative", "tables", DEEPDANBOORU)


@dataclass(frozen=True)
class Wish:
    """caption: to start from; model: a CLIP by name. Empty: the host's own. Not every route takes them."""

    caption: str = ""
    model: str = ""


@dataclass(frozen=True)
class Offer:
    """Which modes a host gives, each by which route; and why it does not give the others."""

    routes: Mapping[str, str]
    lacks: Mapping[str, str] = field(default_factory=dict)

    @property
    def modes(self) -> tuple[str, ...]:
        return tuple(mode for mode in REMOTE_MODES if mode in self.routes)

    @property
    def first(self) -> str:
        """What a person most wants of it."""
        return next(mode for mode in _FIRST if mode in self.routes)

    def by_route(self, modes: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Our own routes take all of their modes at once: the models there come in once for a picture."""
        ours = [mode for mode in modes if self.routes[mode] == OURS]
        others = [(self.routes[mode], [mode]) for mode in modes if mode not in ours]
        return [(OURS, ours), *others] if ours else others

    def with_a_caption(self) -> Offer:
        """If a caption is given, a host with CLIP needs no captioner."""
        if self.routes.get("negative") != OURS:
            return self
        return replace(self, routes={**self.routes, **dict.fromkeys(FROM_A_CAPTION, OURS)})


@dataclass(frozen=True)
class RemoteRecipe(Recipe):
    """By what was asked: which model answers is the host's affair, and known with its answer."""

    def made(self, entry: object) -> bool:
        settings = entry.get("settings") if isinstance(entry, Mapping) else None
        if not isinstance(settings, Mapping):
            return False
        return all(settings.get(name) == self.settings.get(name) for name in _ASKED)


_ASKED = ("via", "caption", "asked_model")  # settings that recipes go by


def recipe_of(mode: str, route: str, wish: Wish) -> RemoteRecipe:
    """No address is in it: the same host by another one answers alike."""
    settings: dict[str, object] = {"via": route}
    if route == OURS and wish.caption and mode in FROM_A_CAPTION:
        settings["caption"] = wish.caption
    if route in (OURS, EXT_PROMPT, EXT_TABLES) and wish.model:
        settings["asked_model"] = wish.model
    model = wish.model or _EXT_MODEL if route in (EXT_PROMPT, EXT_TABLES) else wish.model or "webui"
    return RemoteRecipe(model, settings)


# -- what is there -------------------------------------------------------------------------------------------


def paths_of(schema: Any) -> frozenset[str]:
    """The routes that an openapi.json lists; none where it is something else."""
    paths = schema.get("paths") if isinstance(schema, Mapping) else None
    return frozenset(map(str, paths)) if isinstance(paths, Mapping) else frozenset()


def is_our_health(answer: Any) -> bool:
    return isinstance(answer, Mapping) and isinstance(answer.get("modes"), Mapping) and "version" in answer


def offer_of(health: Any, has_ext: bool, plain_route: str) -> Offer:
    """health: that of our own routes, or None. plain_route: one that answers as the host likes, or ""."""
    routes: dict[str, str] = {}
    lacks: dict[str, str] = {}
    if health is not None:
        told = health["modes"]
        routes |= {mode: OURS for mode in CLIP_MODES if mode in told and told[mode] is None}
        lacks |= {mode: quoted(told.get(mode) or "not known there") for mode in CLIP_MODES}
    elif has_ext:
        routes |= {**dict.fromkeys(_EXT_MODES, EXT_PROMPT), "tables": EXT_TABLES}
        lacks |= {"caption": "clip-interrogator-ext has no such mode"}
    else:
        lacks |= dict.fromkeys(CLIP_MODES, "neither promptglass nor clip-interrogator-ext is installed there")
    if plain_route:
        routes[CLIP] = plain_route
    if plain_route == SDAPI:
        routes[DEEPDANBOORU] = SDAPI
    lacks |= {CLIP: "no route for it is there", DEEPDANBOORU: f"no {SDAPI} is there, as with --api"}
    return Offer(routes, {mode: why for mode, why in lacks.items() if mode not in routes})


def why_nothing(paths: frozenset[str], address: str) -> str:
    """Why a server that answers offers no interrogation, and the way out."""
    if any(path.startswith("/sdapi/") for path in paths):
        return "its API has no interrogation, as that of Forge Neo and Classic. Install promptglass there."
    if any(path.startswith(("/internal/", "/sd_extra_networks/")) for path in paths):
        return "a WebUI without its API. Start it with --api, or install promptglass there."
    return f"no interrogation is offered there. Start the WebUI with --api, or check {address}."


# -- what is asked, and what comes back ----------------------------------------------------------------------


def question(route: str, modes: Sequence[str], image: str, wish: Wish) -> dict[str, Any]:
    """image: base64. Our own routes take all modes at once, the others one."""
    if route == OURS:
        asked = {"image": image, "modes": [*modes], "caption": wish.caption}
        return {**asked, "model": wish.model} if wish.model else asked
    (mode,) = modes
    if route == EXT_PROMPT:
        return {"image": image, "clip_model_name": wish.model or _EXT_MODEL, "mode": mode}
    if route == EXT_TABLES:
        return {"image": image, "clip_model_name": wish.model or _EXT_MODEL}
    return {"image": image, "model": mode.removeprefix(PREFIX)}


def outcomes_in(
    answer: Any, route: str, modes: Sequence[str], wish: Wish, elapsed_s: float = 0.0
) -> list[Answer | Failure]:
    """One of each mode. Raises ReplyError where the answer, though of status 200, is none."""
    if not isinstance(answer, Mapping):
        raise ReplyError("an answer in another shape. Check that this is a WebUI.")
    if problem := said_in({key: answer[key] for key in ("error", "detail") if key in answer}):
        raise ReplyError(f"it failed: {quoted(problem)}")
    if route == OURS:
        return [_ours(answer, mode, wish) for mode in modes]
    (mode,) = modes
    recipe = recipe_of(mode, route, wish)
    details: dict[str, object] = {}
    text: Any
    if route == EXT_TABLES:
        tables = {_EXT_NAMES[name]: ranks for name, ranks in answer.items() if name in _EXT_NAMES}
        details["tables"] = _checked_tables(tables)
        text = ", ".join(dict.fromkeys(next(iter(ranks)) for ranks in tables.values() if ranks))
    else:
        text = answer.get("prompt" if route == EXT_PROMPT else "caption")
    made = Answer(mode, prompt_of(text), recipe.model, None, elapsed_s, recipe.settings, details)
    return [made]


def _ours(answer: Mapping[str, Any], mode: str, wish: Wish) -> Answer | Failure:
    for name in ("failures", "left_out"):
        for told in _listed(answer, name):
            if told.get("mode") == mode:
                line = quoted(str(told.get("error") or "it does not say why"))
                return Failure(mode, ModeUnavailable(line) if name == "left_out" else ReplyError(line))
    found = next((told for told in _listed(answer, "answers") if told.get("mode") == mode), None)
    if found is None:
        return Failure(mode, ReplyError("no answer to this mode, and no word why"))
    try:
        return _answer(found, mode, wish)
    except ReplyError as error:
        return Failure(mode, error)


def _answer(told: Mapping[str, Any], mode: str, wish: Wish) -> Answer:
    score: Any = told.get("score")
    elapsed_s: Any = told.get("elapsed_s")
    if score is not None and not (_is_number(score) and abs(score) <= 1.001):
        raise ReplyError("its score is no cosine")
    details: dict[str, object] = {}
    if mode == "tables":
        details["tables"] = _checked_tables(told.get("tables"))
    recipe = recipe_of(mode, OURS, wish)
    theirs = told.get("settings") if isinstance(told.get("settings"), Mapping) else {}
    kept = {
        str(name): value
        for name, value in (theirs or {}).items()
        if name not in _ASKED and (value is None or isinstance(value, str | bool) or _is_number(value))
    }
    return Answer(
        mode,
        prompt_of(told.get("text")),
        visible(str(told.get("model") or recipe.model))[:200],
        score,
        elapsed_s if _is_number(elapsed_s) and elapsed_s >= 0 else 0.0,
        {**kept, **recipe.settings},
        details,
    )


# A1111's own, also behind half a caption; clip-interrogator-ext's two; what others make of an exception.
_FAILED = re.compile(
    r"<error>|cuda (?:error|out of memory)|^\W*ran out of v?ram|^\W*exception\W*<|^\W*traceback \("
    r"|^[\w.]*(?:error|exception)\W*(?:[:(]|$)|^<(?:!doctype|html|class|\?xml)",
    re.IGNORECASE,
)


def prompt_of(text: Any) -> str:
    """A text as one clean line. Raises ReplyError for one that is no prompt."""
    if not isinstance(text, str):
        raise ReplyError("no text in the answer. Check that this is a WebUI.")
    line = visible(text)
    if _FAILED.search(line):
        raise ReplyError(f"it failed: {quoted(line)}", line)
    if not any(character.isalnum() for character in line):
        raise ReplyError("an empty text came back: it saw nothing, or it failed. Its console may say why.")
    return line


def _checked_tables(tables: Any) -> dict[str, dict[str, float]]:
    """Table to label to cosine. Raises ReplyError for any other shape."""
    if not isinstance(tables, Mapping) or not tables:
        raise ReplyError("no tables in the answer")
    for ranks in tables.values():
        if not isinstance(ranks, Mapping) or not all(
            _is_number(cosine) and abs(cosine) <= 1.001 for cosine in ranks.values()
        ):
            raise ReplyError("its tables are not labels with cosines")
    return {
        visible(str(name)): {visible(str(label)): cosine for label, cosine in ranks.items()}
        for name, ranks in tables.items()
    }


def _listed(answer: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    entries = answer.get(name)
    return [entry for entry in entries if isinstance(entry, Mapping)] if isinstance(entries, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# -- what goes wrong -----------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    """A server's own words, short enough to stand in ours."""
    line = visible(text)
    return line if len(line) <= 300 else line[:297] + "..."


def parsed(body: bytes) -> Any:
    """The JSON in a body; None where there is none."""
    try:
        return json.loads(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def said_in(answer: Any) -> str:
    """What an error says: `detail` as a text or as pydantic's list, A1111's `errors`, Forge's `message`, …"""
    if not isinstance(answer, Mapping):
        return ""
    if isinstance(detail := answer.get("detail"), list):
        return "; ".join(_wrong_field(entry) for entry in detail)
    texts = (answer.get(name) for name in ("detail", "errors", "message"))
    text = next((text for text in texts if isinstance(text, str) and text.strip()), "")
    kind = answer.get("error")
    if isinstance(kind, Mapping):
        kind = kind.get("message")
    if not text or kind in (None, "", "HTTPException"):  # which only says that there is a detail
        return text or _as_text(kind) or _as_text(answer.get("detail"))
    return f"{_as_text(kind)}: {text}"


def _as_text(said: Any) -> str:
    return said if isinstance(said, str) else "" if said is None or said is False else json.dumps(said)


def _wrong_field(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return _as_text(entry)
    place = entry.get("loc")
    names = [str(name) for name in place if name != "body"] if isinstance(place, Iterable) else []
    return f"{'.'.join(names)}: {entry.get('msg', 'wrong')}"


class RemoteTeller(Teller):
    """Faults of a WebUI, in the words of whoever named it by `address`."""

    patience = "CLIP_TIMEOUT_SECS"
    too_long = "Check that this is a WebUI."
    open_key = "anyone on the way could read the password. Use https, or a tunnel."

    def __init__(self, endpoint: str, password: str, token: str, address: str) -> None:
        super().__init__(endpoint, token, AUTH_VARIABLE)
        self.address = address
        self._password = password

    def without_key(self, text: str) -> str:
        text = super().without_key(text)
        # Shorter ones would tear words apart, and are no secret.
        return text.replace(self._password, "[password]") if len(self._password) >= 4 else text

    def answered(self, status: int, body: bytes, wait_s: float | None = None) -> Fault:
        said = body.decode("utf-8", "replace")
        answer = parsed(body)
        text = self.quoted(said_in(answer)) if answer is not None else "a web page" if "<" in said else ""
        shown = f"{status}: {text}" if text else str(status)
        may_pass = status in (429, 502, 503)
        error: EndpointError
        if status in (401, 403):
            error = EndpointRefused(f"{self.endpoint} refuses us ({shown}). {self._about_auth()}", status)
        elif status == 404 and "model" in said.lower():
            error = ModeUnavailable(f"{self.endpoint} has no such model ({shown}).", status)
        elif status in (404, 405):
            cause = f"no longer has this route ({shown}). Check {self.address}."
            error = EndpointRefused(f"{self.endpoint} {cause}", status)
        elif 300 <= status < 400:
            error = EndpointRefused(
                f"{self.endpoint} answered {shown}. Put that address into {self.address}.", status
            )
        else:
            way_out = _way_out(status)
            error = EndpointError(f"{self.endpoint} answered {shown}. {way_out}".rstrip(), status)
        return Fault(error, may_pass, wait_s, said=said)

    def _about_auth(self) -> str:
        if self._key:
            return f"Check the name and password in {AUTH_VARIABLE}."
        return f"Put NAME:PASSWORD, as its --api-auth or --gradio-auth says, into {AUTH_VARIABLE}."


def _way_out(status: int) -> str:
    if status in (429, 502, 503):
        return "Try again later."
    if status == 413:
        return "Raise the limit of the proxy before it (client_max_body_size, say), or shrink the picture."
    if status == 504:
        return "A proxy before it does not wait as long: raise its timeout."
    if status == 422:
        return "Its API is another one than expected: update it."
    return "Its console may say more." if status >= 500 else ""  # ours say it themselves
