"""Language models' answers as modes: llm/ID for every prompt of the library, llm/ID@ENDPOINT by that one.

What needs to see gets the picture, and no notes that may be wrong; what does not is told what CLIP sees, as
far as CLIP is here.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from ..analyzers import Analyzer, Answer, Answers, Failure, OcrAnalyzer, Recipe
from ..clip.analyzer import ClipAnalyzer
from ..errors import (
    EndpointError,
    EndpointRefused,
    EndpointUnreachable,
    InputError,
    ModelError,
    ModelSeesNot,
    PromptglassError,
    ReplyError,
    Stopped,
    one_line,
    visible,
)
from ..progress import Progress, silent
from ..refine import COUNT, MARGIN, Notes, Refinement, Scores, asks_for, judged
from .queue import Ask, Listen, ask_all

if TYPE_CHECKING:
    from ..images import Picture
    from ..ocr import Line, Reader
    from ..prompts import Prompt
    from .endpoint import Endpoint, Reply

log = logging.getLogger("promptglass")

PREFIX = "llm/"

# What a fault of ours raises. Not all of Exception: a host's interrupt may be one, and comes through here.
_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_WAYS_OUT = (
    "caption: --caption TEXT, user: --wishes TEXT, prompt: one in the file, "
    "tags and tables: promptglass models get ViT-L-14/openai"
)


def prompt_id(mode: str) -> str:
    """llm/describe@eyes is about the prompt describe."""
    return mode.removeprefix(PREFIX).partition("@")[0]


def endpoint_of(mode: str) -> tuple[str, str]:
    """llm/describe@ollama/qwen2.5vl:7b asks the endpoint ollama for that model; both may be empty."""
    profile, _, model = mode.partition("@")[2].partition("/")
    return profile, model


class LlmAnalyzer(Analyzer):
    """Modes that one endpoint answers.

    prompts: the library, by id. clip: who tells what is in a picture and judges candidates; None: nobody.
    has_captions: whether it tells that in a sentence, too. caption: the user's own.
    wishes, keep, count, deep, seed, listen: see refine().
    """

    def __init__(
        self,
        endpoint: Endpoint,
        modes: Sequence[str],
        prompts: Mapping[str, Prompt],
        clip: ClipAnalyzer | None = None,
        has_captions: bool = False,
        caption: str = "",
        wishes: str = "",
        keep: Sequence[str] = (),
        count: int = COUNT,
        deep: bool = False,
        progress: Progress = silent,
        seed: int = 0,
        listen: Listen | None = None,
    ) -> None:
        self.modes = tuple(modes)
        self._endpoint = endpoint
        self._prompts = {mode: prompts[prompt_id(mode)] for mode in modes}
        self._clip = clip
        self._has_captions = has_captions
        self._caption = caption
        self._wishes = wishes
        self._keep = tuple(keep)
        self._count = count if clip is not None else 1  # nobody could choose
        self._deep = deep
        self._progress = progress
        self._seed = seed
        self._listen = listen
        self._ocr = OcrAnalyzer()
        self._recipes: dict[str, Recipe] = {}
        self._was_asked = self._has_answered = False
        self._unreachable_in_a_row = 0

    def obstacles(self, mode: str) -> list[str]:
        health = self._endpoint.check()
        if not health.usable:
            return [health.message]
        try:
            self._check_sight([mode])
        except (EndpointError, InputError) as error:
            return [str(error)]
        return []

    def recipe(self, mode: str) -> Recipe:
        """Raises InputError and EndpointError where the endpoint has to be asked which model it has."""
        if mode not in self._recipes:
            self._recipes[mode] = self._made_recipe(self._prompts[mode])
        return self._recipes[mode]

    def _made_recipe(self, prompt: Prompt) -> Recipe:
        settings: dict[str, object] = {"prompt_sha256": prompt.fingerprint}
        if self._wishes:
            settings["wishes"] = self._wishes
        if self._seed:
            settings["seed"] = self._seed
        if self._clip is not None and self._uses_notes(prompt):
            settings["clip"] = self._origin_of_notes(self._clip)
        elif self._caption:
            settings["caption"] = self._caption
        if prompt.judged:
            settings |= {"candidates": self._count, "margin": MARGIN}
            settings |= {"deep": True} if self._deep else {}
            settings |= {"keep": [*self._keep]} if self._keep else {}
        if prompt.with_ocr and self._ocr_name:
            settings["ocr"] = self._ocr_name
        return Recipe(_public(self._endpoint.model()), settings)

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Answers:
        self._check_sight(modes)
        notes, scores = self._notes(pictures, modes)
        tasks: list[_Task] = []
        for place, picture in enumerate(pictures):
            for mode in modes:
                try:
                    asks = self._asks(self._prompts[mode], picture, notes[place])
                except InputError as error:
                    yield place, Failure(mode, InputError(f"{error} ({_WAYS_OUT})"))
                else:
                    tasks.append(_Task(place, mode, asks))
        asks = [ask for task in tasks for ask in task.asks]
        owners = [(task, number) for task in tasks for number in range(len(task.asks))]
        what = f"asking {self._endpoint.name}"
        self._was_asked = True
        with closing(ask_all(self._endpoint, asks, what, self._progress, self._listen)) as replies:
            for number, reply in replies:
                self._note(reply)
                task, candidate = owners[number]
                task.replies[candidate] = reply
                if len(task.replies) == len(task.asks):
                    picture, its_notes = pictures[task.place], notes[task.place]
                    yield task.place, self._outcome(task, picture, its_notes, scores[task.place])
        if self._endpoint.profile.unload == "after_each":
            self._endpoint.release()
            self._was_asked = False

    def release(self, patience_s: float) -> None:
        if self._was_asked:
            self._endpoint.release_within(patience_s)
        self._was_asked = False

    def _note(self, reply: Reply | EndpointError) -> None:
        """Raises what is no matter of one picture: nothing that is still to be asked would fare better."""
        if isinstance(reply, (EndpointRefused, ModelSeesNot, EndpointUnreachable)) and not self._has_answered:
            self._was_asked = False  # it has loaded nothing
        if isinstance(reply, (EndpointRefused, ModelSeesNot)):
            raise reply
        if not isinstance(reply, EndpointUnreachable):
            self._has_answered, self._unreachable_in_a_row = True, 0
            return
        self._unreachable_in_a_row += 1
        # One picture may bring a server down that is back for the next.
        if not self._has_answered or self._unreachable_in_a_row > self._endpoint.concurrency:
            raise reply

    # -- what is asked ---------------------------------------------------------------------------------

    def _asks(self, prompt: Prompt, picture: Picture, notes: Notes) -> list[Ask]:
        shows = prompt.needs_image or (prompt.judged and self._sees)
        image = picture.image if shows else None
        if not self._uses_notes(prompt):
            notes = Notes(self._caption, embedded=notes.embedded)
        if prompt.judged:
            return asks_for(prompt, notes, self._wishes, self._count, self._deep, image, self._seed)
        messages = prompt.messages(
            caption=notes.caption,
            tags=notes.labels,
            tables=notes.tables,
            prompt=notes.embedded,
            user=self._wishes,
        )
        images = [] if image is None else [image]
        seed = self._seed or None  # one that is not asked for is the server's affair
        return [Ask(messages, images, prompt.schema, prompt.temperature, prompt.max_tokens, seed)]

    def _notes(
        self, pictures: Sequence[Picture], modes: Sequence[str]
    ) -> tuple[list[Notes], list[Scores | None]]:
        embedded = [picture.embedded.positive if picture.embedded else "" for picture in pictures]
        if self._clip is None or not any(self._uses_notes(self._prompts[mode]) for mode in modes):
            return [Notes(self._caption, embedded=prompt) for prompt in embedded], [None] * len(pictures)
        scores: list[Scores | None] = [partial(self._clip.scores, picture) for picture in pictures]
        return self._clip.notes(pictures, embedded, self._has_captions), scores

    def _uses_notes(self, prompt: Prompt) -> bool:
        return prompt.judged or not prompt.needs_image

    def _origin_of_notes(self, clip: ClipAnalyzer) -> dict[str, object]:
        labels = clip.recipe("tables")
        origin = {"model": labels.model, "vocabulary": labels.settings["vocabulary"]}
        return origin | (clip.recipe("caption").settings if self._has_captions else {})

    @cached_property
    def _sees(self) -> bool | None:
        return self._endpoint.sees_images()

    def _check_sight(self, modes: Sequence[str]) -> None:
        """Some servers drop a picture without a word, and their model makes one up."""
        if any(self._prompts[mode].needs_image for mode in modes) and self._sees is False:
            model = visible(self._endpoint.model())
            raise ModelSeesNot(
                f"{self._endpoint.shown}: {model} does not see pictures. Choose one that does."
            )

    # -- what is answered ------------------------------------------------------------------------------

    def _outcome(
        self, task: _Task, picture: Picture, notes: Notes, scores: Scores | None
    ) -> Answer | Failure:
        prompt = self._prompts[task.mode]
        replies = [task.replies[number] for number in range(len(task.asks))]
        score: float | None = None
        try:
            if prompt.judged:
                refinement = judged(prompt, notes, task.asks, replies, scores, self._keep)
                text, score, details = refinement.prompt, refinement.score, evidence(refinement)
            else:
                text, details = self._said(prompt, replies[0], picture)
        except Stopped:
            raise
        except PromptglassError as error:
            return Failure(task.mode, error)
        except _FAULTS as error:  # the other answers are paid for: this one's must not cost them
            log.debug("%s failed", task.mode, exc_info=True)
            return Failure(task.mode, ModelError(f"{type(error).__name__}: {one_line(error)}"))
        heard = [reply for reply in replies if not isinstance(reply, EndpointError)]
        recipe, elapsed_s = self.recipe(task.mode), sum(reply.elapsed_s for reply in heard)
        if _public(heard[0].model) not in ("", recipe.model):
            details["answered_by"] = _public(heard[0].model)
        if usage := sum((Counter(reply.usage) for reply in heard), Counter()):
            details["usage"] = dict(usage)
        return Answer(task.mode, text, recipe.model, score, elapsed_s, recipe.settings, details)

    def _said(
        self, prompt: Prompt, reply: Reply | EndpointError, picture: Picture
    ) -> tuple[str, dict[str, object]]:
        if isinstance(reply, EndpointError):
            raise reply
        if prompt.schema is None and reply.finish_reason == "length":
            cause = f"the answer was cut off: raise max_tokens of the prompt {prompt.id}"
            raise ReplyError(f"{self._endpoint.shown}: {cause}")
        if prompt.schema is None:
            return reply.text, {}
        if not prompt.with_ocr or self._ocr_name is None:
            return _as_text(reply.data), {"data": reply.data}
        from ..readings import merged

        readings = merged(reply.data.get("lines", []), self._read(picture))
        lines = [asdict(reading) for reading in readings]
        return "\n".join(reading.text for reading in readings), {"data": reply.data, "lines": lines}

    def _read(self, picture: Picture) -> list[Line]:
        try:
            return self._reader.read(picture.image)
        except ModelError as error:  # what the language model has read is paid for
            log.warning("%s: read by the language model alone: %s", visible(picture.name), error)
            return []

    @cached_property
    def _ocr_name(self) -> str | None:
        return None if self._ocr.obstacles("ocr") else self._ocr.recipe("ocr").model

    @cached_property
    def _reader(self) -> Reader:
        from ..ocr import load_reader

        return load_reader()


def _public(model: str) -> str:
    """llama.cpp may call a model by its path, which is nobody's business."""
    is_path = model.startswith(("/", "~")) or model[1:3] in (":\\", ":/")
    return model.replace("\\", "/").rsplit("/", 1)[-1] if is_path else model


def evidence(refinement: Refinement) -> dict[str, object]:
    """How a prompt was chosen, as JSON."""
    return {
        "refined": refinement.is_refined,
        "why": refinement.why,
        "gain": _rounded(refinement.gain),
        "input": {"prompt": refinement.input, "score": _rounded(refinement.input_score)},
        "candidates": [{**asdict(c), "score": _rounded(c.score)} for c in refinement.candidates],
    }


def _rounded(cosine: float | None) -> float | None:
    return None if cosine is None else round(cosine, 6)


def _as_text(data: Any) -> str:
    """An answer in JSON for people: the strings in it, in their order."""
    if isinstance(data, Mapping):
        return ", ".join(filter(None, map(_as_text, data.values())))
    if isinstance(data, list):
        return ", ".join(filter(None, map(_as_text, data)))
    return "" if data is None else str(data)


class _Task:
    """What is asked about a picture in one mode."""

    def __init__(self, place: int, mode: str, asks: Sequence[Ask]) -> None:
        self.place = place
        self.mode = mode
        self.asks = asks
        self.replies: dict[int, Reply | EndpointError] = {}
