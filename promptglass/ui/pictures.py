"""A picture that was dropped on the page: its own bytes and name, for the prompt in it is lost otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import InputError, visible
from . import cards
from .gradio_versions import make, name_of, on, path_of
from .thumbnails import data_uri

if TYPE_CHECKING:
    from ..images import Picture

_PREVIEW_SIDE = 512


def drop_area(name: str) -> Any:
    # gradio 3's own Image makes a PNG of everything, without the file's name and its prompt.
    return make(
        "File",
        label="Picture: drop it here, or click",
        file_types=["image"],
        height=110,
        elem_id=f"promptglass_{name}_file",
    )


def wire_drops(area: Any, handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    """Runs a handler when there is another picture, and when there is none any more.

    Not by `change`: gradio 3 drops the second of two that come close together, and a new picture is two.
    """
    for event in (area.upload, area.clear):
        on(event, handler, [area, *inputs], outputs)


def picture_of(file: Any) -> Picture:
    """Raises InputError for no picture, and for one that cannot be read."""
    from ..images import open_file, read_picture

    path = path_of(file)
    if path is None:
        raise InputError("there is no picture: drop one first")
    name = visible(name_of(file))
    with open_file(path) as opened:
        return replace(read_picture(opened, name), name=name)


def preview_of(picture: Picture) -> cards.Html:
    width, height = picture.size
    shown = f"{width:,} × {height:,} {picture.format}"
    return cards.preview(data_uri(picture.image, _PREVIEW_SIDE), picture.name, shown)
