"""Answers side by side: a place for each mode, with its prompt, its evidence, and a way to use it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import cards
from .gradio_versions import Updates, make, on, update

if TYPE_CHECKING:
    from ..analyzers import Answer

Told = Mapping[str, Any]  # an answer as analyzers.as_json gives it

# Whose prompt a person most wants to go on with.
_FOR_THE_PROMPT = ("best", "fast", "classic", "embedded", "caption", "tags")


class Answers:
    """One place for each mode; those without an answer are hidden. `told` holds what is shown."""

    def __init__(self, modes: Sequence[str]) -> None:
        self.told = make("State", value=[])
        self.failed = make("HTML", value="", elem_id="promptglass_single_failed")
        self.empty = make("HTML", value=_EMPTY, elem_id="promptglass_single_empty")
        with make("Row", elem_id="promptglass_answers"):
            self.places = {mode: _Place(mode) for mode in modes}

    @property
    def parts(self) -> list[Any]:
        return [
            self.told,
            self.failed,
            self.empty,
            *(p for place in self.places.values() for p in place.parts),
        ]

    def wire(self, prompt: Any, negative: Any) -> None:
        """Each place's button puts its answer into one of these."""
        for mode, place in self.places.items():
            on(place.use.click, _user_of(mode, prompt, negative), [self.told], [prompt, negative])

    def cleared(self, but: Sequence[Told] = ()) -> Updates:
        """None but these."""
        updates: Updates = {self.told: [*but], self.failed: update(value="")}
        updates[self.empty] = update(value="" if but else _EMPTY)
        kept = {answer["mode"]: answer for answer in but}
        for mode, place in self.places.items():
            updates |= place.showing(kept[mode]) if mode in kept else place.hidden()
        return updates

    def showing(self, new: Iterable[Told], told: Sequence[Told]) -> Updates:
        """New ones beside those that are there; of a mode, the newest."""
        new = [*new]
        names = {answer["mode"] for answer in new}
        updates: Updates = {self.told: [*(a for a in told if a["mode"] not in names), *new]}
        updates[self.empty] = update(value="")
        for answer in new:
            if answer["mode"] in self.places:
                updates |= self.places[answer["mode"]].showing(answer)
        return updates


class _Place:
    def __init__(self, mode: str) -> None:
        name = f"promptglass_answer_{mode}"
        with make("Column", visible=False, min_width=220, elem_id=name) as self.column:
            self.text = make(
                "Textbox",
                label=mode,
                placeholder="nothing",
                lines=3,
                max_lines=8,
                interactive=False,
                copy_button=True,
                elem_id=f"{name}_text",
            )
            self.evidence = make("HTML", value="", elem_id=f"{name}_evidence")
            label = "Use as negative" if mode == "negative" else "Use as prompt"
            self.use = make("Button", value=label, size="sm", elem_id=f"{name}_use")

    @property
    def parts(self) -> list[Any]:
        return [self.column, self.text, self.evidence]

    def showing(self, answer: Told) -> Updates:
        return {
            self.column: update(visible=True),
            self.text: update(value=answer["text"], label=title_of(answer)),
            self.evidence: update(value=cards.evidence(answer)),
        }

    def hidden(self) -> Updates:
        return {self.column: update(visible=False)}


def title_of(answer: Told) -> str:
    """ "best · 0.312 · 1.2 s"."""
    parts = [answer["mode"]]
    if answer.get("score") is not None:
        parts.append(f"{answer['score']:.3f}")
    if seconds := answer.get("elapsed_s"):
        parts.append(f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms")
    return " · ".join(parts)


def prompts_of(told: Sequence[Told]) -> tuple[str, str]:
    """The prompt and the negative prompt to go on with; "" where there is none."""
    by_mode = {answer["mode"]: answer for answer in told}
    prompt = next((by_mode[mode]["text"] for mode in _FOR_THE_PROMPT if mode in by_mode), "")
    embedded = by_mode.get("embedded", {})
    negative = by_mode["negative"]["text"] if "negative" in by_mode else embedded.get("negative", "")
    return prompt, negative


def as_answer(told: Told) -> Answer:
    """The answer that analyzers.as_json was given."""
    from ..analyzers import Answer

    fields = ("mode", "text", "model", "score", "elapsed_s", "settings")
    details = {name: value for name, value in told.items() if name not in (*fields, "id", "kind")}
    return Answer(**{name: told[name] for name in fields if name in told}, details=details)


def _user_of(mode: str, prompt: Any, negative: Any) -> Any:
    def use(told: Sequence[Told]) -> Updates:
        answer = next((answer for answer in told or () if answer["mode"] == mode), None)
        if answer is None:
            return {prompt: update()}
        if mode == "negative":
            return {negative: update(value=answer["text"])}
        updates = {prompt: update(value=answer["text"])}
        if answer.get("negative"):
            updates[negative] = update(value=answer["negative"])
        return updates

    return use


_EMPTY = cards.element("p", "Answers appear here, side by side.", "empty")
