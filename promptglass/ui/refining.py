"""A language model makes a prompt of a prompt, of a picture or of both, heard as it writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError
from ..training import parse_list
from . import cards
from .answers import Answers, Told, title_of
from .gradio_versions import Updates, chosen, make, on, path_of, update
from .language_models import LanguageModels
from .pictures import picture_of
from .running import Run

if TYPE_CHECKING:
    from ..service import Service

_MOST_CANDIDATES = 8


class Refining:
    def __init__(
        self,
        service: Service,
        defaults: Mapping[str, Any],
        file: Any,
        prompt: Any,
        negative: Any,
        answers: Answers,
    ) -> None:
        self._service = service
        self._file, self._prompt, self._negative, self._answers = file, prompt, negative, answers
        with make(
            "Accordion", label="Refine with a language model", open=False, elem_id="promptglass_refine"
        ):
            self._lay_out(defaults)
        self._wire()

    def _lay_out(self, defaults: Mapping[str, Any]) -> None:
        offered = LanguageModels(self._service)
        if offered.problem:
            make("HTML", value=cards.failure(offered.problem))
        with make("Row"):
            self.task = make(
                "Dropdown",
                label="What it is to write",
                choices=[(title, id_) for id_, title in offered.tasks.items()],
                value=chosen(defaults.get("prompt_id", "refine"), [*offered.tasks])["value"],
                scale=2,
                elem_id="promptglass_refine_task",
            )
            self.profile, self.model = offered.fields("refine", defaults)
        with make("Row"):
            self.wishes = make(
                "Textbox", label="Wishes", placeholder="make it rain", elem_id="promptglass_refine_wishes"
            )
            self.keep = make(
                "Textbox",
                label="Words to keep",
                placeholder="ohwx woman, <lora:ohwx:1>",
                elem_id="promptglass_refine_keep",
            )
        with make("Row"):
            self.candidates = make(
                "Slider",
                label="Candidates",
                minimum=1,
                maximum=_MOST_CANDIDATES,
                step=1,
                value=4,
                info="With a picture, CLIP takes the closest.",
                elem_id="promptglass_refine_candidates",
            )
            self.deep = make(
                "Checkbox",
                label="Bolder and longer",
                value=False,
                elem_id="promptglass_refine_deep",
            )
        self.run = Run(self._service, "refine", "Refine")
        self.heard = make(
            "Textbox",
            label="It writes",
            lines=3,
            max_lines=10,
            interactive=False,
            visible=False,
            copy_button=True,
            elem_id="promptglass_refine_heard",
        )
        self.judged = make("HTML", value="", elem_id="promptglass_refine_judged")
        with make("Row", visible=False, elem_id="promptglass_refine_using") as self.using:
            self.use = make("Button", value="Use as prompt", size="sm", elem_id="promptglass_refine_use")
            self.use_negative = make(
                "Button", value="Use as negative", size="sm", elem_id="promptglass_refine_use_negative"
            )
        self.answer = make("State", value="")

    def _wire(self) -> None:
        told, shown = self._answers.told, [self.heard, self.judged, self.using, self.answer]
        self.run.wire(
            self.begin,
            [
                *(self._file, self._prompt, self.task, self.profile, self.model),
                *(self.wishes, self.keep, self.candidates, self.deep),
            ],
            self.follow,
            [*shown, told, self._prompt, self._negative],
            [self.task, told],
        )
        on(self.use.click, _same, [self.answer], [self._prompt])
        on(self.use_negative.click, _same, [self.answer], [self._negative])

    # -- what happens --------------------------------------------------------------------------------------

    def begin(
        self,
        file: Any,
        text: str,
        task: str,
        profile: str,
        model: str,
        wishes: str,
        keep: str,
        candidates: float,
        deep: bool,
    ) -> Updates:
        def start() -> Any:
            from ..refine_request import Request

            if profile not in [known.name for known in self._service.profiles()]:
                raise InputError("no endpoint is chosen: choose one")
            request = Request(
                text=text or "",
                prompt_id=str(task),
                profile=profile,
                model=(model or "").strip(),
                wishes=(wishes or "").strip(),
                keep=parse_list(keep or ""),
                candidates=_count(candidates),
                deep=bool(deep),
            )
            return self._service.refine(request, picture_of(file) if path_of(file) else None)

        empty = {self.judged: update(value=""), self.using: update(visible=False), self.answer: ""}
        return self.run.begin(start) | empty | {self.heard: update(visible=False, value="")}

    def follow(self, job_id: str, task: str, told: Sequence[Told]) -> Iterator[Updates]:
        job = self.run.find(job_id)
        if job is None:
            yield self.run.idle()
            return
        answer: Told | None = None
        warnings: list[str] = []
        for events, updates in self.run.changes(job):
            for event in events:
                if event["kind"] == "heard":
                    updates[self.heard] = update(visible=True, value=event["text"])
                warnings += [event["text"]] if event["kind"] == "warning" else []
                warnings += [event["error"]] if event["kind"] == "failure" else []
                answer = event if event["kind"] == "answer" else answer
            yield updates
        said = cards.Html("".join(map(cards.note, warnings)))
        yield self.run.ended(job, said) | (self._answered(answer, task, told) if answer else {})

    def _answered(self, answer: Told, task: str, told: Sequence[Told]) -> Updates:
        drawn = cards.candidates(answer)
        updates = {
            self.heard: update(visible=True, value=answer["text"], label=title_of(answer)),
            self.judged: update(value=drawn),
            self.using: update(visible=True),
            self.answer: answer["text"],
            self._answers.told: [*(one for one in told if one["mode"] != answer["mode"]), answer],
        }
        if task == "negative":
            updates[self._negative] = update(value=answer["text"])
        elif drawn:  # it is a prompt for the same picture; a critique, say, is none
            updates[self._prompt] = update(value=answer["text"])
        return updates


def _same(text: str) -> Any:
    return update(value=text)


def _count(candidates: Any) -> int:
    try:
        count = int(candidates)
    except (TypeError, ValueError, OverflowError):
        count = 0
    if not 1 <= count <= _MOST_CANDIDATES:
        raise InputError(f"candidates: give 1 to {_MOST_CANDIDATES}")
    return count
