"""A WebUI as a Host: the models it interrogates with, under its lock, on its device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..choice import Choice
from ..clip.analyzer import ClipAnalyzer
from ..errors import InputError, visible
from ..host import OwnModels, allowed, roots_of_environment, roots_that_are_there
from ..hosts import WildcardFolder
from ..progress import Progress
from ..turns import Turns
from . import running, settings

if TYPE_CHECKING:
    from ..clip.loaded import LoadedClip
    from .models import HostCaptioner


class WebUI:
    """A Host. Where it has no interrogation models of its own (Forge Neo), the engine's are used."""

    def __init__(self) -> None:
        self.name = running.name()
        self.roots: Sequence[Path] = _roots()
        self.endpoints: Sequence[str] | None = _endpoints()
        self._turns = Turns(running.queue_lock(), self._job)
        self._own = OwnModels(running.device, running.make_room_for)
        self._is_loaded = False  # in this turn

    @property
    def note(self) -> str:
        if running.interrogator() is not None:
            return ""
        return f"{self.name} has no interrogation models: promptglass uses those that it has fetched itself"

    def clip(self, choice: Choice, progress: Progress) -> ClipAnalyzer:
        if not self._is_hosts(choice):
            return self._own.clip(choice, self._turns, progress)
        return ClipAnalyzer(
            running.clip_name(),
            choice.captioner or self._captioner,
            choice.caption,
            choice.tables,
            interrogator=lambda: self._clip.interrogator(choice.tables),
            turn=lambda: self._turns.turn(progress),
            is_here=True,
        )

    def loaded(self, choice: Choice) -> LoadedClip:
        return self._clip if self._is_hosts(choice) else self._own.loaded(choice, self._turns)

    def turns(self) -> Turns:
        return self._turns

    def facts(self) -> dict[str, str]:
        models = running.interrogator()
        facts = {"device": str(running.device())}
        if models is not None:
            is_loaded = getattr(models, "clip_model", None) is not None
            state = "loaded" if is_loaded else "loaded by the WebUI when it is first used"
            facts["CLIP"] = f"{running.clip_name()}, {state}"
            facts["captions"] = "the WebUI's BLIP, with the lengths of its settings"
        if any(running.flag(flag) for flag in ("lowvram", "medvram", "medvram_sdxl")):
            facts["memory"] = "--lowvram or --medvram: the checkpoint makes room while CLIP works"
        return facts

    def wildcard_folder(self) -> WildcardFolder:
        chosen = settings.wildcard_folder()
        if chosen:
            return WildcardFolder("", allowed(chosen, self.roots))
        found = running.wildcard_folder()
        if found is None:
            raise InputError(
                "nothing here reads wildcards: install sd-dynamic-prompts in Extensions, or name a folder in "
                "Settings → promptglass"
            )
        return found

    def wildcards_changed(self) -> str:
        return running.wildcards_changed()

    def _is_hosts(self, choice: Choice) -> bool:
        return running.interrogator() is not None and choice.model in (None, running.clip_name())

    @cached_property
    def _clip(self) -> LoadedClip:
        from ..clip.loaded import LoadedClip
        from .models import host_encoder

        return LoadedClip(host_encoder(self._turns, self._models), self._progress)

    @cached_property
    def _captioner(self) -> HostCaptioner:
        from .models import HostCaptioner

        return HostCaptioner(self._turns, self._models)

    def _models(self) -> Any:
        """The host's, where they compute: loaded once in a turn, as Forge tidies up at every call."""
        if not self._is_loaded:
            running.load()
            self._is_loaded = True
        return running.interrogator()

    @contextlib.contextmanager
    def _job(self) -> Iterator[None]:
        with running.job():
            self._is_loaded = False
            try:
                yield
            finally:
                if not running.keeps_models():
                    self._own.rest()

    def _progress(self, what: str, done: int, total: int) -> None:
        running.progress(what, done, total)
        self._turns.progress(what, done, total)


def _roots() -> list[Path]:
    """Those of --promptglass-root and PROMPTGLASS_ROOTS, and the folder of the host's own pictures.

    None of them is a setting: whoever can open the page could change it.
    """
    named = [*(running.flag("promptglass_root") or []), *roots_of_environment()]
    return [*dict.fromkeys([*roots_that_are_there(named), running.output_folder()])]


def _endpoints() -> list[str] | None:
    given = running.flag("promptglass_endpoints")
    if given is None:
        return None
    return [visible(name.strip()) for name in given.split(",") if name.strip()]
