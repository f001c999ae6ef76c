"""ComfyUI as a Host of the service: what `promptglass serve` answers, at /promptglass on the host's server.

It takes FastAPI, which ComfyUI has not: without it, that is what whoever asks is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..promptglass.choice import Choice
from ..promptglass.errors import Stopped
from ..promptglass.host import OwnModels, roots_of_environment, roots_that_are_there
from ..promptglass.progress import Progress
from ..promptglass.server.access import Access
from ..promptglass.server.mounted import MOST_QUESTIONS, Mounted
from ..promptglass.server.room import Room
from ..promptglass.service import Service
from . import host, jobs, routes, wildcards
from .clip_models import OWN_CLIP, from_host
from .turns import QueueTurns

if TYPE_CHECKING:
    from ..promptglass.clip.analyzer import ClipAnalyzer
    from ..promptglass.clip.loaded import LoadedClip
    from ..promptglass.hosts import WildcardFolder
    from ..promptglass.turns import Turns


@lru_cache(maxsize=1)
def app() -> Mounted:
    access = Access(dict, routes.names_of_host(), room=Room(MOST_QUESTIONS))
    return Mounted(Service(ComfyUI()), access)


class ComfyUI:
    """A Host. Its pair of CLIP and CLIP_VISION interrogates where it has one, or else the engine's own."""

    name = "ComfyUI"
    note = ""
    endpoints: Sequence[str] | None = None

    def __init__(self) -> None:
        self.roots: Sequence[Path] = _roots()
        self._turns = QueueTurns(self._turn)
        self._models = _Models()

    def clip(self, choice: Choice, progress: Progress) -> ClipAnalyzer:
        pair = _hosts_pair()
        choice = _named(choice, pair)
        return self._models.clip(choice, self._turns, progress, is_here=choice.model in pair)

    def loaded(self, choice: Choice) -> LoadedClip:
        return self._models.loaded(_named(choice, _hosts_pair()), self._turns)

    def turns(self) -> Turns:
        return self._turns

    def facts(self) -> dict[str, str]:
        return {"device": str(host.device()), "CLIP": next(iter(_hosts_pair()), OWN_CLIP)}

    def wildcard_folder(self) -> WildcardFolder:
        from ..promptglass.hosts import WildcardFolder

        path, is_read_as_latin1 = next(iter(wildcards.folders().values()))
        return WildcardFolder("", path, is_read_as_latin1)

    def wildcards_changed(self) -> str:
        return ""

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        import torch

        with torch.inference_mode():  # as the host runs its nodes
            try:
                yield
            except host.interruption() as error:  # by the host's own code, within a model
                raise Stopped("interrupted in ComfyUI") from error
            finally:
                self._models.rest()


class _Models(OwnModels):
    """The host's pair among them, by the name that _hosts_pair() gives it."""

    def __init__(self) -> None:
        super().__init__(host.device, host.make_room_for)

    def load(self, model: str, choice: Choice, turns: Turns) -> tuple[LoadedClip, object]:
        pair = _hosts_pair().get(model)
        if pair is None:
            return super().load(model, choice, turns)
        turns.progress(f"loading {model}", 0, 1)
        clip, clip_vision = host.load_pair(pair.clip, pair.clip_vision)
        loaded = from_host(
            clip, clip_vision, progress=turns.progress, check=lambda: turns.progress("CLIP", 0, 0)
        )
        loaded.encoder.name = model  # which must be known before it is loaded
        return loaded, clip


def _named(choice: Choice, pair: Iterable[str]) -> Choice:
    """With the name of the model that answers where none was chosen."""
    return choice if choice.model else replace(choice, model=next(iter(pair), OWN_CLIP))


def _hosts_pair() -> dict[str, jobs.Pair]:
    """By name; none where a model of the engine is the better choice."""
    pair, _ = routes.best_clip()
    if pair is None:
        return {}
    files = [pair.clip] if pair.clip == pair.clip_vision else [pair.clip, pair.clip_vision]
    return {f"comfyui/{'+'.join(files)}": pair}


def _roots() -> list[Path]:
    """Those of PROMPTGLASS_ROOTS, and the host's folders of pictures, which it makes when it needs them."""
    own = [host.folder_of(kind).resolve() for kind in ("output", "input")]
    return [*dict.fromkeys([*own, *roots_that_are_there(roots_of_environment())])]
