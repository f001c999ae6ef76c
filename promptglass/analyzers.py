"""Everything that can be said of one picture, each kind behind the same small interface.

An Analyzer knows its modes, says what stands in the way of each without loading anything, and loads what it
needs at the first picture.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from .errors import EndpointRefused, EndpointUnreachable, PromptglassError, Stopped, WeightsMissing

if TYPE_CHECKING:
    from .images import Picture
    from .ocr import Reader
    from .tagger import Tagger

CLIP_MODES = ("caption", "best", "fast", "classic", "negative", "tables")
FROM_A_CAPTION = frozenset(("caption", "best", "fast", "classic"))
MODES = ("embedded", *CLIP_MODES, "tags", "ocr", "palette")
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
    settings: dict[str, object] = field(default_factory=dict)
    details: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """No answer about one picture. is_of_mode: nor would another picture fare better."""

    mode: str
    error: Exception  # of promptglass, but for a ModuleNotFoundError
    is_of_mode: bool = False


@dataclass(frozen=True)
class Recipe:
    """What an answer depends on, beside the picture. model: None where there is only one way."""

    model: str | None
    settings: dict[str, object] = field(default_factory=dict)

    def made(self, entry: object) -> bool:
        """Whether an entry of a sidecar came about this way."""
        if not isinstance(entry, dict):
            return False
        is_alike = self.model == entry.get("model") and self.settings == entry.get("settings", {})
        return self.model is None or is_alike


Answers = Generator[tuple[int, "Answer | Failure"], None, None]  # each with the place of its picture


class Analyzer(Protocol):
    modes: tuple[str, ...]

    def obstacles(self, mode: str) -> list[str]:
        """What stands in the way of a mode here and now, each with what would remove it."""
        ...

    def recipe(self, mode: str) -> Recipe:
        """How a mode would be answered, known without loading a model."""
        ...

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Answers:
        """Answers as they come about. Closing it ends the work.

        A picture may have none for a mode: no prompt stands in its file, say.
        """
        ...

    def release(self, patience_s: float) -> None:
        """The work is done for now: give back what only work needs, within so many seconds."""
        return


def release(analyzers: Iterable[Analyzer], at_once: bool = False) -> None:
    """The work of all is done. at_once: somebody wants to stop."""
    for analyzer in analyzers:
        analyzer.release(0.2 if at_once else 5.0)


def ask(analyzer: Analyzer, picture: Picture, modes: Sequence[str]) -> Iterator[Answer | Failure]:
    """What an analyzer says of one picture. What one mode lacks, a caption say, costs no other its answer."""
    told: set[str] = set()
    try:
        with contextlib.closing(analyzer.analyze([picture], modes)) as outcomes:
            for _, outcome in outcomes:
                told.add(outcome.mode)
                yield outcome
    except Stopped:
        raise
    except (PromptglassError, ModuleNotFoundError) as error:
        left = [mode for mode in modes if mode not in told]
        if len(modes) == 1 or isinstance(error, EndpointRefused | EndpointUnreachable):
            for mode in left:
                yield Failure(mode, error, is_of_mode=True)
            return
        for mode in left:
            yield from ask(analyzer, picture, [mode])


class EmbeddedAnalyzer(Analyzer):
    """The prompt that is already in the file."""

    modes: tuple[str, ...] = ("embedded",)

    def obstacles(self, mode: str) -> list[str]:
        return []

    def recipe(self, mode: str) -> Recipe:
        return Recipe(None)

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Answers:
        for place, picture in enumerate(pictures):
            found = picture.embedded
            if found is not None:
                yield place, Answer("embedded", found.positive, found.source, details=asdict(found))


class PaletteAnalyzer(Analyzer):
    """The dominant colours."""

    modes: tuple[str, ...] = ("palette",)

    def obstacles(self, mode: str) -> list[str]:
        return []

    def recipe(self, mode: str) -> Recipe:
        return Recipe(None)

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Answers:
        from .colours import palette

        for place, picture in enumerate(pictures):
            started = time.perf_counter()
            colours = palette(picture.image)
            text = ", ".join(colour.name for colour in colours)
            details: dict[str, object] = {"colours": [asdict(colour) for colour in colours]}
            yield place, Answer("palette", text, elapsed_s=time.perf_counter() - started, details=details)


class TagsAnalyzer(Analyzer):
    """What is in the picture, by a tagger: "starter", a known model, or a folder in WD14's layout."""

    modes: tuple[str, ...] = ("tags",)

    def __init__(self, tagger: str = "starter") -> None:
        self._name = tagger

    def obstacles(self, mode: str) -> list[str]:
        from .tagger import STARTER_PACKAGES

        if self._name == "starter":
            return not_installed("the starter classifier", *STARTER_PACKAGES)
        return [*not_here(self._name), *not_installed("the runtime of taggers", "onnxruntime")]

    @cached_property
    def _tagger(self) -> Tagger:
        from .tagger import load_tagger

        return load_tagger(self._name)

    def recipe(self, mode: str) -> Recipe:
        from .tagger import name_of

        return Recipe(name_of(self._name))

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Answers:
        tagger = self._tagger
        started = time.perf_counter()
        tagged = tagger.tag([picture.image for picture in pictures])
        elapsed_s = (time.perf_counter() - started) / len(pictures)
        for place, tags in enumerate(tagged):
            text = ", ".join(tag.label for tag in tags if tag.category != "rating")
            details: dict[str, object] = {"tags": [asdict(tag) for tag in tags]}
            yield place, Answer("tags", text, tagger.name, elapsed_s=elapsed_s, details=details)


class OcrAnalyzer(Analyzer):
    """The text in the picture, read without a language model."""

    modes: tuple[str, ...] = ("ocr",)

    def obstacles(self, mode: str) -> list[str]:
        from .ocr import PACKAGES

        return not_installed("the reader of text", *PACKAGES)

    @cached_property
    def _reader(self) -> Reader:
        from .ocr import load_reader

        return load_reader()

    def recipe(self, mode: str) -> Recipe:
        from .ocr import reader_name

        return Recipe(reader_name())

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Answers:
        reader = self._reader
        for place, picture in enumerate(pictures):
            started = time.perf_counter()
            lines = reader.read(picture.image)
            elapsed_s = time.perf_counter() - started
            text = "\n".join(line.text for line in lines)
            details: dict[str, object] = {"lines": [asdict(line) for line in lines]}
            yield place, Answer("ocr", text, reader.name, elapsed_s=elapsed_s, details=details)


def as_json(answer: Answer) -> dict[str, object]:
    """An answer for scripts and for the wire."""
    return {
        "mode": answer.mode,
        "text": answer.text,
        "model": answer.model,
        "score": answer.score,
        "elapsed_s": round(answer.elapsed_s, 3),
        **({"settings": answer.settings} if answer.settings else {}),
        **answer.details,
    }


def not_here(model: str) -> list[str]:
    """That the weights of a model are not here, and which command gets them; empty where they are."""
    if missing := not_installed("the hub's client", "huggingface-hub"):
        return missing
    from .weights import local_path, resolve

    if local_path(model) is not None:
        return []
    try:
        return [f"{model} is not here (promptglass models get {resolve(model).name})"]
    except WeightsMissing as error:  # nothing is called like this
        return [str(error)]


def not_installed(purpose: str, *packages: str) -> list[str]:
    """Which packages a purpose lacks, and which command installs them; empty where they are there."""
    absent = [p for p in packages if importlib.util.find_spec(p.replace("-", "_")) is None]
    install = " ".join(_ON_PYPI.get(package, package) for package in absent)
    return [f"{purpose} is not installed (pip install {install})"] if absent else []


_ON_PYPI = {"open-clip": "open_clip_torch"}
