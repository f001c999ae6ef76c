"""Which modes can be chosen here and now, and what stands in the way of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..choice import Choice
from ..errors import PromptglassError
from . import cards

if TYPE_CHECKING:
    from ..service import Service

_ABOUT_A_CAPTION = ", or give --caption TEXT"  # there is a field for it on the page


class Modes:
    """ready: can run. with_caption: could with a caption given. blocked: a mode, and why it cannot."""

    def __init__(self, service: Service) -> None:
        found = service.obstacles()
        captioned = service.obstacles(Choice(caption="a caption"))
        self.ready = [mode for mode, obstacles in found.items() if not obstacles]
        self.with_caption = [mode for mode in found if found[mode] and not captioned[mode]]
        self.blocked = {
            mode: [helpful(obstacle) for obstacle in obstacles]
            for mode, obstacles in found.items()
            if obstacles
        }

    def choices(self, may_give_caption: bool = False) -> list[str]:
        """In the order in which they are asked."""
        from ..analyzers import MODES

        offered = {*self.ready, *(self.with_caption if may_give_caption else ())}
        return [mode for mode in MODES if mode in offered]

    def chosen(self, wanted: Sequence[str] | None) -> list[str]:
        from ..analyzers import FIRST_CHOICE

        return [mode for mode in (wanted or FIRST_CHOICE) if mode in self.ready]

    def why_not(self, may_give_caption: bool = False) -> cards.Html:
        """What is left out, and what would bring it; folded away, as it may be long."""
        captioned = self.with_caption if may_give_caption else []
        hidden = {mode: why for mode, why in self.blocked.items() if mode not in captioned}
        lines = cards.Html()
        if captioned:
            why = "; ".join(self.blocked[captioned[0]])
            lines = cards.note(f"{', '.join(captioned)} need a caption: give one below. Or else: {why}.")
        if hidden:
            title = f"{len(hidden)} {'mode' if len(hidden) == 1 else 'modes'} cannot run here yet"
            lines = cards.Html(lines + cards.folded(title, _reasons(hidden)))
        return lines


def _reasons(blocked: Mapping[str, Sequence[str]]) -> cards.Html:
    """Modes that lack the same in one line."""
    alike: dict[str, list[str]] = {}
    for mode, obstacles in blocked.items():
        alike.setdefault("; ".join(obstacles), []).append(mode)
    return cards.failures([(", ".join(modes), why) for why, modes in alike.items()])


def modes_of(service: Service) -> Modes | str:
    """Or why nobody can tell."""
    try:
        return Modes(service)
    except PromptglassError as error:
        return str(error)


def helpful(obstacle: str) -> str:
    """An obstacle with the command as it has to be typed here."""
    from ..program import command

    return obstacle.replace(_ABOUT_A_CAPTION, "").replace("promptglass models get", command("models get"))


def checked(modes: Any) -> list[str]:
    """What the page sent. Raises InputError where nothing was chosen, or what is no mode."""
    from ..choice import parse_modes
    from ..errors import InputError

    if not isinstance(modes, list) or not modes:
        raise InputError("no mode is chosen: tick at least one")
    return parse_modes([str(mode) for mode in modes]) or []
