"""What a language model is asked to make of a prompt, of a picture or of both; and how it is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .analyzers import Answer

if TYPE_CHECKING:
    from .clip.analyzer import ClipAnalyzer
    from .images import Picture
    from .live_text import LiveText
    from .llm import Endpoint
    from .llm.analyzer import LlmAnalyzer
    from .prompts import Prompt


@dataclass(frozen=True)
class Request:
    """See Service.refine."""

    text: str = ""
    prompt_id: str = "refine"
    profile: str = "ollama"
    model: str = ""
    wishes: str = ""
    keep: Sequence[str] = ()
    candidates: int = 4
    deep: bool = False
    seed: int = 0

    def endpoint(self) -> Endpoint:
        from .llm import Endpoint

        return Endpoint.from_settings(self.profile, model=self.model or None)

    def analyzer(
        self, endpoint: Endpoint, prompts: Mapping[str, Prompt], clip: ClipAnalyzer | None, live: LiveText
    ) -> LlmAnalyzer:
        """For a picture: among several answers CLIP chooses, where there is one."""
        from .llm.analyzer import LlmAnalyzer

        return LlmAnalyzer(
            endpoint,
            [f"llm/{self.prompt_id}"],
            prompts,
            clip,
            # A caption costs seconds, and who gives a prompt has said what is there.
            has_captions=clip is not None and clip.has_captions and not self.text.strip(),
            wishes=self.wishes,
            keep=self.keep,
            count=self.candidates,
            deep=self.deep,
            progress=live.progress,
            seed=self.seed,
            listen=live.listen,
        )

    def about(self, picture: Picture) -> Picture:
        """The text stands where a file's own prompt would."""
        from .metadata import Embedded

        if not self.text.strip():
            return picture
        return replace(picture, embedded=Embedded("given", self.text, "", {}))

    def reworded(self, endpoint: Endpoint, prompt: Prompt, live: LiveText) -> Answer:
        """Without a picture nobody can compare candidates: the first that can be used."""
        from .llm.analyzer import evidence
        from .refine import Notes, refine

        found = refine(
            endpoint,
            prompt,
            Notes(embedded=self.text),
            wishes=self.wishes,
            keep=self.keep,
            count=1,
            deep=self.deep,
            seed=self.seed,
            progress=live.progress,
            listen=live.listen,
        )
        return Answer(f"llm/{prompt.id}", found.prompt, endpoint.model(), details=evidence(found))
