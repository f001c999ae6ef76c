"""Language models behind an endpoint: Ollama, anything that speaks OpenAI's protocol, Anthropic.

As in promptglass itself, a name is imported when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .endpoint import Endpoint, Health, Reply
    from .profiles import Profile

_HOME = {
    "Endpoint": "endpoint",
    "Health": "endpoint",
    "Profile": "profiles",
    "Reply": "endpoint",
}

__all__ = ["Endpoint", "Health", "Profile", "Reply"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
