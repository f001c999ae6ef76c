"""Where promptglass runs: whose models it uses, where it may read and write. Here: on its own.

A WebUI is another Host (webui/). What windows and wires ask (service.py) is the same for all of them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .analyzers import ClipAnalyzer
from .choice import CAPTIONER, CLIP_MODEL, Choice
from .errors import InputError, visible
from .hosts import WildcardFolder
from .progress import Progress
from .turns import Turns

if TYPE_CHECKING:
    from .caption import Captioner
    from .clip.interrogator import Interrogator
    from .clip.loaded import LoadedClip

log = logging.getLogger("promptglass")

ROOTS_VARIABLE = "PROMPTGLASS_ROOTS"


class Host(Protocol):
    """name: as people know it. note: what a user should know of its models.

    roots: folders in which pictures may be read and sidecars written. endpoints: those that may be asked;
    None: all.
    """

    name: str
    note: str
    roots: Sequence[Path]
    endpoints: Sequence[str] | None

    def clip(self, choice: Choice, progress: Progress) -> ClipAnalyzer:
        """On the host's models, or on those that were chosen. Loads nothing yet."""
        ...

    def loaded(self, choice: Choice) -> LoadedClip:
        """CLIP for categories and labels. To be asked for, and used, within a turn."""
        ...

    def turns(self) -> Turns: ...

    def facts(self) -> dict[str, str]:
        """What to know of it: device, models, folders; each one line."""
        ...

    def wildcard_folder(self) -> WildcardFolder:
        """Where wildcards go. Raises InputError where nothing reads any."""
        ...

    def wildcards_changed(self) -> str:
        """New files are there: whoever reads them is told. What the user still has to do, or ""."""
        ...


@dataclass
class Standalone:
    """promptglass on its own, with models of its own."""

    roots: Sequence[Path] = ()
    wildcards: Path | None = None
    name: str = "standalone"
    note: str = ""
    endpoints: Sequence[str] | None = None

    def __post_init__(self) -> None:
        self._models = OwnModels()
        self._turns = Turns()

    def clip(self, choice: Choice, progress: Progress) -> ClipAnalyzer:
        return self._models.clip(choice, self._turns, progress)

    def loaded(self, choice: Choice) -> LoadedClip:
        return self._models.loaded(choice, self._turns)

    def turns(self) -> Turns:
        return self._turns

    def facts(self) -> dict[str, str]:
        from .clip.loading import pick_device

        return {"device": str(pick_device("auto"))}

    def wildcard_folder(self) -> WildcardFolder:
        if self.wildcards is None:
            raise InputError("no folder for wildcards was named: start with --wildcards DIR")
        return WildcardFolder("", self.wildcards)

    def wildcards_changed(self) -> str:
        return ""


class OwnModels:
    """The engine's own encoder and captioner by name, loaded once: one of each at a time."""

    def __init__(self) -> None:
        self._encoder = lru_cache(maxsize=1)(_loaded_clip)
        self._captioner = lru_cache(maxsize=1)(_captioner)

    def clip(self, choice: Choice, turns: Turns, progress: Progress) -> ClipAnalyzer:
        from .clip.tables import default_tables

        model, captioner = choice.model or CLIP_MODEL, choice.captioner or CAPTIONER

        def interrogator() -> Interrogator:
            tables = default_tables() if choice.tables is None else choice.tables
            writer = self._captioner(captioner, choice.device, choice.dtype)
            return self.loaded(choice, turns).interrogator(tables, captioner=writer)

        return ClipAnalyzer(
            model,
            captioner,
            choice.caption,
            choice.tables,
            interrogator=interrogator,
            turn=lambda: turns.turn(progress),
        )

    def loaded(self, choice: Choice, turns: Turns) -> LoadedClip:
        return self._encoder(choice.model or CLIP_MODEL, choice.device, choice.dtype, turns.progress)


def _loaded_clip(model: str, device: str, dtype: str, progress: Progress) -> LoadedClip:
    from .clip.loaded import LoadedClip
    from .clip.loading import load_encoder

    progress(f"loading {model}", 0, 1)
    return LoadedClip(load_encoder(model, device, dtype), progress)


def _captioner(name: str, device: str, dtype: str) -> Captioner | None:
    from .caption import load_captioner
    from .weights import local_path

    return load_captioner(name, device, dtype) if local_path(name) is not None else None


def named_roots(given: Sequence[str | Path]) -> list[Path]:
    """Folders as a person names them, and those of PROMPTGLASS_ROOTS.

    Raises InputError for one that is none.
    """
    from_environment = os.environ.get(ROOTS_VARIABLE, "").split(os.pathsep)
    roots = [Path(root).expanduser() for root in (*given, *from_environment) if str(root).strip()]
    for root in roots:
        if not root.is_dir():
            raise InputError(f"there is no folder {visible(str(root))}: name one that is there")
    return [*dict.fromkeys(root.resolve() for root in roots)]


def allowed(path: str | Path, roots: Sequence[Path]) -> Path:
    """A path with its links resolved. Raises InputError where it is in none of the roots."""
    asked = str(path).strip()
    try:
        place = Path(asked).expanduser().resolve() if asked else Path()
    except (
        OSError,
        RuntimeError,
        ValueError,
    ):  # a link to itself, a NUL, a user who is not there
        place = Path()
    if not asked or not any(place.is_relative_to(root) for root in roots):
        where = ", ".join(visible(str(root)) for root in roots) or "none is allowed"
        raise InputError(f"{visible(asked) or 'an empty path'} is not in a folder that may be used: {where}")
    return place
