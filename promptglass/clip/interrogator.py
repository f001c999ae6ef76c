"""Which words make this picture? The modes of clip-interrogator, on any JointEncoder.

Semantics follow clip_interrogator.py 0.6.0 (pharmapsychotic, MIT) for the same answer with far less work:
see docs/modes.md, also for where the reference contradicts itself and what happens here instead.
Same input, same output: nothing depends on hash seeds, and ties go to the label that comes first.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ..errors import CaptionerMissing, InputError, ModelError
from ..progress import Progress, silent
from .chain import Chain, grow
from .ranking import cosines, top, top_of_chunks
from .tables import NEGATIVE_TABLE
from .vocabulary import Vocabulary

if TYPE_CHECKING:
    from PIL import Image

    from ..caption import Captioner
    from .encoder import JointEncoder

POOLS = ("exact", "reference")
_NEED_NO_CAPTION = ("negative", "tables")


@dataclass(frozen=True)
class Interrogation:
    """One answer with its evidence. `score` is the cosine of picture and prompt.

    elapsed_s counts work that several answers share (features, captions) where it was first done; pictures
    that were worked on together have equal shares. tables: of the mode `tables` alone, each table's labels
    with their cosines, best first.
    """

    mode: str
    prompt: str
    score: float
    model: str
    settings: dict[str, object] = field(default_factory=dict)
    elapsed_s: float = 0.0
    tables: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Draft:
    """An answer before its prompt is scored."""

    prompt: str
    tables: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass
class Subject:
    """A picture that an Interrogator has looked at. Handed to several of its modes, they share the work."""

    image: Image.Image
    features: torch.Tensor  # [d]
    interrogator: Interrogator
    caption: str | None = None
    captioner: str | None = None  # who wrote the caption; None: it was given
    label_scores: torch.Tensor | None = None  # [N], filled by the first mode that ranks
    scores: dict[str, float] = field(default_factory=dict)  # of texts compared with it so far


Pictures = Sequence["Image.Image | Subject"]

# Pictures whose features, captions and label scores (half a megabyte each) are worked out at a time, and
# whose prompts grow in step.
_TOGETHER = 32


class Interrogator:
    """The modes over one encoder and one vocabulary.

    pool: how candidates are chosen, `exact` or `reference` (see ranking.py); pool_size: how many of them a
    chain may choose from at each step. Raises InputError for a pool that does not exist.
    Modes take pictures as PIL images or as Subjects, and a caption for each where the caller has one.
    They raise CaptionerMissing where a caption is needed and nobody can write it.
    """

    def __init__(
        self,
        encoder: JointEncoder,
        vocabulary: Vocabulary,
        captioner: Captioner | None = None,
        pool: str = "exact",
        pool_size: int = 2048,
        progress: Progress = silent,
    ) -> None:
        if pool not in POOLS:
            raise InputError(f"there is no pool {pool!r}: choose {' or '.join(POOLS)}")
        self.encoder = encoder
        self.vocabulary = vocabulary
        self.captioner = captioner
        self.pool = pool
        self.pool_size = pool_size
        self.progress = progress
        self._distinct: dict[tuple[int, int], torch.Tensor] = {}

    def look(self, images: Pictures, captions: Sequence[str] | None = None) -> list[Subject]:
        """Encode pictures once, for several modes."""
        if captions is not None and len(captions) != len(images):
            raise InputError(f"{len(images)} pictures but {len(captions)} captions: give one for each")
        if any(isinstance(image, Subject) and image.interrogator is not self for image in images):
            raise InputError("a Subject belongs to the Interrogator that looked at it: hand over the picture")
        new = [image for image in images if not isinstance(image, Subject)]
        features = iter(self.encoder.encode_images(new))
        subjects = [
            image if isinstance(image, Subject) else Subject(image, next(features), self) for image in images
        ]
        for subject, caption in zip(subjects, captions or (), strict=captions is not None):
            subject.caption, subject.captioner = caption or None, None
        return subjects

    def prepare(self, subjects: list[Subject], modes: Sequence[str]) -> None:
        """What these modes need of each picture, for all of them at once: captions, how labels score."""
        if any(mode not in _NEED_NO_CAPTION for mode in modes):
            self._write_captions(subjects)
        if any(mode != "caption" for mode in modes):
            self._score_labels(subjects)

    def caption(self, images: Pictures, captions: Sequence[str] | None = None) -> list[Interrogation]:
        """What the captioner sees, with its score."""
        return self._answers("caption", images, captions, {}, _each(_caption))

    def classic(
        self, images: Pictures, captions: Sequence[str] | None = None, max_flavors: int = 3
    ) -> list[Interrogation]:
        """The caption, then the one best medium, artist, trending and movement, then flavors."""
        settings = {"max_flavors": max_flavors}
        return self._answers(
            "classic", images, captions, settings, _each(lambda s: self._classic(s, max_flavors))
        )

    def fast(
        self, images: Pictures, captions: Sequence[str] | None = None, max_flavors: int = 32
    ) -> list[Interrogation]:
        """The caption, then the best labels of all tables, as many as fit."""
        settings = {"max_flavors": max_flavors}
        return self._answers("fast", images, captions, settings, _each(lambda s: self._fast(s, max_flavors)))

    def best(
        self,
        images: Pictures,
        captions: Sequence[str] | None = None,
        min_flavors: int = 8,
        max_flavors: int = 32,
    ) -> list[Interrogation]:
        """The caption grown label by label, each the one that brings the prompt closest to the picture.

        Answers with the closest of this chain, `fast`, `classic` and the caption.
        """
        settings = {"min_flavors": min_flavors, "max_flavors": max_flavors, "pool_size": self.pool_size}
        return self._answers(
            "best", images, captions, settings, lambda group: self._best(group, min_flavors, max_flavors)
        )

    def negative(self, images: Pictures, max_flavors: int = 32) -> list[Interrogation]:
        """A chain of the labels least like the picture. Its score is low: the lower, the better."""
        settings = {"max_flavors": max_flavors, "pool_size": self.pool_size}
        return self._answers(
            "negative", images, None, settings, lambda group: self._negative(group, max_flavors)
        )

    def tables(self, images: Pictures, count: int = 5) -> list[Interrogation]:
        """The best labels of every table but `negative`. The prompt is the best one of each."""
        settings = {"count": count}
        return self._answers("tables", images, None, settings, lambda group: self._tables(group, count))

    def scores(self, subject: Subject, texts: Sequence[str]) -> list[float]:
        """The cosine of a picture with each of several texts."""
        new = [text for text in texts if text not in subject.scores]
        if new:
            scores = cosines(self.encoder.encode_texts(new), subject.features)
            subject.scores.update(zip(new, scores.tolist(), strict=True))
        return [subject.scores[text] for text in texts]

    def _answers(
        self,
        mode: str,
        images: Pictures,
        captions: Sequence[str] | None,
        settings: Mapping[str, object],
        drafts_of: Callable[[list[Subject]], list[_Draft]],
    ) -> list[Interrogation]:
        if captions is not None and len(captions) != len(images):
            raise InputError(f"{len(images)} pictures but {len(captions)} captions: give one for each")
        found: list[Interrogation] = []
        for start in range(0, len(images), _TOGETHER):
            these = slice(start, start + _TOGETHER)
            their_captions = None if captions is None else captions[these]
            found += self._answers_together(mode, images[these], their_captions, settings, drafts_of)
        return found

    def _answers_together(
        self,
        mode: str,
        images: Pictures,
        captions: Sequence[str] | None,
        settings: Mapping[str, object],
        drafts_of: Callable[[list[Subject]], list[_Draft]],
    ) -> list[Interrogation]:
        started = time.perf_counter()
        subjects = self.look(images, captions)
        if mode not in _NEED_NO_CAPTION:
            self._write_captions(subjects)
        if mode != "caption":
            self._score_labels(subjects)
            settings = {"pool": self.pool, "vocabulary": self.vocabulary.id, **settings}
        drafts = drafts_of(subjects)
        scores = self._score_each(subjects, [draft.prompt for draft in drafts])
        elapsed_s = (time.perf_counter() - started) / max(1, len(subjects))

        found: list[Interrogation] = []
        for subject, draft, score in zip(subjects, drafts, scores, strict=True):
            own = {} if mode in _NEED_NO_CAPTION else _origin(subject)
            evidence = (self.encoder.name, {**settings, **own}, elapsed_s, draft.tables)
            found.append(Interrogation(mode, draft.prompt, score, *evidence))
        return found

    def _write_captions(self, subjects: list[Subject]) -> None:
        missing = [subject for subject in subjects if not subject.caption]
        if not missing:
            return
        if self.captioner is None:
            raise CaptionerMissing(
                "this mode starts from a caption and there is no captioner: give one (--caption TEXT), "
                "or get a model that writes them (promptglass models get blip-large)"
            )
        written = self.captioner.caption([subject.image for subject in missing])
        for subject, caption in zip(missing, written, strict=True):
            if not caption:
                raise ModelError(f"{self.captioner.name} has no words for a picture: give it a caption")
            subject.caption, subject.captioner = caption, self.captioner.name

    def _score_labels(self, subjects: list[Subject]) -> None:
        missing = [subject for subject in subjects if subject.label_scores is None]
        if missing:
            scores = self.vocabulary.scores(torch.stack([subject.features for subject in missing]))
            # On the CPU, where picking the best takes a fraction of a millisecond without waiting for a GPU.
            for subject, label_scores in zip(missing, scores.cpu(), strict=True):
                subject.label_scores = label_scores

    def _best(self, subjects: list[Subject], min_flavors: int, max_flavors: int) -> list[_Draft]:
        captions = [_caption(subject) for subject in subjects]
        chains: list[Chain] = []
        for subject, caption, start in zip(
            subjects, captions, self._score_each(subjects, captions), strict=True
        ):
            pool = self._ranked(subject, self.vocabulary.merged, self.pool_size)
            chains.append(Chain(subject.features, pool, caption, start))
        self._grow(subjects, chains, min_flavors, max_flavors)
        return [
            _Draft(self._closest(subject, chain.best, max_flavors))
            for subject, chain in zip(subjects, chains, strict=True)
        ]

    def _closest(self, subject: Subject, chained: str, max_flavors: int) -> str:
        """The closest of what `best` compares; of equal ones the first."""
        candidates = [
            _caption(subject),
            self._classic(subject, max_flavors),
            self._fast(subject, max_flavors),
            chained,
        ]
        scores = self.scores(subject, candidates)
        return candidates[scores.index(max(scores))]

    def _fast(self, subject: Subject, max_flavors: int) -> str:
        flavors = self._ranked(subject, self.vocabulary.merged, max_flavors)
        return self._fitting(", ".join([_caption(subject), *flavors]))

    def _classic(self, subject: Subject, max_flavors: int) -> str:
        caption = _caption(subject)
        medium, artist = ("".join(self._ranked_table(subject, table, 1)) for table in ("mediums", "artists"))
        # As the reference: the medium is left out where the caption already opens with it, and the artist
        # follows without a comma ("a painting of a cat, fine art by …").
        opening = caption if caption.startswith(medium) else f"{caption}, {medium}"
        parts = [f"{opening} {artist}" if artist else opening]
        for table, count in (("trendings", 1), ("movements", 1), ("flavors", max_flavors)):
            parts += self._ranked_table(subject, table, count)
        return self._fitting(", ".join(parts))

    def _negative(self, subjects: list[Subject], max_flavors: int) -> list[_Draft]:
        chains: list[Chain] = []
        for subject in subjects:
            pool = self._negative_pool(subject)
            scores = self.scores(subject, pool)
            first = scores.index(min(scores))
            rest = pool[:first] + pool[first + 1 :]
            chains.append(Chain(subject.features, rest, pool[first], scores[first], least=True))
        self._grow(subjects, chains, 8, max_flavors)
        return [_Draft(chain.best) for chain in chains]

    def _negative_pool(self, subject: Subject) -> list[str]:
        spans = self.vocabulary.spans
        pool = self._ranked_table(subject, "flavors", self.pool_size, least=True)
        pool += self.vocabulary.labels[spans[NEGATIVE_TABLE]] if NEGATIVE_TABLE in spans else []
        pool = list(dict.fromkeys(label for label in pool if label))
        if not pool:
            raise InputError("the negative mode needs the table flavors or negative: both are off")
        return pool

    def _grow(self, subjects: list[Subject], chains: list[Chain], min_flavors: int, max_flavors: int) -> None:
        grow(chains, self.encoder, min_flavors, max_flavors, self.progress)
        for subject, chain in zip(subjects, chains, strict=True):
            subject.scores[chain.best] = chain.best_score

    def _tables(self, subjects: list[Subject], count: int) -> list[_Draft]:
        names = [name for name in self.vocabulary.spans if name != NEGATIVE_TABLE]
        drafts: list[_Draft] = []
        for subject in subjects:
            tables = {name: self._best_of_table(subject, name, count) for name in names}
            firsts = dict.fromkeys(next(iter(labels)) for labels in tables.values() if labels)
            if not firsts:
                raise InputError("no labels to rank: give a table besides negative, and a count of 1 or more")
            drafts.append(_Draft(", ".join(firsts), tables))
        return drafts

    def _best_of_table(self, subject: Subject, table: str, count: int) -> dict[str, float]:
        """The best labels of a table with their cosines, best first."""
        assert subject.label_scores is not None
        labels, scores = self.vocabulary.labels, subject.label_scores
        places = self._ranked_places(subject, self.vocabulary.spans[table], count).tolist()
        # The reference's lists hold blank lines, and its pool ranks them along.
        return {labels[i]: scores[i].item() for i in places if labels[i]}

    def _ranked_table(self, subject: Subject, table: str, count: int, least: bool = False) -> list[str]:
        span = self.vocabulary.spans.get(table)
        return [] if span is None else self._ranked(subject, span, count, least)

    def _ranked(self, subject: Subject, span: slice, count: int, least: bool = False) -> list[str]:
        """The labels of a span nearest to the picture (or least near), best first."""
        labels = self.vocabulary.labels
        return [labels[i] for i in self._ranked_places(subject, span, count, least).tolist()]

    def _ranked_places(self, subject: Subject, span: slice, count: int, least: bool = False) -> torch.Tensor:
        """Where those labels stand in the vocabulary."""
        assert subject.label_scores is not None
        scores = subject.label_scores[span]
        if least:
            scores = -scores
        if self.pool == "reference":
            return span.start + top_of_chunks(scores, count)
        distinct = self._distinct_labels(span)
        return span.start + distinct[top(scores.index_select(0, distinct), count)]

    def _distinct_labels(self, span: slice) -> torch.Tensor:
        """Places of a span's labels without blanks and repetitions ("Flickr" is "flickr" to CLIP)."""
        key = (span.start, span.stop)
        if key not in self._distinct:
            first: dict[str, int] = {}
            for place, label in enumerate(self.vocabulary.labels[span]):
                if label:
                    first.setdefault(label.casefold(), place)
            self._distinct[key] = torch.tensor([*first.values()], dtype=torch.long)
        return self._distinct[key]

    def _fitting(self, prompt: str) -> str:
        """The prompt up to the last part that fits the model's context.

        As the reference's _truncate_to_fit: the comma before a part is not counted.
        """
        parts = prompt.split(", ")
        fitting = parts[0]
        for part in parts[1:]:
            if self.encoder.fills_context(fitting + part):
                break
            fitting += f", {part}"
        return fitting

    def _score_each(self, subjects: list[Subject], texts: list[str]) -> list[float]:
        """The cosine of each picture with its own text; all texts are encoded in one pass."""
        pairs = [*zip(subjects, texts, strict=True)]
        new = [*dict.fromkeys(text for subject, text in pairs if text not in subject.scores)]
        features = dict(zip(new, self.encoder.encode_texts(new), strict=True)) if new else {}
        for subject, text in pairs:
            if text not in subject.scores:
                subject.scores[text] = cosines(features[text][None], subject.features).item()
        return [subject.scores[text] for subject, text in pairs]


def _each(prompt_of: Callable[[Subject], str]) -> Callable[[list[Subject]], list[_Draft]]:
    """For modes that answer about one picture after another."""
    return lambda subjects: [_Draft(prompt_of(subject)) for subject in subjects]


def _caption(subject: Subject) -> str:
    assert subject.caption is not None
    return subject.caption


def _origin(subject: Subject) -> dict[str, object]:
    """Where the caption comes from: who wrote it, or the words that were given."""
    return {"captioner": subject.captioner} if subject.captioner else {"caption": subject.caption}
