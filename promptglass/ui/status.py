"""What is here: models, modes and what they lack, folders, endpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import PromptglassError, visible
from . import cards
from .gradio_versions import Updates, make, on, update
from .modes import helpful

if TYPE_CHECKING:
    from ..service import Service


class Status:
    def __init__(self, service: Service) -> None:
        self._service = service
        self.facts = make("HTML", value="", elem_id="promptglass_status_facts")
        with make("Row", elem_id="promptglass_status_buttons"):
            self.refresh = make("Button", value="Look again", size="sm", elem_id="promptglass_status_refresh")
            self.ask = make(
                "Button", value="Ask the endpoints", size="sm", elem_id="promptglass_status_ask_endpoints"
            )
        self.endpoints = make("HTML", value="", elem_id="promptglass_status_endpoints")
        on(self.refresh.click, self.look, [], [self.facts])
        asking = on(self.ask.click, self.asking, [], [self.endpoints])
        on(asking.then, self.ask_endpoints, [], [self.endpoints])

    def wire_looking(self, event: Any) -> None:
        on(event, self.look, [], [self.facts])

    def look(self) -> Updates:
        try:
            status = self._service.status()
        except PromptglassError as error:
            return {self.facts: update(value=cards.failure(str(error)))}
        parts = [
            _section("Here", cards.facts(self._about(status))),
            _section("Modes", cards.table(("mode", "ready", "what it lacks"), _modes(status))),
            _section("Models", cards.table(("model", "for", "here", "to get it"), _models(status))),
        ]
        return {self.facts: update(value=cards.element("div", parts, "status"))}

    def _about(self, status: dict[str, Any]) -> dict[str, Any]:
        try:
            wildcards = visible(str(self._service.host.wildcard_folder().path))
        except PromptglassError as error:
            wildcards = str(error)
        said = {"host": status["host"], "version": status["version"], **status["facts"]}
        said["folders"] = ", ".join(map(visible, status["roots"])) or "none may be used"
        said["wildcards"] = wildcards
        return {**said, "note": status["note"]} if status["note"] else said

    def asking(self) -> Updates:
        return {self.endpoints: update(value=cards.progress("asking the endpoints"))}

    def ask_endpoints(self) -> Updates:
        try:
            job = self._service.jobs.start("endpoints", lambda job: self._service.endpoints())
        except PromptglassError as error:  # too many are under way
            return {self.endpoints: update(value=cards.failure(str(error)))}
        for _ in job.follow():
            pass
        if job.state != "done":
            return {self.endpoints: update(value=cards.failure(job.error or "stopped"))}
        rows = [
            (
                one["name"],
                "usable" if one["usable"] else "reachable" if one["reachable"] else "not there",
                one["message"],
                ", ".join(one["models"][:20]),
            )
            for one in job.result
        ]
        drawn = cards.table(("endpoint", "state", "what it says", "models"), rows)
        return {self.endpoints: update(value=drawn or cards.note("No endpoint may be asked here."))}


def _section(title: str, content: cards.Html) -> cards.Html:
    return cards.element("section", [cards.element("h3", title), content])


def _modes(status: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Those that lack the same in one row."""
    alike: dict[str | None, list[str]] = {}
    for mode, lacks in status["modes"].items():
        alike.setdefault(lacks and helpful(lacks), []).append(mode)
    return [(", ".join(modes), "no" if lacks else "yes", lacks or "") for lacks, modes in alike.items()]


def _models(status: dict[str, Any]) -> list[tuple[Any, ...]]:
    listed = sorted(status["models"], key=lambda model: not model["here"])
    return [
        (
            model["name"],
            model["kind"],
            "yes" if model["here"] else "no",
            "" if model["here"] else cards.code(model["command"]),
        )
        for model in listed
    ]
