"""A host whose CLIP goes by words: see word_encoder.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image

from promptglass.choice import Choice
from promptglass.clip.analyzer import ClipAnalyzer
from promptglass.host import Standalone
from promptglass.progress import Progress

KIND = ("red", "green", "blue", "golden", "silver", "tiny", "huge")
TABLES = {
    "artists": [f"by {kind} Rembrandt" for kind in KIND],
    "flavors": [f"{kind} light" for kind in KIND],
    "mediums": [f"a {kind} photo" for kind in KIND],
    "movements": [f"{kind} cubism" for kind in KIND],
    "trendings": [f"{kind} Artstation" for kind in KIND],
    "negative": ["blurry", "text", "watermark"],
}


class WordCaptioner:
    name = "words"

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        return ["a caption"] * len(images)


class WordHost(Standalone):
    """chosen: the models that it was asked for."""

    captioner: Any = WordCaptioner()

    def __post_init__(self) -> None:
        super().__post_init__()
        from promptglass.clip.loaded import LoadedClip

        from .word_encoder import WordEncoder

        self.chosen: list[str | None] = []
        self.encoder = WordEncoder()
        self._words = LoadedClip(self.encoder, self.turns().progress, keeps=False)

    def clip(self, choice: Choice, progress: Progress) -> ClipAnalyzer:
        self.chosen.append(choice.model)
        return ClipAnalyzer(
            "words",
            self.captioner,
            choice.caption,
            TABLES,
            interrogator=lambda: self._words.interrogator(TABLES),
            turn=lambda: self.turns().turn(progress),
            is_here=True,
        )

    def loaded(self, choice: Choice) -> Any:
        return self._words
