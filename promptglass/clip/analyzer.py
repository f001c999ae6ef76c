"""The modes of clip-interrogator as an Analyzer: on an encoder and a captioner of our own, or on a host's."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from ..analyzers import (
    CLIP_MODES,
    FROM_A_CAPTION,
    Analyzer,
    Answer,
    Answers,
    Recipe,
    not_here,
    not_installed,
)
from ..progress import Progress, silent

if TYPE_CHECKING:
    from ..caption import Captioner
    from ..images import Picture
    from ..refine import Notes
    from .interrogator import Interrogation, Interrogator, Subject

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
            found = [*not_installed("CLIP", "torch", "open-clip", "transformers"), *not_here(self._model)]
        if mode in FROM_A_CAPTION and not self.has_captions:
            found += [f"{obstacle}, or give --caption TEXT" for obstacle in not_here(self._captioner_name)]
        return found

    @property
    def has_captions(self) -> bool:
        """Whether there are captions, once CLIP is here."""
        return bool(self._caption or self._own_captioner) or not not_here(self._captioner_name)

    def recipe(self, mode: str) -> Recipe:
        from ..weights import find

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
        from ..refine import notes_of

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
    def _vocabulary_id(self) -> str:
        from .tables import given_or_default, vocabulary_id

        if self._given:
            return self._given.vocabulary.id
        return vocabulary_id(given_or_default(self._tables))

    @cached_property
    def interrogator(self) -> Interrogator:
        if self._given:
            return self._given
        if self._make:
            return self._make()
        from .loaded import LoadedClip
        from .loading import load_encoder

        self._progress(f"loading {self._model}", 0, 1)
        encoder = load_encoder(self._model, self._device, self._dtype)
        self._progress(f"loading {self._model}", 1, 1)
        return LoadedClip(encoder, self._progress).interrogator(self._tables)

    @cached_property
    def _captioner(self) -> Captioner:
        if self._own_captioner:
            return self._own_captioner
        from ..caption import load_captioner

        return load_captioner(self._captioner_name, self._device, self._dtype)


def answer_of(found: Interrogation, looked_s: float = 0.0) -> Answer:
    """looked_s: what looking at the picture took besides."""
    details: dict[str, object] = {"tables": found.tables} if found.tables else {}
    elapsed_s = found.elapsed_s + looked_s
    return Answer(found.mode, found.prompt, found.model, found.score, elapsed_s, found.settings, details)
