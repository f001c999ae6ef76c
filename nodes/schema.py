"""What all nodes have in common, and what several of them ask for."""

from __future__ import annotations

from typing import Any

from .clip_models import OWN_CLIP, own_models

Inputs = dict[str, dict[str, Any]]
Result = dict[str, Any]  # {"ui": …, "result": (…)}

ENCODER = "PROMPTGLASS_ENCODER"  # a LoadedClip
ANSWERS = "PROMPTGLASS_ANSWERS"  # of one picture: a list of Answer


class Node:
    """All inputs come as lists (see lists.py); a node that shows something may end a graph."""

    CATEGORY = "promptglass"
    FUNCTION = "run"
    INPUT_IS_LIST = True
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> Inputs:
        raise NotImplementedError


def image() -> Any:
    return ("IMAGE", {"tooltip": "One picture, a batch, or a list of pictures of any size."})


def choice(names: list[str], default: str, tooltip: str) -> Any:
    return (names, {"default": default, "tooltip": tooltip})


def number(default: int, least: int, most: int, tooltip: str) -> Any:
    return ("INT", {"default": default, "min": least, "max": most, "tooltip": tooltip})


def switch(default: bool, tooltip: str) -> Any:
    return ("BOOLEAN", {"default": default, "tooltip": tooltip})


def text(tooltip: str, default: str = "", lines: bool = False, placeholder: str = "") -> Any:
    options = {"default": default, "multiline": lines, "tooltip": tooltip}
    return ("STRING", options | ({"placeholder": placeholder} if placeholder else {}))


def linked_text(tooltip: str) -> Any:
    """A text that comes from another node."""
    return ("STRING", {"forceInput": True, "tooltip": tooltip})


def seed(tooltip: str) -> Any:
    # Not drawn anew by the browser: for a language model every run would be paid for.
    options = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": False, "tooltip": tooltip}
    return ("INT", options)


def own_model() -> Any:
    tooltip = "Used where neither an encoder nor CLIP and CLIP_VISION are connected."
    return choice(own_models("clip"), OWN_CLIP, tooltip)


def towers() -> dict[str, Any]:
    """The ways to connect the host's CLIP."""
    return {
        "encoder": (ENCODER, {"tooltip": "From CLIP Encoder (from host)."}),
        "clip": ("CLIP", {"tooltip": "A CLIP with clip_l, clip_h or clip_g, together with its CLIP_VISION."}),
        "clip_vision": ("CLIP_VISION", {"tooltip": "The picture side of the same CLIP."}),
    }


def hidden() -> dict[str, str]:
    return {"unique_id": "UNIQUE_ID"}
