"""Nodes that ask a language model. A workflow names a profile: it holds no address and no key."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..promptglass.errors import EndpointRefused, EndpointUnreachable, InputError, ModelSeesNot
from ..promptglass.live_text import LiveText
from . import host, schema
from .cards import Card, as_json, bars, shown
from .lists import first, for_each, pictures_of

if TYPE_CHECKING:
    from ..promptglass.analyzers import Answer
    from ..promptglass.clip.analyzer import ClipAnalyzer
    from ..promptglass.llm import Endpoint
    from ..promptglass.prompts import Prompt


log = logging.getLogger("promptglass")

_PROFILE = "ollama"
_PATIENCE_S = 1.0  # for a server to free its memory
SEEDS = 2**31 - 64  # servers take no more than 2**31, and every candidate has one of its own


class Refine(schema.Node):
    """A language model proposes, CLIP judges."""

    DESCRIPTION = (
        "Asks a language model for better prompts. With a picture and an encoder CLIP chooses: the closest "
        "is taken, if it is closer than what went in."
    )
    SEARCH_ALIASES = ("ollama", "openai", "anthropic", "llm", "enhance prompt", "rewrite", "promptglass")
    RETURN_TYPES = ("STRING", "STRING", schema.ANSWERS)
    RETURN_NAMES = ("prompt", "evidence", "answers")
    OUTPUT_IS_LIST = (True,) * 3
    OUTPUT_TOOLTIPS = (
        "The prompt to use.",
        "JSON: why, and every candidate with its score.",
        "For Save sidecar; empty without a picture.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        return {
            "required": {
                "text": schema.text(
                    "The prompt to refine. It may be empty where picture and encoder are connected.",
                    lines=True,
                    placeholder="a prompt, or a rough idea of one",
                ),
                **_who(judged=True),
                "wishes": schema.text("What the answer should heed.", placeholder="make it rain"),
                "keep": schema.text("Words that must be in it, with commas between: ohwx woman, <lora:x:1>"),
                "candidates": schema.number(4, 1, 16, "How many prompts CLIP chooses from."),
                "deep": schema.switch(False, "Bolder and longer candidates."),
                "seed": schema.seed("Another number asks again; the same one gives what it gave before."),
            },
            "optional": {
                "image": ("IMAGE", {"tooltip": "The picture that the prompt is for."}),
                "encoder": (schema.ENCODER, {"tooltip": "Who judges: from CLIP Encoder (from host)."}),
            },
            "hidden": schema.hidden(),
        }

    @classmethod
    def VALIDATE_INPUTS(cls, profile: Any, prompt_id: Any) -> bool:
        return True  # one that is gone has an error of its own, which says where profiles and prompts are

    @classmethod
    def IS_CHANGED(cls, profile: Any, model: Any, prompt_id: Any, **_: Any) -> str:
        return _state(profile, model, prompt_id)

    def run(
        self,
        text: Sequence[str],
        profile: Sequence[str],
        model: Sequence[str],
        prompt_id: Sequence[str],
        wishes: Sequence[str],
        keep: Sequence[str],
        candidates: Sequence[int],
        deep: Sequence[bool],
        seed: Sequence[int],
        image: Sequence[Any] | None = None,
        encoder: Sequence[Any] | None = None,
        unique_id: Sequence[str] | None = None,
    ) -> schema.Result:
        from ..promptglass.training import parse_list

        how: dict[str, Any] = {
            "wishes": wishes[0],
            "keep": parse_list(keep[0]),
            "count": candidates[0],
            "deep": deep[0],
            "seed": seed[0] % SEEDS,
        }
        with _Task(profile[0], model[0], prompt_id[0], first(unique_id, "")) as task:
            if image:
                pictures = pictures_of(image)
                texts = for_each(text, len(pictures), "texts", "")
                judge = _judge(encoder[0]) if encoder else None
                answers = task.about(pictures, texts, judge, **how)
                found = [
                    (answer.text, {**answer.details, "score": answer.score}, [answer]) for answer in answers
                ]
            else:
                found = [(*task.without_picture(one, **how), []) for one in text]
        return {
            "ui": shown([_candidates_card(prompt, evidence, task.name) for prompt, evidence, _ in found]),
            "result": (
                [prompt for prompt, _, _ in found],
                [as_json(evidence) for _, evidence, _ in found],
                [answers for _, _, answers in found],
            ),
        }


class Describe(schema.Node):
    """A language model that sees."""

    DESCRIPTION = "A language model that sees looks at the picture: description, tags, text in it, critique."
    SEARCH_ALIASES = ("ollama", "vision", "vlm", "llava", "qwen", "describe image", "ocr", "promptglass")
    RETURN_TYPES = ("STRING", "STRING", schema.ANSWERS)
    RETURN_NAMES = ("text", "details", "answers")
    OUTPUT_IS_LIST = (True,) * 3
    OUTPUT_TOOLTIPS = (
        "The answer for each picture.",
        "JSON, where the prompt asks for it.",
        "For Save sidecar.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        return {
            "required": {
                "image": schema.image(),
                **_who(judged=False),
                "wishes": schema.text("What the answer should heed.", placeholder="mind the background"),
                "seed": schema.seed("Another number asks again; the same one gives what it gave before."),
            },
            "optional": {"notes": schema.linked_text("What is known already, such as a caption.")},
            "hidden": schema.hidden(),
        }

    @classmethod
    def VALIDATE_INPUTS(cls, profile: Any, prompt_id: Any) -> bool:
        return True  # one that is gone has an error of its own, which says where profiles and prompts are

    @classmethod
    def IS_CHANGED(cls, profile: Any, model: Any, prompt_id: Any, **_: Any) -> str:
        return _state(profile, model, prompt_id)

    def run(
        self,
        image: Sequence[Any],
        profile: Sequence[str],
        model: Sequence[str],
        prompt_id: Sequence[str],
        wishes: Sequence[str],
        seed: Sequence[int],
        notes: Sequence[str] | None = None,
        unique_id: Sequence[str] | None = None,
    ) -> schema.Result:
        pictures = pictures_of(image)
        known = for_each(notes, len(pictures), "notes", "")
        with _Task(profile[0], model[0], prompt_id[0], first(unique_id, "")) as task:
            answers = task.with_notes(pictures, known, wishes[0], seed[0] % SEEDS)
        cards = [{"title": prompt_id[0], "text": one.text, "model": one.model} for one in answers]
        return {
            "ui": shown(cards),
            "result": (
                [one.text for one in answers],
                [as_json(one.details) for one in answers],
                [[one] for one in answers],
            ),
        }


def _who(judged: bool) -> dict[str, Any]:
    from ..promptglass.prompts import built_in_prompts, load_prompts

    try:
        prompts = load_prompts()
    except InputError as error:  # or the node would be gone; when it runs, the error is the user's
        log.warning("%s", error)
        prompts = built_in_prompts()
    fitting = [id_ for id_, prompt in prompts.items() if prompt.judged == judged]
    return {
        "profile": schema.choice(
            profile_names(), _PROFILE, "Who is asked: a profile of promptglass endpoints. Keys stay with it."
        ),
        "model": schema.text("Another model than the profile's own.", placeholder="the profile's"),
        "prompt_id": schema.choice(
            fitting,
            "refine" if judged else "describe",
            "What it is asked: see promptglass prompts, or your own prompts.yaml.",
        ),
    }


def profile_names() -> list[str]:
    from ..promptglass.llm.profiles import profiles

    try:
        return [*profiles()]
    except InputError as error:
        log.warning("%s", error)
        return [_PROFILE]


def _state(profile: Any, model: Any, prompt_id: Any) -> str:
    """What the widgets do not show: the profile's address and model, the prompt's text. Never a key."""
    from ..promptglass.llm.profiles import profile as profile_of
    from ..promptglass.prompts import load_prompts

    if None in (first(profile, None), first(prompt_id, None)):
        return ""  # linked: what comes from another node is in its own fingerprint
    one = profile_of(first(profile, ""))
    prompt = load_prompts()[first(prompt_id, "")]
    known = (one.protocol, one.base_url, first(model, "") or one.model, prompt.fingerprint)
    return hashlib.sha256(repr(known).encode()).hexdigest()


class _Task:
    """One prompt put to one endpoint, shown on a node as it is answered."""

    def __init__(self, profile: str, model: str, prompt_id: str, node_id: str) -> None:
        from ..promptglass.candidate import count_clip_tokens_by
        from ..promptglass.llm import Endpoint
        from ..promptglass.prompts import load_prompts

        prompts = load_prompts()
        if prompt_id not in prompts:
            raise InputError(f"there is no prompt {prompt_id} any more: choose from {', '.join(prompts)}")
        self.prompt: Prompt = prompts[prompt_id]
        self.endpoint: Endpoint = Endpoint.from_settings(profile, **({"model": model} if model else {}))
        self.name = self.endpoint.profile.model or profile
        self._prompts = prompts
        self._mode = f"llm/{prompt_id}"
        self._stream = LiveText(lambda text: host.show(node_id, text), host.progress)
        self._was_asked = False
        count_clip_tokens_by(host.count_clip_tokens)

    def __enter__(self) -> _Task:
        return self

    def __exit__(self, *_: object) -> None:
        """The server may free its memory. Beside us: one that hangs must not hold the node."""
        if self._was_asked:
            self.endpoint.release_within(_PATIENCE_S)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
            self._was_asked = True
        except (EndpointRefused, EndpointUnreachable, ModelSeesNot):
            raise  # it has loaded nothing
        except BaseException:
            self._was_asked = True
            raise
        finally:
            self._stream.flush()

    def about(
        self, pictures: Sequence[Any], texts: Sequence[str], judge: ClipAnalyzer | None, **how: Any
    ) -> list[Answer]:
        """An answer for each picture; texts are what is known of it. Raises what stands in the way of one."""
        from ..promptglass.analyzers import Failure
        from ..promptglass.llm.analyzer import LlmAnalyzer

        how |= {"progress": self._stream.progress, "listen": self._stream.listen}
        analyzer = LlmAnalyzer(self.endpoint, [self._mode], self._prompts, judge, **how)
        answers: dict[int, Answer] = {}
        with self._asking():
            for place, answer in analyzer.analyze(_as_pictures(pictures, texts), [self._mode]):
                if isinstance(answer, Failure):
                    raise answer.error
                answers[place] = answer
        return [answers[place] for place in range(len(pictures))]

    def with_notes(
        self, pictures: Sequence[Any], notes: Sequence[str], wishes: str, seed: int
    ) -> list[Answer]:
        """An answer for each picture; a prompt with no place for notes has them as wishes."""
        if "{prompt}" in self.prompt.text or not any(notes):
            return self.about(pictures, notes, None, wishes=wishes, seed=seed)
        answers: list[Answer] = []
        for picture, note in zip(pictures, notes, strict=True):
            told = " ".join(filter(None, (wishes, f"Known already: {note}." if note else "")))
            answers += self.about([picture], [""], None, wishes=told, seed=seed)
        return answers

    def without_picture(
        self, text: str, wishes: str, keep: Sequence[str], count: int, deep: bool, seed: int
    ) -> tuple[str, dict[str, Any]]:
        """The first candidate that can be used: nobody can compare them."""
        from ..promptglass.llm.analyzer import evidence
        from ..promptglass.refine import Notes, refine

        with self._asking():
            found = refine(
                self.endpoint,
                self.prompt,
                Notes(embedded=text),
                wishes=wishes,
                keep=keep,
                count=1,
                deep=deep,
                seed=seed,
                progress=self._stream.progress,
                listen=self._stream.listen,
            )
        return found.prompt, {**evidence(found), "score": found.score}


def _as_pictures(pictures: Sequence[Any], texts: Sequence[str]) -> list[Any]:
    """As the engine takes them from files: a text stands where a file's own prompt would."""
    from ..promptglass.images import Picture
    from ..promptglass.metadata import Embedded

    return [
        Picture("picture", picture, Embedded("comfyui", text, "", {}) if text else None, "", picture.size)
        for picture, text in zip(pictures, texts, strict=True)
    ]


def _judge(loaded: Any) -> ClipAnalyzer:
    from ..promptglass.clip.analyzer import ClipAnalyzer

    return ClipAnalyzer(interrogator=loaded.interrogator())


def _candidates_card(prompt: str, evidence: dict[str, Any], model: str) -> Card:
    scores = {one["prompt"]: one["score"] for one in evidence["candidates"] if one["score"] is not None}
    given = evidence["input"]
    if given["score"] is not None:
        scores[f"(went in) {given['prompt']}"] = given["score"]
    ranked = dict(sorted(scores.items(), key=lambda item: -item[1]))
    card = {"title": "refined", "text": prompt, "model": model, "note": evidence["why"], "bars": bars(ranked)}
    return card | ({"score": round(evidence["score"], 4)} if evidence["score"] is not None else {})
