"""Nodes for wildcard files: written where the host's wildcard packs read, drawn as they would draw."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..promptglass.errors import InputError
from . import host, schema
from .cards import Card, shown

AUTO = "auto"
_SOURCE = "comfyui"  # whose lines these are, in the record of written lines


def folders() -> dict[str, tuple[Path, bool]]:
    """Where wildcards may go, the first by default: each with whether it is read as ISO-8859-1."""
    from ..promptglass.hosts import WildcardFolder, wildcard_folders

    base = host.base_folder()
    known: list[WildcardFolder] = []
    with contextlib.suppress(InputError):  # no pack reads wildcards: the usual folder is ready for one
        known = wildcard_folders(base)
    latin1 = {one.path.resolve() for one in known if one.is_read_as_latin1}
    paths = [*host.registered_wildcard_folders(), *(one.path for one in known)] or [base / "wildcards"]
    return {_shown(path, base): (path, path.resolve() in latin1) for path in paths}


def _shown(path: Path, base: Path) -> str:
    """As people know a folder: from ComfyUI's own on, where it is in there."""
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _chosen(choice: str) -> tuple[Path, bool]:
    known = folders()
    if choice != AUTO and choice not in known:
        raise InputError(f"there is no wildcard folder {choice} any more: choose {', '.join((AUTO, *known))}")
    return next(iter(known.values())) if choice == AUTO else known[choice]


def _folder_choice() -> Any:
    tooltip = "Whose wildcards: auto is the folder that the packs installed here read."
    return schema.choice([AUTO, *folders()], AUTO, tooltip)


class WriteWildcards(schema.Node):
    """Prompts as lines of a wildcard."""

    DESCRIPTION = (
        "Adds texts to a wildcard file that dynamic-prompts and Impact-Pack use as it is. Every line is made "
        "literal; lines of your own stay, and one you delete stays deleted."
    )
    SEARCH_ALIASES = ("dynamic prompts", "impact", "wildcard", "save prompts", "promptglass")
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("wildcard",)
    OUTPUT_TOOLTIPS = ("How a prompt writes it: __promptglass/best__.",)

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        from ..promptglass.wildcards import FORMATS

        return {
            "required": {
                "text": schema.linked_text("A line for each text."),
                "name": schema.text("promptglass/NAME: prompts write __promptglass/NAME__.", default="best"),
                "folder": _folder_choice(),
                "format": schema.choice(
                    [AUTO, *FORMATS],
                    AUTO,
                    "auto: txt, and yaml where Impact-Pack reads, which takes .txt for ISO-8859-1.",
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, folder: Any) -> bool:
        return True  # a pack may be gone; run() says so

    def run(
        self, text: Sequence[str], name: Sequence[str], folder: Sequence[str], format: Sequence[str]
    ) -> schema.Result:
        from ..promptglass.wildcards import collect, write_wildcards

        place, is_latin1 = _chosen(folder[0])
        slug = name[0].strip().removeprefix("promptglass/") or "best"
        lines = collect(("", {"analysis": {slug: [{"prompt": one}]}}) for one in text)
        how = format[0] if format[0] != AUTO else "yaml" if is_latin1 else "txt"
        outcomes = write_wildcards(lines, place, _SOURCE, how, adds=True)
        names = {f"promptglass/{key}" for key in lines}
        written = [one for one in outcomes if one.name in names and one.path.suffix == f".{how}"]
        if not written:
            raise InputError("there is nothing to write: the texts are empty")
        file = written[0]
        state = f"{file.lines:,} line{'s' * (file.lines != 1)}, {file.state}"
        card = {"title": f"__{file.name}__", "text": state, "lines": [str(file.path)]}
        return {"ui": shown([card]), "result": (f"__{file.name}__",)}


class PreviewWildcard(schema.Node):
    """What dynamic-prompts would make of a template."""

    DESCRIPTION = "Draws prompts from a template with __wildcards__ and {a|b}, as dynamic-prompts would."
    SEARCH_ALIASES = ("dynamic prompts", "wildcard", "sample", "random prompt", "promptglass")
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("prompt",)
    OUTPUT_IS_LIST = (True,)
    OUTPUT_TOOLTIPS = ("The prompts that were drawn.",)

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        return {
            "required": {
                "template": schema.text("A template.", "__promptglass/best__", True, "a {red|blue} __cat__"),
                "folder": _folder_choice(),
                "count": schema.number(5, 1, 200, "How many prompts."),
                "seed": schema.seed("The same seed draws the same prompts from the same files."),
            },
            "optional": {"after": schema.linked_text("Draws once this is there: from Write wildcards.")},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, folder: Any) -> bool:
        return True

    @classmethod
    def IS_CHANGED(cls, folder: Any, **_: Any) -> list[Any]:
        """The files as they are now."""
        place = _chosen(folder[0])[0]
        files = sorted(path for path in place.rglob("*") if path.suffix in (".txt", ".yaml", ".json"))
        return [[str(path), path.stat().st_mtime_ns] for path in files]

    def run(
        self,
        template: Sequence[str],
        folder: Sequence[str],
        count: Sequence[int],
        seed: Sequence[int],
        after: Sequence[str] | None = None,
    ) -> schema.Result:
        from ..promptglass.wildcard_preview import draw

        drawn = draw(template[0], _chosen(folder[0])[0], count[0], seed[0])
        note = f"no file gives {', '.join(drawn.missing)}" if drawn.missing else None
        first, *others = drawn.prompts or [""]
        card: Card = {"title": "drawn", "text": first, "lines": others, "note": note}
        return {"ui": shown([card]), "result": (drawn.prompts,)}
