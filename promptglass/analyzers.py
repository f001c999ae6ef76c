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

from .errors import WeightsMissing
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

    def obstacles(self, mode: str) -> list[str]:
        """What stands in the way of a mode here and now, each with what would remove it."""
        ...

    def analyze(self, picture: Picture, modes: Sequence[str]) -> Iterator[Answer]:
        """Answers for those of the modes that have one; a picture without a prompt in it gives none."""
        ...


class EmbeddedAnalyzer:
    """The prompt that is already in the file."""

    modes: tuple[str, ...] = ("embedded",)

    def obstacles(self, mode: str) -> list[str]:
        return []

    def analyze(self, picture: Picture, modes: Sequence[str]) -> Iterator[Answer]:
        found = picture.embedded
        if found is not None:
            yield Answer("embedded", found.positive, found.source, details=asdict(found))


class PaletteAnalyzer:
    """The dominant colours."""

    modes: tuple[str, ...] = ("palette",)

    def obstacles(self, mode: str) -> list[str]:
        return []

    def analyze(self, picture: Picture, modes: Sequence[str]) -> Iterator[Answer]:
        from .colours import palette

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

    def obstacles(self, mode: str) -> list[str]:
        from .tagger import STARTER_PACKAGES

        if self._name == "starter":
            return _not_installed("the starter classifier", *STARTER_PACKAGES)
        return [*_not_here(self._name), *_not_installed("the runtime of taggers", "onnxruntime")]

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
        progress: Progress = silent,
    ) -> None:
        self._model = model
        self._captioner_name = captioner
        self._caption = caption
        self._tables = tables
        self._device = device
        self._dtype = dtype
        self._progress = progress

    def obstacles(self, mode: str) -> list[str]:
        found = [*_not_installed("CLIP", "torch", "open-clip", "transformers"), *_not_here(self._model)]
        if mode != "negative" and not self._caption:
            found += [f"{obstacle}, or give --caption TEXT" for obstacle in _not_here(self._captioner_name)]
        return found

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
        from .clip.tables import default_tables
        from .clip.vocabulary import Vocabulary

        self._progress(f"loading {self._model}", 0, 1)
        encoder = load_encoder(self._model, self._device, self._dtype)
        self._progress(f"loading {self._model}", 1, 1)
        tables = default_tables() if self._tables is None else self._tables
        vocabulary = Vocabulary(tables, encoder, cache_folder("embeddings"), self._progress)
        return Interrogator(encoder, vocabulary, progress=self._progress)

    @cached_property
    def _captioner(self) -> Captioner:
        from .caption import load_captioner

        return load_captioner(self._captioner_name, self._device, self._dtype)


def _not_here(model: str) -> list[str]:
    if missing := _not_installed("the hub's client", "huggingface-hub"):
        return missing
    from .weights import local_path, resolve

    if local_path(model) is not None:
        return []
    try:
        return [f"{model} is not here (promptglass models get {resolve(model).name})"]
    except WeightsMissing as error:  # nothing is called like this
        return [str(error)]


def _not_installed(purpose: str, *packages: str) -> list[str]:
    absent = [p for p in packages if importlib.util.find_spec(p.replace("-", "_")) is None]
    install = " ".join(_ON_PYPI.get(package, package) for package in absent)
    return [f"{purpose} is not installed (pip install {install})"] if absent else []


_ON_PYPI = {"open-clip": "open_clip_torch"}
