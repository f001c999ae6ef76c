"""Where a host keeps its wildcards, found from its folder alone: nothing of it is imported or changed."""

from __future__ import annotations

import configparser
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError, visible

_READERS = {
    "ComfyUI": "comfyui-dynamicprompts or ComfyUI-Impact-Pack",
    "WebUI": "the extension sd-dynamic-prompts",
}


@dataclass(frozen=True)
class WildcardFolder:
    """A folder of wildcards, and what reads it."""

    reader: str
    path: Path
    # Impact-Pack takes files for ISO-8859-1: a .txt must be ASCII, a .yaml in ASCII escapes is right.
    is_read_as_latin1: bool = False


def wildcard_folders(root: Path) -> list[WildcardFolder]:
    """The folders that the host in `root` reads wildcards from; the first is the one to write to."""
    # Portable builds keep the host one folder deeper.
    for home in (root, root / "ComfyUI", root / "webui"):
        if (home / "custom_nodes").is_dir():
            host, folders = "ComfyUI", list(_in_comfyui(home))
        elif (home / "extensions").is_dir():
            host, folders = "WebUI", list(_in_webui(home))
        else:
            continue
        if not folders:
            raise InputError(
                f"nothing in {visible(str(home))} reads wildcards: install {_READERS[host]}, "
                "or name a folder with --out DIR."
            )
        return _each_once(folders)
    raise InputError(
        f"no host in {visible(str(root))}: it has neither custom_nodes (ComfyUI) nor extensions (A1111)."
        " Give the folder that has, or name the wildcards' folder with --out DIR."
    )


def _in_comfyui(home: Path) -> Iterator[WildcardFolder]:
    packs = [pack for pack in _folders_in(home / "custom_nodes") if pack.suffix != ".disabled"]
    shared = home / "wildcards"
    if any(pack.name.lower() == "comfyui-dynamicprompts" for pack in packs):
        # It looks into its own folder only while ComfyUI/wildcards is missing. Making that one would hide
        # what the user keeps in the other, so it is taken only where it is.
        own = home / "custom_nodes" / "comfyui-dynamicprompts" / "wildcards"
        yield WildcardFolder("comfyui-dynamicprompts", shared if shared.is_dir() else own)
    for pack in packs:
        if (pack / "modules" / "impact" / "wildcards.py").is_file():
            yield WildcardFolder("Impact-Pack", _impact_custom(pack, home), is_read_as_latin1=True)
    if shared.is_dir():
        yield WildcardFolder("any pack that goes by ComfyUI/wildcards", shared)


def _impact_custom(pack: Path, home: Path) -> Path:
    """The folder named in its impact-pack.ini, or its own where that is missing, as its config.py has it."""
    config = configparser.ConfigParser()
    own = pack / "custom_wildcards"
    try:
        config.read(pack / "impact-pack.ini", encoding="utf-8")
        named = home / config["default"]["custom_wildcards"]
    except (configparser.Error, KeyError, UnicodeDecodeError):
        return own
    return named if named.is_dir() else own


def _in_webui(home: Path) -> Iterator[WildcardFolder]:
    # Known by what it holds: a clone may have any name.
    for extension in _folders_in(home / "extensions"):
        if (extension / "sd_dynamic_prompts").is_dir():
            chosen = _chosen_folder(home / "config.json")
            yield WildcardFolder("sd-dynamic-prompts", home / chosen if chosen else extension / "wildcards")


def _chosen_folder(config: Path) -> str:
    """The option wildcard_dir: the settings' page does not show it, but the extension goes by it."""
    try:
        chosen = json.loads(config.read_text(encoding="utf-8")).get("wildcard_dir")
    except (OSError, ValueError, AttributeError):
        return ""
    return chosen if isinstance(chosen, str) else ""


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def _each_once(folders: list[WildcardFolder]) -> list[WildcardFolder]:
    """A folder that several read is one, and is read as ISO-8859-1 if by any."""
    by_path: dict[Path, list[WildcardFolder]] = {}
    for folder in folders:
        by_path.setdefault(folder.path.resolve(), []).append(folder)
    return [
        WildcardFolder(
            ", ".join(dict.fromkeys(folder.reader for folder in alike)),
            alike[0].path,
            any(folder.is_read_as_latin1 for folder in alike),
        )
        for alike in by_path.values()
    ]
