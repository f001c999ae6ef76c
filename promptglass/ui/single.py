"""One picture: what its file says at once, what models say side by side, and a prompt to go on with."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..analyzers import MODES, EmbeddedAnalyzer, as_json, ask
from ..analyzers import Answer as EngineAnswer
from ..choice import Choice
from ..errors import InputError, PromptglassError
from . import cards
from .answers import Answers, Told, as_answer, prompts_of
from .gradio_versions import Updates, make, name_of, on, path_of, update
from .modes import Modes, checked, modes_of
from .pictures import drop_area, picture_of, preview_of, wire_drops
from .refining import Refining
from .running import Run
from .sending import Sending

if TYPE_CHECKING:
    from ..service import Service


class Single:
    def __init__(self, service: Service, defaults: Mapping[str, Any], send_to: bool) -> None:
        self._service = service
        self._default_modes = defaults.get("modes")
        with make("Row", elem_id="promptglass_single"):
            with make("Column", scale=2, min_width=300, elem_id="promptglass_single_left"):
                self._lay_out_picture(send_to)
            with make("Column", scale=5, min_width=300, elem_id="promptglass_single_right"):
                self.answers = Answers(MODES)
                self._lay_out_prompts(send_to)
                self.refining = Refining(
                    service, defaults, self.file, self.prompt, self.negative, self.answers
                )
        self._wire()

    def _lay_out_picture(self, send_to: bool) -> None:
        self.file = drop_area("single")
        self.preview = make("HTML", value="", elem_id="promptglass_single_preview")
        if send_to:
            make("Button", value="Paste", size="sm", elem_id="promptglass_single_paste")  # by the script
        modes = modes_of(self._service)
        ready = modes if isinstance(modes, Modes) else None
        self.modes = make(
            "CheckboxGroup",
            label="Modes",
            choices=ready.choices(may_give_caption=True) if ready else [],
            value=ready.chosen(self._default_modes) if ready else [],
            elem_id="promptglass_single_modes",
        )
        self.why_not = make(
            "HTML",
            value=ready.why_not(may_give_caption=True) if ready else cards.failure(str(modes)),
            elem_id="promptglass_single_why_not",
        )
        self.caption = make(
            "Textbox",
            label="Caption (optional)",
            placeholder="a cat on a windowsill",
            info="Prompts grow from it, instead of a captioner's.",
            elem_id="promptglass_single_caption",
        )
        self.run = Run(self._service, "single", "Interrogate")

    def _lay_out_prompts(self, send_to: bool) -> None:
        self.filled = make("State", value=["", ""])  # what was put into the boxes without being asked
        with make("Row", elem_id="promptglass_single_prompts"):
            with make("Column", min_width=300):
                self.prompt = _box("Prompt", "promptglass_prompt")
                prompt_to = Sending("prompt") if send_to else None
            with make("Column", min_width=300):
                self.negative = _box("Negative", "promptglass_negative")
                negative_to = Sending("negative") if send_to else None
        self.sending = [one for one in (prompt_to, negative_to) if one]
        with make("Row", elem_id="promptglass_single_saving"):
            self.save = make("Button", value="Save sidecar", size="sm", elem_id="promptglass_single_save")
        self.saved = make(
            "File", label="Sidecar", visible=False, interactive=False, elem_id="promptglass_single_sidecar"
        )
        self.not_saved = make("HTML", value="", elem_id="promptglass_single_not_saved")

    def _wire(self) -> None:
        boxes = [self.prompt, self.negative, self.filled]
        self.answers.wire(self.prompt, self.negative)
        looked = [self.preview, self.run.status, self.saved, self.not_saved, *self.answers.parts, *boxes]
        wire_drops(self.file, self.look, boxes, looked)
        followed = self.run.wire(
            self.begin,
            [self.file, self.modes, self.caption, self.run.job_id],
            self.follow,
            self.answers.parts,
            [self.answers.told],
        )
        # By itself, so that it sees what was written in the boxes meanwhile.
        on(followed.then, self.fill, [self.answers.told, *boxes], boxes)
        on(
            self.save.click,
            self.save_sidecar,
            [self.file, self.answers.told],
            [self.saved, self.not_saved],
        )

    # -- what happens --------------------------------------------------------------------------------------

    def look(self, file: Any, prompt: str, negative: str, filled: Sequence[str]) -> Updates:
        """A picture was dropped, or taken away: what its file says shows at once."""
        updates = {self.saved: update(visible=False), self.not_saved: update(value="")}
        updates |= {self.preview: update(value=""), self.run.status: update(value="")}
        if path_of(file) is None:
            return updates | self.answers.cleared()
        try:
            picture = picture_of(file)
        except PromptglassError as error:
            return (
                updates | self.answers.cleared() | {self.run.status: update(value=cards.failure(str(error)))}
            )
        found = [a for a in ask(EmbeddedAnalyzer(), picture, ["embedded"]) if isinstance(a, EngineAnswer)]
        told = [as_json(answer) for answer in found]
        updates |= {self.preview: update(value=preview_of(picture)), **self.answers.cleared(told)}
        return updates | self.fill(told, prompt, negative, filled)

    def begin(self, file: Any, modes: Any, caption: str, job_id: str) -> Updates:
        def start() -> Any:
            self._stop(job_id)  # a page has one at a time
            choice = Choice(modes=checked(modes), caption=_line(caption))
            return self._service.interrogate(picture_of(file), choice)

        return self.run.begin(start) | {self.answers.failed: update(value="")}

    def follow(self, job_id: str, told: Sequence[Told]) -> Iterator[Updates]:
        job = self.run.find(job_id)
        if job is None:
            yield self.run.idle()
            return
        told, failed = [*told], []
        for events, updates in self.run.changes(job):
            if answers := [event for event in events if event["kind"] == "answer"]:
                updates |= self.answers.showing(answers, told)
                told = updates[self.answers.told]
            failed += [(e["mode"], e["error"]) for e in events if e["kind"] in ("failure", "left_out")]
            yield {**updates, self.answers.failed: update(value=cards.failures(failed))}
        nothing = "" if told else cards.note("There is no answer: this file holds no prompt.")
        yield self.run.ended(job, nothing)

    def save_sidecar(self, file: Any, told: Sequence[Told]) -> Updates:
        """A copy of the picture gets one, as gradio's own copy may be somebody else's, too."""
        try:
            path = path_of(file)
            if path is None or not told:
                raise InputError("there is nothing to save: drop a picture and interrogate it first")
            name = Path(name_of(file)).name
            folder = Path(tempfile.mkdtemp(dir=_sidecars().name))
            copy = folder / name
            shutil.copyfile(path, copy)
            try:
                saved = self._service.save_sidecar(str(copy), [as_answer(answer) for answer in told])
            finally:
                copy.unlink()
        except (PromptglassError, OSError) as error:
            return {
                self.saved: update(visible=False),
                self.not_saved: update(value=cards.failure(str(error))),
            }
        return {self.saved: update(value=str(saved), visible=True), self.not_saved: update(value="")}

    def fill(self, told: Sequence[Told], prompt: str, negative: str, filled: Sequence[str]) -> Updates:
        """The best prompt into its box, unless a person has written there."""
        best = prompts_of(told)
        is_ours = [
            not now.strip() or now == ours for now, ours in zip((prompt, negative), filled, strict=True)
        ]
        boxes = (self.prompt, self.negative)
        put = {box: update(value=text) for box, text, may in zip(boxes, best, is_ours, strict=True) if may}
        return {self.filled: [*best], **put} if put else {self.filled: [*filled]}

    def _stop(self, job_id: str) -> None:
        if job := self.run.find(job_id):
            job.stop()


@lru_cache(maxsize=1)
def _sidecars() -> tempfile.TemporaryDirectory[str]:
    """Where those lie that are offered for download: gone when the program ends."""
    return tempfile.TemporaryDirectory(prefix="promptglass-")


def _box(label: str, name: str) -> Any:
    return make(
        "Textbox", label=label, lines=4, max_lines=12, interactive=True, copy_button=True, elem_id=name
    )


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())
