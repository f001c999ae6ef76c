"""Which words make a picture: by the CLIP of the graph, or one of our own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..promptglass.analyzers import FROM_A_CAPTION, Answer
from ..promptglass.clip.analyzer import answer_of
from ..promptglass.errors import InputError
from . import host, schema
from .cards import Card, as_json, bars, shown
from .clip_models import AUTO, BUILT_IN, clip_for, from_host
from .lists import for_each, lines_of, pictures_of
from .looking import captioner_of, captioners

if TYPE_CHECKING:
    from ..promptglass.clip.interrogator import Interrogation, Interrogator, Subject

MODES = ["fast", "best", "classic", "caption", "tables", "negative"]
NO_TABLES = "none"
_NO_LABELS = {"none": ["-"]}  # never embedded: a vocabulary that is not asked
_HAS_NEGATIVES = frozenset(("flavors", "negative"))  # whoever chose other tables chose no such words
_TOGETHER = 16  # pictures that are worked on at a time: between two reports of progress


class Encoder(schema.Node):
    """The pair of towers, checked once."""

    DESCRIPTION = (
        "Makes an encoder of the CLIP and the CLIP_VISION that this graph has loaded, after checking that "
        "they belong together and that there is a trained text projection."
    )
    SEARCH_ALIASES = ("clip interrogator", "promptglass encoder", "clip vision", "text projection")
    RETURN_TYPES = (schema.ENCODER, "STRING")
    RETURN_NAMES = ("encoder", "text")
    OUTPUT_TOOLTIPS = (
        "For Interrogate, Classify, Score and Refine.",
        "Which tower and projection were taken.",
    )
    INPUT_IS_LIST = False
    OUTPUT_NODE = False

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        towers = schema.towers()
        projection = schema.choice(
            [AUTO, BUILT_IN, *host.model_files()],
            AUTO,
            "Where the text projection is from. Most text encoders have none: auto looks in the model "
            "folders (clip-vit-large-patch14.safetensors has it), then takes the CLIP's own if it is sane.",
        )
        return {
            "required": {
                "clip": towers["clip"],
                "clip_vision": towers["clip_vision"],
                "projection": projection,
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, projection: str) -> bool:
        return True  # a file that is gone has an error of its own, which says what to do

    def run(self, clip: Any, clip_vision: Any, projection: str) -> tuple[Any, str]:
        loaded = from_host(clip, clip_vision, projection)
        return loaded, loaded.origin


class Interrogate(schema.Node):
    """The modes of clip-interrogator."""

    DESCRIPTION = "Which words make this picture? Answers with a prompt, and how close it is to the picture."
    SEARCH_ALIASES = ("clip interrogator", "image to prompt", "img2prompt", "reverse prompt", "promptglass")
    RETURN_TYPES = ("STRING", "STRING", "STRING", "STRING", schema.ANSWERS)
    RETURN_NAMES = ("prompt", "negative", "scores", "winners", "answers")
    OUTPUT_IS_LIST = (True,) * 5
    OUTPUT_TOOLTIPS = (
        "One prompt for each picture.",
        "The words least like each picture, for a negative prompt.",
        "JSON: prompt, cosine, model and settings.",
        "JSON: the nearest labels of every table, with their cosines.",
        "For Save sidecar.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        return {
            "required": {
                "image": schema.image(),
                "mode": schema.choice(
                    MODES,
                    "fast",
                    "fast: a caption and the nearest labels. best: a caption grown label by label, the "
                    "closest and the slowest. classic: caption, medium, artist, movement, flavors. tables: "
                    "the nearest label of each table, without a caption.",
                ),
                "model": schema.own_model(),
                "captioner": schema.choice(
                    captioners(), "blip-large", "Who writes captions where none is connected."
                ),
                "max_flavors": schema.number(
                    0, 0, 128, "The most labels in a prompt. 0: 32, and 3 for classic, as clip-interrogator."
                ),
                "tables": schema.text(
                    "Which word lists. Empty: all. `flavors,mediums`: only those. `artists=off`: all but "
                    "artists, and without their names in the others. `none`: own_labels alone.",
                    placeholder="all",
                ),
                "with_negative": schema.switch(True, "Find the words least like the picture, too."),
            },
            "optional": {
                **schema.towers(),
                "caption": schema.text("Start from this caption: one, or one for each picture."),
                "own_labels": schema.linked_text("Labels of your own, a line each, ranked with the others."),
            },
        }

    def run(
        self,
        image: Sequence[Any],
        mode: Sequence[str],
        model: Sequence[str],
        captioner: Sequence[str],
        max_flavors: Sequence[int],
        tables: Sequence[str],
        with_negative: Sequence[bool],
        encoder: Sequence[Any] | None = None,
        clip: Sequence[Any] | None = None,
        clip_vision: Sequence[Any] | None = None,
        caption: Sequence[str] | None = None,
        own_labels: Sequence[str] | None = None,
    ) -> schema.Result:
        pictures = pictures_of(image)
        captions = for_each(caption, len(pictures), "captions", "")
        loaded = clip_for(encoder, clip, clip_vision, model[0])
        # A caption alone needs no labels, nor the minutes that embedding them takes.
        chosen = _NO_LABELS if mode[0] == "caption" else _chosen_tables(tables[0])
        interrogator = loaded.interrogator(chosen, lines_of(own_labels))
        found: list[_Found] = []
        for start in range(0, len(pictures), _TOGETHER):
            host.progress("pictures", start, len(pictures))
            these = slice(start, start + _TOGETHER)
            subjects = interrogator.look(pictures[these], captions[these])
            if mode[0] in FROM_A_CAPTION:
                _write_captions(interrogator, subjects, captioner[0])
            found += _interrogated(interrogator, subjects, mode[0], max_flavors[0], with_negative[0])
        host.progress("pictures", len(pictures), len(pictures))
        return {
            "ui": shown([one.card for one in found]),
            "result": (
                [one.answer.prompt for one in found],
                [one.negative.prompt if one.negative else "" for one in found],
                [as_json(one.evidence) for one in found],
                [as_json(one.winners) for one in found],
                [one.answers for one in found],
            ),
        }


class _Found:
    """What there is to say of one picture."""

    def __init__(
        self,
        answer: Interrogation,
        negative: Interrogation | None,
        tables: Interrogation | None,
        subject: Subject,
    ) -> None:
        self.answer, self.negative, self.tables, self.subject = answer, negative, tables, subject

    @property
    def winners(self) -> Mapping[str, Mapping[str, float]]:
        return self.tables.tables if self.tables else {}

    @property
    def answers(self) -> list[Answer]:
        """For a sidecar: what was asked for, once each."""
        by_mode = {one.mode: one for one in (self.tables, self.negative, self.answer) if one}
        return [answer_of(one) for one in by_mode.values()]

    @property
    def evidence(self) -> dict[str, object]:
        answer, negative = self.answer, self.negative
        return {
            "mode": answer.mode,
            "prompt": answer.prompt,
            "score": round(answer.score, 6),
            "model": answer.model,
            "settings": answer.settings,
            "elapsed_s": round(answer.elapsed_s, 3),
            "caption": self.subject.caption,
        } | ({"negative": negative.prompt, "negative_score": round(negative.score, 6)} if negative else {})

    @property
    def card(self) -> Card:
        answer = self.answer
        winners = {f"{table}: {label}": score for table, labels in self.winners.items()
                   for label, score in [*labels.items()][:1]}  # fmt: skip
        is_positive = self.negative and answer.mode != "negative"
        return {
            "title": answer.mode,
            "text": answer.prompt,
            "score": round(answer.score, 4),
            "model": answer.model,
            "bars": bars(winners),
        } | ({"negative": self.negative.prompt} if self.negative and is_positive else {})


def _interrogated(
    interrogator: Interrogator, subjects: list[Subject], mode: str, max_flavors: int, with_negative: bool
) -> list[_Found]:
    most = {"max_flavors": max_flavors} if max_flavors and mode not in ("caption", "tables") else {}
    if most and mode == "best":
        most["min_flavors"] = min(8, max_flavors)
    answers = getattr(interrogator, mode)(subjects, **most)
    nothing: Sequence[Interrogation | None] = [None] * len(subjects)
    tables, negatives = nothing, nothing
    names = {*interrogator.vocabulary.spans}
    if mode == "tables":
        tables = answers
    elif mode != "caption" and names - {"negative"}:
        tables = interrogator.tables(subjects)
    if mode == "negative":
        negatives = answers
    elif mode != "caption" and with_negative and names & _HAS_NEGATIVES:
        negatives = interrogator.negative(subjects)
    return [_Found(*one) for one in zip(answers, negatives, tables, subjects, strict=True)]


def _write_captions(interrogator: Interrogator, subjects: list[Subject], name: str) -> None:
    if any(not subject.caption for subject in subjects):
        interrogator.captioner = captioner_of(name)


def _chosen_tables(options: str) -> Mapping[str, Sequence[str]]:
    """Of clip-interrogator's lists. A workflow names no files: it may be somebody else's."""
    from ..promptglass.clip.tables import choose_tables

    if options.strip().lower() == NO_TABLES:
        return {}
    parts = [part.strip() for part in options.split(",")]
    if not all(re.fullmatch(r"[\w-]*(=off)?", part) for part in parts):
        raise InputError(
            f"tables: {options!r} is no choice of tables: connect lists of your own to own_labels"
        )
    return choose_tables([options])
