"""promptglass: from a picture to a prompt.

The public names below are imported on first use, so that `import promptglass` costs a host nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .caption import Captioner, load_captioner
    from .client import Client
    from .clip.encoder import JointEncoder, OpenClipEncoder, TransformersEncoder
    from .clip.interrogator import Interrogation, Interrogator, Subject
    from .clip.loading import load_encoder
    from .clip.tables import choose_tables, default_tables, without_artists
    from .clip.vocabulary import Vocabulary
    from .colours import palette
    from .errors import PromptglassError
    from .images import open_picture
    from .metadata import Embedded, read_embedded
    from .tagger import Tagger, load_tagger

__version__ = "0.1.0"

_HOME = {
    "Captioner": "caption",
    "Client": "client",
    "Embedded": "metadata",
    "Interrogation": "clip.interrogator",
    "Interrogator": "clip.interrogator",
    "JointEncoder": "clip.encoder",
    "OpenClipEncoder": "clip.encoder",
    "PromptglassError": "errors",
    "Subject": "clip.interrogator",
    "Tagger": "tagger",
    "TransformersEncoder": "clip.encoder",
    "Vocabulary": "clip.vocabulary",
    "choose_tables": "clip.tables",
    "default_tables": "clip.tables",
    "load_captioner": "caption",
    "load_encoder": "clip.loading",
    "load_tagger": "tagger",
    "open_picture": "images",
    "palette": "colours",
    "read_embedded": "metadata",
    "without_artists": "clip.tables",
}

__all__ = [*_HOME, "__version__"]  # noqa: PLE0604 - all of them are strings


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
