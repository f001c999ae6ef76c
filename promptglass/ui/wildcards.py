"""Wildcards: what dynamic-prompts would draw, and which files of ours are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InputError, PromptglassError, visible
from ..wildcard_files import HOME, read_wildcards, text_of, wildcard_name
from ..wildcards import FORMATS
from . import cards
from .gradio_versions import Updates, make, on, update

if TYPE_CHECKING:
    from ..service import Service

_MOST = 50
_MOST_FILES = 500


class Wildcards:
    def __init__(self, service: Service) -> None:
        self._service = service
        with make("Row", elem_id="promptglass_wildcards"):
            with make("Column", scale=3, min_width=300):
                self.template = make(
                    "Textbox",
                    label="Template",
                    lines=3,
                    value="__promptglass/best__",
                    info="__name__ draws a line of a wildcard, {a|b} one of several.",
                    elem_id="promptglass_wildcards_template",
                )
                with make("Row"):
                    self.count = make(
                        "Slider",
                        label="How many",
                        minimum=1,
                        maximum=_MOST,
                        step=1,
                        value=5,
                        elem_id="promptglass_wildcards_count",
                    )
                    self.seed = make(
                        "Number", label="Seed", value=0, precision=0, elem_id="promptglass_wildcards_seed"
                    )
                self.preview = make(
                    "Button", value="Preview", variant="primary", elem_id="promptglass_wildcards_preview"
                )
                self.drawn = make("HTML", value="", elem_id="promptglass_wildcards_drawn")
            with make("Column", scale=2, min_width=300):
                self.files = make("HTML", value="", elem_id="promptglass_wildcards_files")
                self.refresh = make(
                    "Button", value="Look again", size="sm", elem_id="promptglass_wildcards_refresh"
                )
        on(self.preview.click, self.draw, [self.template, self.count, self.seed], [self.drawn])
        on(self.refresh.click, self.list, [], [self.files])

    def wire_listing(self, event: Any) -> None:
        on(event, self.list, [], [self.files])

    def draw(self, template: str, count: float, seed: float) -> Updates:
        try:
            if not (template or "").strip():
                raise InputError("the template is empty: write a prompt with __wildcards__")
            drawn = self._service.preview_wildcards(template, _number(count, 1, _MOST), _number(seed))
        except PromptglassError as error:
            return {self.drawn: update(value=cards.failure(str(error)))}
        missing = [cards.failure(f"no file gives {name}") for name in drawn.missing]
        lines = cards.element("ol", [cards.element("li", line) for line in drawn.prompts], "drawn")
        return {self.drawn: update(value=cards.Html("".join([*missing, lines])))}

    def list(self) -> Updates:
        """The files of ours that are there."""
        try:
            folder = self._service.host.wildcard_folder().path
        except PromptglassError as error:
            return {self.files: update(value=cards.failure(str(error)))}
        found = sorted(path for path in (folder / HOME).rglob("*") if path.suffix[1:] in FORMATS)
        rows = []
        for path in found[:_MOST_FILES]:
            name = path.relative_to(folder).as_posix()
            rows.append((cards.code(f"__{wildcard_name(name)}__"), _lines(folder, name), path.suffix[1:]))
        where = cards.note(f"in {visible(str(folder))}")
        nothing = cards.note("No wildcards of promptglass yet: the Folder tab writes them.")
        table = cards.table(("wildcard", "lines", "format"), rows) or nothing
        return {self.files: update(value=cards.Html(table + where))}


def _lines(folder: Any, name: str) -> str:
    try:
        return f"{sum(1 for entry in read_wildcards(folder, name).entries if text_of(entry)):,}"
    except (PromptglassError, OSError):
        return "unreadable"


def _number(value: Any, least: int = -(2**63), most: int = 2**63) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError("how many, and the seed, are whole numbers") from None
    if not least <= number <= most:
        raise InputError(f"give {least} to {most}")
    return number
