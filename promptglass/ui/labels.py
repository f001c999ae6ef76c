"""What kind of picture it is: built-in categories, and labels of the user's own that compete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..clip.classifier import categories
from ..errors import InputError, PromptglassError
from . import cards
from .gradio_versions import Updates, make, path_of, update
from .pictures import drop_area, picture_of, preview_of, wire_drops
from .running import Run

if TYPE_CHECKING:
    from ..service import Service

_FIRST = 4  # categories that are ticked at first
_MOST = 20


class Labels:
    def __init__(self, service: Service) -> None:
        self._service = service
        with make("Row", elem_id="promptglass_labels"):
            with make("Column", scale=2, min_width=300, elem_id="promptglass_labels_left"):
                self.file = drop_area("labels")
                self.preview = make("HTML", value="", elem_id="promptglass_labels_preview")
                self.categories = make(
                    "CheckboxGroup",
                    label="Categories",
                    choices=[*categories()],
                    value=[*categories()][:_FIRST],
                    elem_id="promptglass_labels_categories",
                )
                self.own = make(
                    "Textbox",
                    label="Labels of your own, one a line",
                    lines=3,
                    placeholder="a cat\na dog = 🐶",
                    elem_id="promptglass_labels_own",
                )
                self.top = make(
                    "Slider",
                    label="How many of each",
                    minimum=1,
                    maximum=_MOST,
                    step=1,
                    value=5,
                    elem_id="promptglass_labels_top",
                )
                self.run = Run(service, "labels", "Classify")
            with make("Column", scale=5, min_width=300, elem_id="promptglass_labels_right"):
                empty = cards.element("p", "Labels appear here, with how sure CLIP is of each.", "empty")
                self.found = make("HTML", value=empty, elem_id="promptglass_labels_found")
        wire_drops(self.file, self.look, [], [self.preview, self.run.status])
        inputs = [self.file, self.categories, self.own, self.top]
        self.run.wire(self.begin, inputs, self.follow, [self.found])

    def look(self, file: Any) -> Updates:
        empty = {self.preview: update(value=""), self.run.status: update(value="")}
        if path_of(file) is None:
            return empty
        try:
            return empty | {self.preview: update(value=preview_of(picture_of(file)))}
        except PromptglassError as error:
            return empty | {self.run.status: update(value=cards.failure(str(error)))}

    def begin(self, file: Any, chosen: Any, own: str, top: float) -> Updates:
        def start() -> Any:
            picture = picture_of(file)
            return self._service.label(picture, [str(name) for name in chosen or ()], own or "", _count(top))

        return self.run.begin(start)

    def follow(self, job_id: str) -> Iterator[Updates]:
        job = self.run.find(job_id)
        if job is None:
            yield self.run.idle()
            return
        for _, updates in self.run.changes(job):
            yield updates
        drawn = {self.found: update(value=_drawn(job.result))} if job.state == "done" else {}
        yield self.run.ended(job) | drawn


def _drawn(result: Mapping[str, Any]) -> str:
    sets = [
        cards.bars(
            [
                {
                    "label": one["label"],
                    "value": one["confidence"],
                    "shown": f"{one['confidence']:.0%}" if one["confidence"] >= 0.005 else "<1%",
                    "emoji": one["emoji"],
                }
                for one in found
            ],
            "your own labels" if name == "labels" else name,
            most=_MOST,
        )
        for name, found in result["categories"].items()
    ]
    return cards.element("div", sets, "sets") + cards.note(result["model"])


def _count(top: Any) -> int:
    try:
        count = int(top)
    except (TypeError, ValueError, OverflowError):
        count = 0
    if not 1 <= count <= _MOST:
        raise InputError(f"how many of each: give 1 to {_MOST}")
    return count
