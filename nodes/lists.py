"""Batches and lists: whatever a graph gives, N pictures with N texts come out.

The nodes take lists of everything (INPUT_IS_LIST): a widget comes as a list of one value, a batch as one
tensor [B, H, W, C], a list of pictures of different sizes as several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from ..promptglass.errors import InputError

if TYPE_CHECKING:
    import torch
    from PIL import Image

Value = TypeVar("Value")


def pictures_of(images: Sequence[torch.Tensor]) -> list[Image.Image]:
    """RGB pictures of IMAGEs [B, H, W, C], 0 to 1; a fourth channel is transparency, and left out."""
    import torch
    from PIL import Image

    pictures: list[Image.Image] = []
    for batch in images:
        colours = 3 if batch.shape[-1] >= 3 else 1  # two: grey with transparency
        pixels = (batch[..., :colours].clamp(0, 1) * 255).round().to("cpu", torch.uint8)
        pixels = pixels.expand(*pixels.shape[:3], 3)  # grey ones have one channel
        pictures += [Image.fromarray(picture.numpy()) for picture in pixels]
    return pictures


def image_of(picture: Image.Image) -> torch.Tensor:
    """IMAGE [1, H, W, 3] of an RGB picture."""
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]


def for_each(values: Sequence[Value] | None, count: int, what: str, missing: Value) -> list[Value]:
    """One value for each of `count` pictures: one goes to all. `missing` where nothing is connected."""
    if not values:
        return [missing] * count
    if len(values) == 1:
        return [values[0]] * count
    if len(values) != count:
        raise InputError(f"{len(values)} {what} for {count} pictures: give one for each, or one for all")
    return [*values]


def first(values: Sequence[Value] | None, missing: Value) -> Value:
    """A widget's value."""
    return values[0] if values else missing


def lines_of(texts: Sequence[str] | None) -> list[str]:
    """Every line that says something, once."""
    lines = (line.strip() for text in texts or () for line in text.splitlines())
    return [*dict.fromkeys(filter(None, lines))]
