"""A CLIP that stays loaded, with all that was embedded by it so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import InputError
from ..folders import cache_folder
from ..progress import Progress, silent
from .classifier import Classifier
from .tables import given_or_default, vocabulary_id

if TYPE_CHECKING:
    import torch
    from PIL import Image

    from ..caption import Captioner
    from .encoder import JointEncoder
    from .interrogator import Interrogator
    from .vocabulary import Vocabulary

OWN_TABLE = "own"  # what a user's own labels are called beside clip-interrogator's tables
_MOST_CLASSIFIERS = 32
_TOGETHER, _TEXTS_TOGETHER = 8, 256  # between two reports of progress


class LoadedClip:
    """keeps: embeddings may outlive the session. progress: of whoever has it work, call for call."""

    def __init__(
        self, encoder: JointEncoder, progress: Progress = silent, keeps: bool = True, origin: str = ""
    ) -> None:
        self.encoder = encoder
        self.origin = origin or encoder.name
        self._progress = progress
        self._keeps = keeps
        self._vocabulary: Vocabulary | None = None
        self._classifiers: dict[tuple[object, ...], Classifier] = {}

    def interrogator(
        self,
        tables: Mapping[str, Sequence[str]] | None = None,
        own_labels: Sequence[str] = (),
        captioner: Captioner | None = None,
    ) -> Interrogator:
        """Over these tables, clip-interrogator's if None, and labels of the moment besides."""
        from .interrogator import Interrogator
        from .vocabulary import Vocabulary

        tables = given_or_default(tables)
        vocabulary = self._lasting(tables) if tables else None
        if own_labels:
            own = Vocabulary({OWN_TABLE: own_labels}, self.encoder, progress=self._progress)
            vocabulary = vocabulary.joined(own) if vocabulary else own
        if vocabulary is None:
            raise InputError("there are no labels: choose tables, or give own_labels")
        return Interrogator(self.encoder, vocabulary, captioner, progress=self._progress)

    def classifier(self, labels: Sequence[str] | Mapping[str, str], templates: Sequence[str]) -> Classifier:
        """labels: with the emoji of each, where it is a mapping."""
        key = (*(labels.items() if isinstance(labels, Mapping) else labels), *templates)
        if key not in self._classifiers:
            while len(self._classifiers) >= _MOST_CLASSIFIERS:
                del self._classifiers[next(iter(self._classifiers))]
            self._classifiers[key] = Classifier(self.encoder, labels, templates, self._progress)
        return self._classifiers[key]

    def features(self, pictures: Sequence[Image.Image]) -> torch.Tensor:
        """Image features [n, d]."""
        import torch

        found = []
        for done in range(0, len(pictures), _TOGETHER):
            self._progress("pictures", done, len(pictures))
            found.append(self.encoder.encode_images(pictures[done : done + _TOGETHER]))
        self._progress("pictures", len(pictures), len(pictures))
        return torch.cat(found)

    def text_features(self, texts: Sequence[str]) -> torch.Tensor:
        """Features [n, d]."""
        import torch

        found = []
        for done in range(0, len(texts), _TEXTS_TOGETHER):
            self._progress("texts", done, len(texts))
            found.append(self.encoder.encode_texts(texts[done : done + _TEXTS_TOGETHER]))
        return torch.cat(found)

    def _lasting(self, tables: Mapping[str, Sequence[str]]) -> Vocabulary:
        from .vocabulary import Vocabulary

        if self._vocabulary is None or self._vocabulary.id != vocabulary_id(tables):
            folder = cache_folder("embeddings") if self._keeps else None
            self._vocabulary = Vocabulary(tables, self.encoder, folder, self._progress)
        return self._vocabulary
