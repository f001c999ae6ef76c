"""Everything that can be said of one picture, each kind behind the same small interface.

An Analyzer knows its modes, says what stands in the way of each without loading anything, and loads what it
needs at the first picture.
"""

from __future__ import annotations

import contextlib
import importlib.util
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from .errors import EndpointRefused, EndpointUnreachable, PromptglassError, Stopped, WeightsMissing
from .folders import cache_folder
from .progress import Progress, silent

if TYPE_CHECKING:
    from .caption import Captioner
    from .clip.interrogator import Interrogation, Interrogator, Subject
    from .images import Picture
    from .ocr import Reader
    from .refine import Notes
    from .tagger import Tagger

CLIP_MODES = ("caption", "best", "fast", "classic", "negative", "tables")
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
            return _not_installed("the starter classifier", *STARTER_PACKAGES)
        return [*_not_here(self._name), *_not_installed("the runtime of taggers", "onnxruntime")]

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

        return _not_installed("the reader of text", *PACKAGES)

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


FROM_A_CAPTION = frozenset(("caption", "best", "fast", "classic"))
# As the signatures of Interrogator's modes, which importing would load torch.
_DEFAULTS: dict[str, dict[str, object]] = {
    "best": {"min_flavors": 8, "max_flavors": 32, "pool_size": 2048},
    "fast": {"max_flavors": 32},
    "classic": {"max_flavors": 3},
    "negative": {"max_flavors": 32, "pool_size": 2048},
    "tables": {"count": 5},
}


class ClipAnalyzer(Analyzer):
    """The modes of clip-interrogator, by an encoder and, where no caption is given, a captioner.

    tables: None for clip-interrogator's lists. caption: used for every picture instead of a captioner's.
    interrogator: one that a host has made, or makes when it is needed, instead of what `model` and `tables`
    would. is_here: the host vouches for that. captioner: a name, or the host's own. turn: entered around all
    work of models, as a host wants it. together: answers about a single picture along with those of others.
    """

    modes: tuple[str, ...] = CLIP_MODES

    def __init__(
        self,
        model: str = "ViT-L-14/openai",
        captioner: str | Captioner = "blip-large",
        caption: str | None = None,
        tables: Mapping[str, Sequence[str]] | None = None,
        device: str = "auto",
        dtype: str = "auto",
        progress: Progress = silent,
        interrogator: Interrogator | Callable[[], Interrogator] | None = None,
        turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
        is_here: bool = False,
        together: Callable[[ClipAnalyzer, Picture, Sequence[str]], Answers] | None = None,
    ) -> None:
        self._together = together
        self._make = interrogator if callable(interrogator) else None
        self._given = None if callable(interrogator) else interrogator
        self._model = self._given.encoder.name if self._given else model
        self._own_captioner = None if isinstance(captioner, str) else captioner
        self._captioner_name = captioner if isinstance(captioner, str) else captioner.name
        self._turn = turn
        self._is_here = is_here or self._given is not None
        self._caption = caption
        self._tables = tables
        self._device = device
        self._dtype = dtype
        self._progress = progress
        self._subjects: dict[int, Subject] = {}  # by id of the picture

    def obstacles(self, mode: str) -> list[str]:
        if self._is_here:
            found = []
        else:
            found = [*_not_installed("CLIP", "torch", "open-clip", "transformers"), *_not_here(self._model)]
        if mode in FROM_A_CAPTION and not self.has_captions:
            found += [f"{obstacle}, or give --caption TEXT" for obstacle in _not_here(self._captioner_name)]
        return found

    @property
    def has_captions(self) -> bool:
        """Whether there are captions, once CLIP is here."""
        return bool(self._caption or self._own_captioner) or not _not_here(self._captioner_name)

    def recipe(self, mode: str) -> Recipe:
        from .weights import find

        known = find(self._model)
        settings: dict[str, object] = {}
        if mode != "caption":
            settings = {"pool": "exact", "vocabulary": self._vocabulary_id, **_DEFAULTS[mode]}
        if mode in FROM_A_CAPTION:
            settings |= {"caption": self._caption} if self._caption else {"captioner": self._captioner_name}
        return Recipe(known.name if known else self._model, settings)

    @property
    def given_caption(self) -> str:
        """That of every picture; "" where the captioner writes them."""
        return self._caption or ""

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Answers:
        if self._together is not None and len(pictures) == 1:
            yield from self._together(self, pictures[0], modes)
            return
        with self._turn():
            interrogator = self.interrogator
            if FROM_A_CAPTION & {*modes}:
                self._need_captions()
            started = time.perf_counter()
            subjects = self.look(pictures)
            looked_s = (time.perf_counter() - started) / len(pictures)
            for mode in modes:
                for place, found in enumerate(getattr(interrogator, mode)(subjects)):
                    yield place, answer_of(found, looked_s)
                looked_s = 0.0

    def look(self, pictures: Sequence[Picture], with_captions: bool = False) -> list[Subject]:
        """What CLIP sees, worked out once for as long as a picture lives."""
        with self._turn():
            return self._look(pictures, with_captions)

    def notes(self, pictures: Sequence[Picture], embedded: Sequence[str], with_captions: bool) -> list[Notes]:
        """What a language model is told of pictures."""
        from .refine import notes_of

        with self._turn():
            return notes_of(self.interrogator, self._look(pictures, with_captions), embedded)

    def scores(self, picture: Picture, texts: Sequence[str]) -> list[float]:
        """The cosine of a picture with each of several texts."""
        with self._turn():
            return self.interrogator.scores(self._look([picture])[0], texts)

    def seen(self, picture: Picture, interrogator: Interrogator) -> Subject | None:
        """What this interrogator has seen of a picture, if it has looked at it."""
        subject = self._subjects.get(id(picture))
        return subject if subject is not None and subject.interrogator is interrogator else None

    def keep(self, picture: Picture, subject: Subject) -> None:
        """What CLIP sees of a picture, for as long as that lives."""
        self._subjects[id(picture)] = subject
        weakref.finalize(picture, self._subjects.pop, id(picture), None)

    def _look(self, pictures: Sequence[Picture], with_captions: bool = False) -> list[Subject]:
        new = [picture for picture in pictures if self.seen(picture, self.interrogator) is None]
        captions = [self._caption] * len(new) if self._caption else None
        seen = self.interrogator.look([picture.image for picture in new], captions)
        for picture, subject in zip(new, seen, strict=True):
            self.keep(picture, subject)
        subjects = [self._subjects[id(picture)] for picture in pictures]
        if with_captions:
            self._need_captions()
            self.interrogator.caption(subjects)
        return subjects

    def _need_captions(self) -> None:
        if not self._caption and self.interrogator.captioner is None:
            self.interrogator.captioner = self._captioner

    @cached_property
    def _chosen_tables(self) -> Mapping[str, Sequence[str]]:
        from .clip.tables import default_tables

        return default_tables() if self._tables is None else self._tables

    @cached_property
    def _vocabulary_id(self) -> str:
        from .clip.tables import vocabulary_id

        if self._given:
            return self._given.vocabulary.id
        return vocabulary_id(self._chosen_tables)

    @cached_property
    def interrogator(self) -> Interrogator:
        if self._given:
            return self._given
        if self._make:
            return self._make()
        from .clip.interrogator import Interrogator
        from .clip.loading import load_encoder
        from .clip.vocabulary import Vocabulary

        self._progress(f"loading {self._model}", 0, 1)
        encoder = load_encoder(self._model, self._device, self._dtype)
        self._progress(f"loading {self._model}", 1, 1)
        vocabulary = Vocabulary(self._chosen_tables, encoder, cache_folder("embeddings"), self._progress)
        return Interrogator(encoder, vocabulary, progress=self._progress)

    @cached_property
    def _captioner(self) -> Captioner:
        if self._own_captioner:
            return self._own_captioner
        from .caption import load_captioner

        return load_captioner(self._captioner_name, self._device, self._dtype)


def answer_of(found: Interrogation, looked_s: float = 0.0) -> Answer:
    """looked_s: what looking at the picture took besides."""
    details: dict[str, object] = {"tables": found.tables} if found.tables else {}
    elapsed_s = found.elapsed_s + looked_s
    return Answer(found.mode, found.prompt, found.model, found.score, elapsed_s, found.settings, details)


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
