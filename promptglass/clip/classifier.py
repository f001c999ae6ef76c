"""Zero-shot classification: which labels of a closed set fit a picture, with CLIP's own confidence.

A label is embedded through several templates, and the mean counts: the prompt ensemble of Radford et al. 2021
(https://arxiv.org/abs/2103.00020, 3.1.4), as in OpenAI's notebook Prompt_Engineering_for_ImageNet and in
open_clip's zero_shot_classifier.py. Categories and label lists are read without torch.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..emoji import emoji_of, label_lines
from ..errors import InputError, cause_of, visible
from ..progress import Progress, silent

if TYPE_CHECKING:
    import torch

    from .encoder import JointEncoder

# For labels of which nothing is known: things, most of them, in photographs and in art.
TEMPLATES = ("{}", "a photo of {}", "a photo of a {}", "a picture of {}", "art of {}")
MAX_LABELS = 2000

# The scale that CLIP learns for its cosines is held at 100 at most (section 2.5 of the paper), and OpenAI's
# models all ended there: this is the softmax that they were trained with. A host's CLIP has lost the number.
LOGIT_SCALE = 100.0
_TEXTS_PER_STEP = 512  # between two progress reports: some seconds on a CPU


@dataclass(frozen=True)
class Category:
    """A closed set of labels, and the templates that suit them."""

    name: str
    labels: tuple[str, ...]
    templates: tuple[str, ...]


@dataclass(frozen=True)
class LabelScore:
    """confidence: the label's share among all labels of its set, 0..1. score: its cosine with the picture."""

    label: str
    confidence: float
    score: float
    emoji: str


@functools.cache
def categories() -> Mapping[str, Category]:
    """The built-in categories by name: style, medium, mood, composition, …"""
    import yaml

    text = (Path(__file__).parent.parent / "data" / "categories.yaml").read_text("utf-8")
    return {
        name: Category(name, tuple(entry["labels"]), tuple(entry["templates"]))
        for name, entry in yaml.safe_load(text).items()
    }


def parse_labels(text: str) -> dict[str, str]:
    """A user's own labels, one a line, and the emoji that each one states ("" where none).

    `label` or `label = EMOJI`; lines that begin with # and labels that stood before are left out.
    Raises InputError where no label is left, or more than MAX_LABELS.
    """
    labels = label_lines(text)
    if not labels:
        raise InputError("the list of labels is empty: write one label on each line")
    if len(labels) > MAX_LABELS:
        raise InputError(
            f"the list has {len(labels):,} labels, and a set can hold {MAX_LABELS:,}: leave some out"
        )
    return labels


def read_label_folder(folder: str | os.PathLike[str]) -> dict[str, str]:
    """The labels of all .txt files of a folder as one set, in order of the files' names.

    Raises InputError as `parse_labels` does, and for a file that cannot be read.
    """
    texts = []
    for path in sorted(Path(folder).glob("*.txt")):
        try:
            texts.append(path.read_text("utf-8-sig", errors="replace"))
        except OSError as error:
            raise InputError(f"cannot read the labels {visible(str(path))}: {cause_of(error)}") from error
    if not texts:
        raise InputError(f"there are no labels in {visible(str(folder))}: put .txt files there")
    return parse_labels("\n".join(texts))


class Classifier:
    """A closed set of labels, embedded once, when it is made.

    labels: each once; where they are a mapping, to the emoji of a label ("" has it looked up).
    templates: texts with {} in the label's place.
    Raises InputError where there are no labels.
    """

    def __init__(
        self,
        encoder: JointEncoder,
        labels: Sequence[str] | Mapping[str, str],
        templates: Sequence[str] = TEMPLATES,
        progress: Progress = silent,
    ) -> None:
        if not labels:
            raise InputError("there is nothing to choose from: give at least one label")
        self.labels = tuple(labels)
        stated = labels if isinstance(labels, Mapping) else {}
        self._emoji = [stated.get(label) or emoji_of(label) for label in self.labels]
        self._text_features = _ensemble(encoder, self.labels, templates, progress)  # [N, d]

    def classify(
        self, image_features: torch.Tensor, count: int = 10, min_confidence: float = 0.01
    ) -> list[list[LabelScore]]:
        """For each picture of image_features [n, d] its labels, best first; equal ones in order of the set.

        At most `count` of them, and none below `min_confidence`: that may leave none of a very large set.
        """
        text_features = self._text_features.to(image_features.device)
        return [self._chosen(text_features, picture, count, min_confidence) for picture in image_features]

    def _chosen(
        self, text_features: torch.Tensor, picture: torch.Tensor, count: int, min_confidence: float
    ) -> list[LabelScore]:
        from .ranking import cosines, top

        scores = cosines(text_features, picture)  # [N]
        best = top(scores, count)
        confidences = (LOGIT_SCALE * scores).softmax(0)[best].tolist()
        found = [
            LabelScore(self.labels[i], confidence, score, self._emoji[i])
            for i, confidence, score in zip(best.tolist(), confidences, scores[best].tolist(), strict=True)
        ]
        return [label for label in found if label.confidence >= min_confidence]


def _ensemble(
    encoder: JointEncoder, labels: Sequence[str], templates: Sequence[str], progress: Progress
) -> torch.Tensor:
    """Features [N, d] of the labels: the normalised mean over all templates."""
    import torch

    from .encoder import normalised

    # Template by template: texts that begin alike share the work in the text tower.
    texts = [template.replace("{}", label) for template in templates for label in labels]
    steps = []
    for start in range(0, len(texts), _TEXTS_PER_STEP):
        progress("embedding labels", start, len(texts))
        steps.append(encoder.encode_texts(texts[start : start + _TEXTS_PER_STEP]))
    progress("embedding labels", len(texts), len(texts))
    total, *others = torch.cat(steps).view(len(templates), len(labels), -1)  # T times [N, d]
    for features in others:
        # Not mean(0), which rounds by where a row stands: labels that CLIP reads alike must score alike.
        total = total + features
    return normalised(total)
