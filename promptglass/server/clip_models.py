"""CLIP models by the names that a client may use: never a path, as loading a file may run what is in it."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ..choice import Choice
from ..errors import InputError, visible
from ..host import Host
from ..progress import silent
from ..weights import KNOWN, find


def own_model(host: Host) -> str:
    """What the host interrogates with where nobody names another."""
    return host.clip(Choice(), silent).recipe("caption").model or ""


def with_known_model(choice: Choice, host: Host) -> Choice:
    """The choice with a model that has a name; None for the host's own. Raises InputError for any other."""
    asked = (choice.model or "").strip()
    if asked in ("", own_model(host)):
        return replace(choice, model=None)
    known = find(asked)
    if known is not None and known.kind == "clip":
        return replace(choice, model=known.name)
    if asked in open_clip_models():
        return replace(choice, model=asked)
    names = ", ".join(weights.name for weights in KNOWN if weights.kind == "clip")
    raise InputError(f"there is no CLIP model {visible(asked)[:100]!r}: choose from {names}, …")


@lru_cache(maxsize=1)
def open_clip_models() -> tuple[str, ...]:
    """Every "ARCHITECTURE/TAG" of open_clip; none where that is missing."""
    try:
        from open_clip import list_pretrained

        return tuple("/".join(pair) for pair in list_pretrained())
    except Exception:  # absent, or broken by what a host has beside it
        return ()
