"""A picture of the host and a mode in; the graph that interrogates it out, as the host's /prompt takes it.

Nothing of the host is imported: what it has is given. A picture is named as the host does it, not by a path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..promptglass.analyzers import FROM_A_CAPTION
from ..promptglass.errors import CaptionerMissing, ImageError, InputError, WeightsMissing, visible
from ..promptglass.program import command
from ..promptglass.weights import KNOWN
from .clip_models import OWN_CLIP, is_own_clip
from .interrogating import MODES

NODE = "promptglass"  # what our graph's node ids begin with: of the user's own graph, none is called so

_TYPES = ("input", "output", "temp")
_EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif")
# A text tower and the picture tower it was trained with, by how people call the files; the best first.
# No 336: of the same width, but with a text tower of its own.
_VIT_L = re.compile(r"(vit[-_ ]?l([-_ ]?14)?(?![a-z\d])|large[-_ ]?patch14)(?!.*336)", re.IGNORECASE)
_PAIRS = (
    (_VIT_L, _VIT_L),
    (re.compile(r"(?<![a-z])clip[-_]l(?![a-z])", re.IGNORECASE), _VIT_L),
    (re.compile(r"(?<![a-z])clip[-_]g(?![a-z])", re.IGNORECASE), re.compile("big-?_?g", re.IGNORECASE)),
)


@dataclass(frozen=True)
class Picture:
    """A picture in a folder of the host, as its /view names it."""

    filename: str
    subfolder: str
    type: str

    @classmethod
    def parsed(cls, value: object) -> Picture:
        """From the JSON of a request; raises InputError."""
        if not isinstance(value, dict):
            raise InputError("the question names no image. Give image: {filename, subfolder, type}.")
        filename, subfolder, kind = (value.get(key) or "" for key in ("filename", "subfolder", "type"))
        if kind not in _TYPES:
            raise InputError(f"the image's type must be one of {', '.join(_TYPES)}.")
        is_text = all(isinstance(part, str) and _is_unicode(part) for part in (filename, subfolder))
        if not is_text or not filename or re.search(r"[\\/\0]", filename) or "\0" in subfolder:
            raise InputError("the image's filename must be a name without a folder; that is the subfolder.")
        if not filename.lower().endswith(_EXTENSIONS):
            raise InputError(f"{visible(filename)} is no image. Choose one of {', '.join(_EXTENSIONS)}.")
        return cls(filename, subfolder.replace("\\", "/").strip("/"), kind)

    @classmethod
    def annotated(cls, name: str) -> Picture:
        """From what a LoadImage holds: "sub/name.png [output]"."""
        found = re.fullmatch(r"(.*?)(?: \[(input|output|temp)\])?", name, re.DOTALL)
        path, kind = (found[1], found[2]) if found else (name, None)
        subfolder, _, filename = path.replace("\\", "/").rpartition("/")
        return cls(filename, subfolder, kind or "input")

    @property
    def annotation(self) -> str:
        """As a LoadImage takes it."""
        return f"{self.subfolder}/{self.filename} [{self.type}]".lstrip("/")

    def check(self, folder: Path) -> None:
        """Raises ImageError where the host's folder has no such file, but for a link out of it."""
        # Not Path: it raises where a name is no name.
        root = os.path.realpath(folder)
        path = os.path.realpath(os.path.join(root, self.subfolder, self.filename))  # noqa: PTH118
        is_inside = path.startswith(os.path.join(root, ""))  # noqa: PTH118
        if not is_inside or not os.path.isfile(path):  # noqa: PTH113
            shown = f"{self.subfolder}/{self.filename}".lstrip("/")
            raise ImageError(
                shown[-200:], f"ComfyUI has no such file in its {self.type} folder. Check the name."
            )


def _is_unicode(text: str) -> bool:
    """Half a surrogate is none, and no file system takes it."""
    return text.isascii() or text.encode("utf-8", "replace").decode() == text


@dataclass(frozen=True)
class Pair:
    """The host's files of a CLIP and its picture side."""

    clip: str
    clip_vision: str


def find_pair(text_encoders: Sequence[str], clip_visions: Sequence[str]) -> Pair | None:
    """The first pair that belongs together; a file that is both halves, before any other."""
    for text, vision in _PAIRS:
        texts = sorted(name for name in text_encoders if text.search(_stem(name)))
        visions = sorted(name for name in clip_visions if vision.search(_stem(name)))
        both = [name for name in texts if name in visions]
        if both:
            return Pair(both[0], both[0])
        if texts and visions:
            return Pair(texts[0], visions[0])
    return None


@dataclass(frozen=True)
class Plan:
    """What answers: the host's pair, or the engine's own encoder by name; and who writes captions."""

    pair: Pair | None
    model: str | None
    captioner: str | None


def best_clip(
    pair: Pair | None, is_here: Callable[[str], bool], is_complete: bool = True
) -> tuple[Pair | None, str | None]:
    """A pair, and a model of our own, as far as they are here and are a good choice.

    is_complete: the pair has a projection; else a model of our own is the better choice.
    """
    own = next((known.name for known in KNOWN if is_own_clip(known) and is_here(known.name)), None)
    return (None if own is not None and not is_complete else pair), own


def plan(mode: str, pair: Pair | None, own: str | None, is_here: Callable[[str], bool]) -> Plan:
    """pair, own: as best_clip() has them.

    Raises InputError for a mode that is none, ModelError where what it needs is not here.
    """
    if mode not in MODES:
        raise InputError(f"there is no mode {visible(str(mode))[:40]!r}. Choose {', '.join(MODES)}.")
    captioners = [known.name for known in KNOWN if known.kind == "caption" and is_here(known.name)]
    captioner = "blip-large" if "blip-large" in captioners else next(iter(captioners), None)
    if captioner is None and mode in FROM_A_CAPTION:
        others = " or ".join(other for other in MODES if other not in FROM_A_CAPTION)
        raise CaptionerMissing(
            f"{mode} needs a captioner, and none is here. Get one: `{command('models get blip-large')}`, "
            f"or choose the mode {others}."
        )
    if pair is None and own is None:
        raise WeightsMissing(
            f"{mode} needs CLIP, and none is here. Put clip-vit-large-patch14.safetensors into the folders "
            f"text_encoders and clip_vision of ComfyUI, or `{command(f'models get {OWN_CLIP}')}`."
        )
    return Plan(pair, own, captioner)


def graph(picture: Picture, mode: str, plan: Plan, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """inputs: the required inputs of Interrogate, as its INPUT_TYPES has them."""
    chosen = {"mode": mode, "model": plan.model, "captioner": plan.captioner}
    interrogate = {
        **_defaults(inputs),
        **{name: value for name, value in chosen.items() if value is not None},
        "image": [f"{NODE}-image", 0],
    }
    made = {f"{NODE}-image": _node("LoadImage", image=picture.annotation)}
    if plan.pair:
        made[f"{NODE}-clip"] = _node("CLIPLoader", clip_name=plan.pair.clip, type="stable_diffusion")
        made[f"{NODE}-clip-vision"] = _node("CLIPVisionLoader", clip_name=plan.pair.clip_vision)
        made[f"{NODE}-encoder"] = _node(
            "PromptglassEncoder",
            clip=[f"{NODE}-clip", 0],
            clip_vision=[f"{NODE}-clip-vision", 0],
            projection="auto",
        )
        interrogate["encoder"] = [f"{NODE}-encoder", 0]
    made[f"{NODE}-interrogate"] = _node("PromptglassInterrogate", **interrogate)
    return made


def as_json(picture: Picture) -> dict[str, str]:
    return asdict(picture)


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {
        "class_type": class_type,
        "inputs": inputs,
        "_meta": {"title": class_type.removeprefix("Promptglass")},
    }


def _defaults(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The value that each widget begins with; the host's /prompt fills in none."""
    found = {}
    for name, (kind, *rest) in inputs.items():
        options = rest[0] if rest else {}
        choices = kind if isinstance(kind, (list, tuple)) else options.get("options")
        if "default" in options:
            found[name] = options["default"]
        elif choices:
            found[name] = choices[0]
    return found


def _stem(name: str) -> str:
    return name.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]
