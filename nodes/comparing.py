"""Nodes that hold texts against a picture: labels that compete for it, prompts that come close to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..promptglass.analyzers import Answer
from ..promptglass.errors import InputError
from . import schema
from .cards import Card, as_json, bars, shown
from .clip_models import clip_for
from .lists import first, lines_of, pictures_of

if TYPE_CHECKING:
    from ..promptglass.clip.classifier import LabelScore

OWN_ONLY = "own labels only"

Labels = Sequence[str] | Mapping[str, str]
Labelled = Mapping[str, Sequence["LabelScore"]]


class Classify(schema.Node):
    """Zero-shot categories and own labels."""

    DESCRIPTION = (
        "Which labels fit this picture, with a confidence for each: built-in categories (style, mood, …) or "
        "labels of your own."
    )
    SEARCH_ALIASES = ("zero-shot", "classifier", "labels", "style", "mood", "emoji", "promptglass")
    RETURN_TYPES = ("STRING", "STRING", "STRING", schema.ANSWERS)
    RETURN_NAMES = ("label", "text", "scores", "answers")
    OUTPUT_IS_LIST = (True,) * 4
    OUTPUT_TOOLTIPS = (
        "The best label of each picture; of several categories the best of each, with commas between.",
        "The best labels with emoji and confidence, a line each.",
        "JSON: confidence and cosine of every label, by category.",
        "For Save sidecar.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        return {
            "required": {
                "image": schema.image(),
                "categories": schema.choice(
                    ["all", *_category_names(), OWN_ONLY], "all", "Which built-in sets of labels."
                ),
                "labels": schema.text(
                    "Labels of your own, a line each, that compete. `fox = (an emoji)` gives it one.",
                    lines=True,
                    placeholder="a line each: cat, dog, fox",
                ),
                "top": schema.number(3, 1, 50, "How many labels of each set to show."),
                "model": schema.own_model(),
            },
            "optional": schema.towers(),
        }

    def run(
        self,
        image: Sequence[Any],
        categories: Sequence[str],
        labels: Sequence[str],
        top: Sequence[int],
        model: Sequence[str],
        encoder: Sequence[Any] | None = None,
        clip: Sequence[Any] | None = None,
        clip_vision: Sequence[Any] | None = None,
    ) -> schema.Result:
        loaded = clip_for(encoder, clip, clip_vision, model[0])
        features = loaded.features(pictures_of(image))
        by_set = {}
        for name, set_of_labels, templates in _label_sets(categories[0], labels[0]):
            classifier = loaded.classifier(set_of_labels, templates)
            by_set[name] = classifier.classify(features, count=len(set_of_labels), min_confidence=0.0)
        pictures = [dict(zip(by_set, scores, strict=True)) for scores in zip(*by_set.values(), strict=True)]
        return {
            "ui": shown([_labels_card(found, top[0], loaded.encoder.name) for found in pictures]),
            "result": (
                [_winners(found) for found in pictures],
                [_labels_text(found, top[0]) for found in pictures],
                [as_json(_labels_json(found)) for found in pictures],
                [[_labels_answer(found, loaded.encoder.name)] for found in pictures],
            ),
        }


def _category_names() -> list[str]:
    from ..promptglass.clip.classifier import categories

    return [*categories()]


def _label_sets(category: str, own: str) -> Iterator[tuple[str, Labels, Sequence[str]]]:
    """Name, labels and templates of each set to choose from; own labels state their emoji."""
    from ..promptglass.clip.classifier import TEMPLATES, categories, parse_labels

    for one in categories().values():
        if category in ("all", one.name):
            yield one.name, one.labels, one.templates
    if own.strip() or category == OWN_ONLY:
        yield "labels", parse_labels(own), TEMPLATES


def _winners(found: Labelled) -> str:
    return ", ".join(scores[0].label for scores in found.values())


def _labels_card(found: Labelled, top: int, model: str) -> Card:
    drawn = []
    for name, scores in found.items():
        best = {one.label: one.confidence for one in scores[:top]}
        drawn += bars(best, name, {one.label: one.emoji for one in scores[:top]})
    return {"title": "labels", "text": _winners(found), "model": model, "bars": drawn}


def _labels_text(found: Labelled, top: int) -> str:
    lines = []
    for name, scores in found.items():
        best = [f"{one.emoji} {one.label} {one.confidence:.2f}".strip() for one in scores[:top]]
        lines.append(f"{name}: {', '.join(best)}")
    return "\n".join(lines)


def _labels_json(found: Labelled) -> dict[str, list[dict[str, object]]]:
    return {
        name: [
            {"label": one.label, "confidence": round(one.confidence, 6), "score": round(one.score, 6)}
            for one in scores
        ]
        for name, scores in found.items()
    }


def _labels_answer(found: Labelled, model: str) -> Answer:
    """As docs/sidecar.schema.json has it: categories with their labels, the ten best of each."""
    details = {name: entries[:10] for name, entries in _labels_json(found).items()}
    return Answer("categories", _winners(found), model, details=dict(details))


class Score(schema.Node):
    """One picture, many texts."""

    DESCRIPTION = "How close is each of several texts to a picture? Compares prompts by their cosine with it."
    SEARCH_ALIASES = ("clip score", "compare prompts", "similarity", "cosine", "promptglass")
    RETURN_TYPES = ("STRING", "FLOAT", "STRING")
    RETURN_NAMES = ("best", "score", "scores")
    OUTPUT_IS_LIST = (True,) * 3
    OUTPUT_TOOLTIPS = (
        "The closest text.",
        "Its cosine with the picture.",
        "JSON: every text, the closest first.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        return {
            "required": {
                "image": schema.image(),
                "texts": schema.text("A text on each line.", lines=True, placeholder="a prompt on each line"),
                "model": schema.own_model(),
            },
            "optional": {
                **schema.towers(),
                "more_texts": schema.linked_text("Texts of other nodes: each is one, whatever lines it has."),
            },
        }

    def run(
        self,
        image: Sequence[Any],
        texts: Sequence[str],
        model: Sequence[str],
        encoder: Sequence[Any] | None = None,
        clip: Sequence[Any] | None = None,
        clip_vision: Sequence[Any] | None = None,
        more_texts: Sequence[str] | None = None,
    ) -> schema.Result:
        from ..promptglass.clip.ranking import cosines, top

        wanted = [*lines_of([first(texts, "")]), *(" ".join(text.split()) for text in more_texts or ())]
        wanted = [*dict.fromkeys(filter(None, wanted))]
        if not wanted:
            raise InputError("there are no texts to compare: write one on each line, or connect some")
        loaded = clip_for(encoder, clip, clip_vision, model[0])
        pictures = loaded.features(pictures_of(image))
        text_features = loaded.text_features(wanted)
        ranked = []
        for picture in pictures:
            scores = cosines(text_features, picture)
            ranked.append(
                {wanted[place]: float(scores[place]) for place in top(scores, len(wanted)).tolist()}
            )
        return {
            "ui": shown([_scores_card(scores, loaded.encoder.name) for scores in ranked]),
            "result": (
                [next(iter(scores)) for scores in ranked],
                [next(iter(scores.values())) for scores in ranked],
                [as_json({text: round(score, 6) for text, score in scores.items()}) for scores in ranked],
            ),
        }


def _scores_card(scores: Mapping[str, float], model: str) -> Card:
    text, score = next(iter(scores.items()))
    return {"title": "closest", "text": text, "score": round(score, 4), "model": model, "bars": bars(scores)}
