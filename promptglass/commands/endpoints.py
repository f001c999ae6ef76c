"""`promptglass endpoints`: which language models can be asked?"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import sys
import textwrap
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ..errors import InputError, visible
from ..folders import config_path

if TYPE_CHECKING:
    from ..llm import Endpoint, Health, Profile

log = logging.getLogger("promptglass")

_DESCRIPTION = """\
Which language models can be asked. With NAME: every model of that endpoint, and what its profile sets.
Exit code 1 if one that was named cannot be asked or lacks its model, 2 if there is none of that name."""

_EPILOG = """\
examples:
  promptglass endpoints
  promptglass endpoints ollama
  promptglass endpoints --json

Endpoints of your own, and changes to ours, go into {config}
(PROMPTGLASS_CONFIG names another file):
  endpoints:
    ollama:                           # one of ours, with a model
      model: qwen2.5:3b
    eyes:                             # one of your own
      protocol: openai                # or ollama, anthropic
      base_url: http://gpu-box:8080/v1
      model: qwen2.5-vl-7b
      key_env: GPU_BOX_KEY            # only where it wants a key

A key is never written there: key_env names the environment variable that holds it,
key_file a file that only you can read."""

_PATIENCE_S = 2.0  # after that, it is said for whom we wait
_SIGHT = {True: "yes", False: "no", None: "does not say"}
_NAMED = 6  # of the models that see pictures; the rest is counted


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "endpoints",
        help="which language models can be asked?",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(config=config_path()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    command.add_argument("--json", action="store_true", help="one JSON line per endpoint")
    command.add_argument("-v", "--verbose", action="store_true", help="say what happens, and tracebacks")
    command.set_defaults(run=_endpoints)


def _endpoints(arguments: argparse.Namespace) -> int:
    from ..llm import Endpoint
    from ..llm.profiles import profile, profiles

    chosen = [profile(name) for name in dict.fromkeys(arguments.names)] or [*profiles().values()]
    found = _checked([Endpoint(one) for one in chosen])
    colour = sys.stdout is not None and sys.stdout.isatty() and "NO_COLOR" not in os.environ
    if arguments.json:
        for one in found:
            print(json.dumps(_as_json(one)), flush=True)  # ASCII: right in every encoding
    elif arguments.names:
        print("\n\n".join(_details(one, colour) for one in found))
    else:
        print(_listing(found, colour, min(shutil.get_terminal_size().columns, 120)))
    return 1 if arguments.names and not all(one.health.usable for one in found) else 0


@dataclass(frozen=True)
class _Found:
    """An endpoint as it was found."""

    profile: Profile
    health: Health
    no_key: str  # why there is none to ask with
    said: str  # that it answers, or what is wrong

    @property
    def model(self) -> str:
        """Who would answer, where that is clear."""
        models = self.health.models
        return visible(self.profile.model or (models[0] if len(models) == 1 else ""))

    @property
    def rank(self) -> int:
        """Those that can be asked, those to put right, those that are not there, those without a key."""
        return 3 if self.no_key else 0 if self.health.usable else 1 if self.health.reachable else 2


def _checked(endpoints: Sequence[Endpoint]) -> list[_Found]:
    """All side by side; Ctrl-C ends them at once."""
    stop = threading.Event()
    with ThreadPoolExecutor(len(endpoints)) as pool:
        try:
            checks = [pool.submit(one.check, stop) for one in endpoints]
            wait(checks, timeout=_PATIENCE_S)
            slow = [one.shown for one, check in zip(endpoints, checks, strict=True) if not check.done()]
            if slow:
                log.warning("waiting for %s", visible(", ".join(slow)))
            while wait(checks, timeout=0.1).not_done:  # Windows hears Ctrl-C only between two waits
                pass
            return [_found(one, check.result()) for one, check in zip(endpoints, checks, strict=True)]
        finally:
            stop.set()


def _found(endpoint: Endpoint, health: Health) -> _Found:
    profile = endpoint.profile
    no_key = _no_key(profile)
    said = no_key or health.message.removeprefix(endpoint.shown).lstrip(": ")
    if health.usable and health.models:
        said = "answers" if profile.model or len(health.models) == 1 else "answers; name a model"
    return _Found(profile, health, no_key, visible(said))


def _no_key(profile: Profile) -> str:
    try:
        profile.key()
    except InputError as error:
        is_unset = not profile.key_file and not os.environ.get(profile.key_env, "").strip()
        return f"no key: set {profile.key_env}" if is_unset else f"no key: {error}"
    return ""


def _listing(found: Sequence[_Found], colour: bool, width: int) -> str:
    """All endpoints, those that can be asked first; then where the settings are."""
    _, dim, reset = _style(colour)
    names = max(len(visible(one.profile.name)) for one in found)
    addresses = min(max(len(one.profile.base_url) for one in found), max(25, width - 55))
    lines = [f"{dim}{'NAME':<{names}}  PROTOCOL   {'ADDRESS':<{addresses}}  STATE{reset}"]
    for one in sorted(found, key=lambda one: one.rank):
        lines += _rows(one, names, addresses, colour, width)
    path = config_path()
    state = "" if path.is_file() else " (not there yet)"
    return "\n".join([*lines, "", f"Settings: {visible(str(path))}{state}; --help shows how to add yours"])


def _rows(one: _Found, names: int, addresses: int, colour: bool, width: int) -> list[str]:
    bold, dim, reset = _style(colour)
    name, state = f"{visible(one.profile.name):<{names}}", _brief(one)
    rest = f"  {one.profile.protocol:<9}  {one.profile.base_url:<{addresses}}"
    below = _wrapped(_about_models(one), names + 2, width)
    if len(rest) <= 13 + addresses and len(f"{name}{rest}  {state}") <= width:
        rows = [f"{rest}  {state}"]
    else:  # what is too long for the line goes below it
        rows = [rest.rstrip(), *_wrapped(state, names + 2, width)]
    if one.rank >= 2:
        return [f"{dim}{row}{reset}" for row in (name + rows[0], *rows[1:], *below)]
    name = f"{bold}{name}{reset}" if one.rank == 0 else name
    return [name + rows[0], *rows[1:], *(f"{dim}{row}{reset}" for row in below)]


def _style(colour: bool) -> tuple[str, str, str]:
    return ("\x1b[1m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")


def _wrapped(text: str, indent: int, width: int) -> list[str]:
    lines = textwrap.wrap(text, max(30, width - indent), break_long_words=False, break_on_hyphens=False)
    return [" " * indent + line for line in lines]


def _brief(one: _Found) -> str:
    """Without the way out, which NAME shows; but what a server says against us is there as a whole."""
    has_more_to_say = one.health.reachable and not one.health.models
    return (one.said if has_more_to_say else one.said.partition(". ")[0]).rstrip(".")


def _about_models(one: _Found) -> str:
    sights = one.health.sees_images
    parts = [f"model {one.model}"] if one.model and repr(one.model) not in one.said else []
    if sights:
        parts.append(f"{len(sights):,} model{'s' * (len(sights) != 1)}")
        seeing = [visible(name) for name, sees in sights.items() if sees]
        seeing.sort(key=lambda name: name.removesuffix(":latest") != one.model.removesuffix(":latest"))
        more = f" and {len(seeing) - _NAMED} more" if len(seeing) > _NAMED else ""
        none = "it does not say" if None in sights.values() else "none"
        parts.append(f"seeing pictures: {', '.join(seeing[:_NAMED]) or none}{more}")
    return " · ".join(parts)


def _details(one: _Found, colour: bool) -> str:
    """An endpoint with all its models, and what its profile sets."""
    profile = one.profile
    bold, _, reset = _style(colour)
    name = f"{bold}{visible(profile.name)}{reset}"
    said = f"{one.said} · model {one.model}" if one.model else one.said
    blocks = [f"{name}  {profile.protocol}  {profile.base_url}\n  {said}"]
    settings = [(name, _as_text(name, value)) for name, value in _settings(profile).items()]
    models = [(visible(name), _SIGHT[sees]) for name, sees in one.health.sees_images.items()]
    if settings:
        blocks.append(_columns([("SETTING", "VALUE"), *settings]))
    if models:
        blocks.append(_columns([("MODEL", "SEES PICTURES"), *models]))
    return "\n\n".join(blocks)


def _columns(rows: Sequence[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in rows)
    return "\n".join(f"  {left:<{width}}  {right}" for left, right in rows)


def _settings(profile: Profile) -> dict[str, Any]:
    """What differs from the defaults; of `extra` only the names, as nobody knows what its values are."""
    from ..llm.profiles import Profile, changed

    default = changed(Profile(profile.name, profile.protocol, profile.base_url))
    names = [field.name for field in fields(profile)]
    own = {name: getattr(profile, name) for name in names if getattr(profile, name) != getattr(default, name)}
    return {**own, "extra": [*map(str, profile.extra)]} if profile.extra else own


def _as_text(setting: str, value: Any) -> str:
    if setting == "key_env":
        return f"{value} ({'set' if os.environ.get(value, '').strip() else 'not set'})"
    return visible(", ".join(value) if isinstance(value, list) else str(value))


def _as_json(one: _Found) -> dict[str, Any]:
    profile = one.profile
    return {
        "name": profile.name,
        "protocol": profile.protocol,
        "base_url": profile.base_url,
        "reachable": one.health.reachable,
        "usable": one.health.usable,
        "message": one.said,
        "model": one.model or None,
        "models": [{"name": name, "sees_pictures": sees} for name, sees in one.health.sees_images.items()],
        "has_key": not one.no_key if profile.key_env or profile.key_file else None,
        "settings": _settings(profile),
    }
