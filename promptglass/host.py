"""Where promptglass runs: whose models it uses, where it may read and write. Here: on its own.

A WebUI is another Host (webui/). What windows and wires ask (service.py) is the same for all of them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .choice import CAPTIONER, CLIP_MODEL, Choice
from .clip.analyzer import ClipAnalyzer
from .clip.tables import vocabulary_id
from .errors import InputError, visible
from .grouped import Groups
from .hosts import WildcardFolder
from .progress import Progress
from .turns import Turns

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from .analyzers import Answers
    from .caption import Captioner, TransformersCaptioner
    from .clip.interrogator import Interrogator
    from .clip.loaded import LoadedClip
    from .images import Picture

log = logging.getLogger("promptglass")

ROOTS_VARIABLE = "PROMPTGLASS_ROOTS"


class Host(Protocol):
    """name: as people know it. note: what a user should know of its models.

    roots: folders in which pictures may be read and sidecars written. endpoints: those that may be asked;
    None: all.
    """

    name: str

    @property
    def note(self) -> str: ...

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
        self._groups = Groups(self._turns)

    def clip(self, choice: Choice, progress: Progress) -> ClipAnalyzer:
        return self._models.clip(choice, self._turns, progress, self._groups)

    def loaded(self, choice: Choice) -> LoadedClip:
        return self._models.loaded(choice, self._turns)

    def turns(self) -> Turns:
        return self._turns

    def facts(self) -> dict[str, str]:
        if "torch" not in sys.modules:  # seconds to import, or not there at all
            return {"device": "chosen with the first model"}
        from .clip.loading import pick_device

        return {"device": str(pick_device("auto"))}

    def wildcard_folder(self) -> WildcardFolder:
        if self.wildcards is None:
            raise InputError("no folder for wildcards was named: start with --wildcards DIR")
        return WildcardFolder("", self.wildcards)

    def wildcards_changed(self) -> str:
        return ""


class OwnModels:
    """The engine's own encoder and captioner by name, loaded once: one of each at a time.

    device: where they compute, if a host says so; between turns they may `rest` in the main memory.
    make_room: told which model is to come there.
    """

    def __init__(
        self,
        device: Callable[[], torch.device] | None = None,
        make_room: Callable[[torch.nn.Module], None] = lambda module: None,
    ) -> None:
        self._device = device
        self._make_room = make_room
        self._brought: list[torch.nn.Module] = []
        self._loaded: tuple[str, LoadedClip, object] | None = None
        self._captioner: TransformersCaptioner | None = None
        self._interrogator: tuple[tuple[object, ...], Interrogator] | None = None

    def clip(
        self,
        choice: Choice,
        turns: Turns,
        progress: Progress,
        groups: Groups | None = None,
        is_here: bool = False,
    ) -> ClipAnalyzer:
        """groups: of whoever asks about single pictures at the same time. is_here: the host has this CLIP."""
        captioner = choice.captioner or CAPTIONER
        tables = None if choice.tables is None else vocabulary_id(choice.tables)
        key = (choice.model or CLIP_MODEL, captioner, tables, choice.device, choice.dtype)

        def together(analyzer: ClipAnalyzer, picture: Picture, modes: Sequence[str]) -> Answers:
            assert groups is not None
            return groups.answers(analyzer, picture, modes, key, progress)

        return ClipAnalyzer(
            choice.model or CLIP_MODEL,
            captioner,
            choice.caption,
            choice.tables,
            interrogator=lambda: self._interrogates(choice, captioner, tables, turns),
            turn=lambda: turns.turn(progress),
            is_here=is_here,
            together=None if groups is None else together,
        )

    def _interrogates(self, choice: Choice, captioner: str, tables: str | None, turns: Turns) -> Interrogator:
        """The same one for all that ask the same: what one has seen, the next need not look at."""
        loaded = self.loaded(choice, turns)
        writer = self._writer(captioner, choice, turns)
        key = (loaded, tables, writer and writer.name)
        if self._interrogator is None or self._interrogator[0] != key:
            self._interrogator = None
            self._interrogator = key, loaded.interrogator(choice.tables, captioner=writer)
        return self._interrogator[1]

    def loaded(self, choice: Choice, turns: Turns) -> LoadedClip:
        model = choice.model or CLIP_MODEL
        if self._loaded is None or self._loaded[0] != model:
            self._loaded = self._interrogator = None  # before the next one: there may be no room for both
            self._loaded = model, *self.load(model, choice, turns)
        return self._loaded[1]

    def rest(self) -> None:
        """Out of the GPU's memory, until they are used again."""
        while self._brought:
            self._brought.pop().to("cpu")

    def load(self, model: str, choice: Choice, turns: Turns) -> tuple[LoadedClip, object]:
        """Also what must be kept with it. A host that has models by names of its own loads them here."""
        from .clip.hosted import HostedEncoder
        from .clip.loaded import LoadedClip
        from .clip.loading import load_encoder

        turns.progress(f"loading {model}", 0, 1)
        encoder = load_encoder(model, *self._where(choice))

        @contextlib.contextmanager
        def turn() -> Iterator[None]:
            with turns.turn():
                self._bring(encoder.module)
                yield

        hosted = HostedEncoder(encoder.name, lambda: encoder, turn, lambda: turns.progress("CLIP", 0, 0))
        return LoadedClip(hosted, turns.progress), encoder

    def _writer(self, name: str, choice: Choice, turns: Turns) -> Captioner | None:
        from .caption import load_captioner
        from .weights import local_path

        if local_path(name) is None:
            return None
        if self._captioner is None or self._captioner.name != name:
            self._captioner = self._interrogator = None
            self._captioner = load_captioner(name, *self._where(choice))
        return _Writer(self._captioner, turns, self._bring)

    def _where(self, choice: Choice) -> tuple[str, str]:
        """Device and precision to load with. What is brought to a host's device comes by way of the CPU."""
        if self._device is None:
            return choice.device, choice.dtype
        is_gpu = self._device().type in ("cuda", "mps")
        return "cpu", "fp16" if is_gpu and choice.dtype == "auto" else choice.dtype

    def _bring(self, module: Any) -> None:
        if self._device is not None and module not in self._brought:
            self._make_room(module)
            try:
                module.to(self._device())
            except BaseException:  # there was no room for all of it
                module.to("cpu")
                raise
            self._brought.append(module)


class _Writer:
    """A captioner that is brought to where it computes."""

    def __init__(self, captioner: TransformersCaptioner, turns: Turns, bring: Callable[[Any], None]) -> None:
        self.name = captioner.name
        self._captioner = captioner
        self._turns = turns
        self._bring = bring

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        with self._turns.turn():
            self._bring(self._captioner.module)
            return self._captioner.caption(images)


def named_roots(given: Sequence[str | Path]) -> list[Path]:
    """Folders as a person names them, and those of PROMPTGLASS_ROOTS.

    Raises InputError for one that is none.
    """
    return [*dict.fromkeys(root_at(root) for root in (*given, *roots_of_environment()))]


def roots_of_environment() -> list[str]:
    return [root for root in os.environ.get(ROOTS_VARIABLE, "").split(os.pathsep) if root.strip()]


def roots_that_are_there(given: Iterable[str | Path]) -> list[Path]:
    """Of those that are not the log tells: a host must start, and the others are there."""
    roots: list[Path] = []
    for each in given:
        try:
            roots.append(root_at(each))
        except InputError as error:
            log.error("promptglass: %s", error)
    return roots


def root_at(given: str | Path) -> Path:
    """Raises InputError where there is no such folder."""
    root = Path(given).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {visible(str(root))}: name one that is there")
    return root.resolve()


def allowed(path: str | Path, roots: Sequence[Path]) -> Path:
    """A path with its links resolved. Raises InputError where it is in none of the roots."""
    asked = str(path).strip()
    try:
        place = Path(asked).expanduser()
        # Not even looked at: to look into a share of somebody's, Windows logs in there.
        is_share = place.drive.startswith("\\\\")
        is_known = place.drive.lower() in {root.drive.lower() for root in roots}
        place = Path() if is_share and not is_known else place.resolve()
        # Since Python 3.13 a link that leads to itself is left in there without a word.
        if any(part.is_symlink() for part in (place, *place.parents)):
            place = Path()
    except (OSError, RuntimeError, ValueError):  # a NUL, a user who is not there, such a link
        place = Path()
    if not asked or not any(place.is_relative_to(root) for root in roots):
        where = ", ".join(visible(str(root)) for root in roots) or "none is allowed"
        raise InputError(f"{visible(asked) or 'an empty path'} is not in a folder that may be used: {where}")
    return place
