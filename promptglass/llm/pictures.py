"""Pictures as endpoints take them: upright, on white, no larger than it helps, without the file's metadata.

Never WebP: llama.cpp drops it without a word, and answers as if there had been no picture.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ..images import to_rgb

if TYPE_CHECKING:
    from PIL import Image

QUALITY = 90


def jpeg(image: Image.Image, max_side: int) -> bytes:
    """A picture as JPEG whose longer side is at most `max_side` pixels. It is never enlarged."""
    buffer = io.BytesIO()
    _scaled(image, max_side).save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def png(image: Image.Image, max_side: int) -> bytes:
    """The same as PNG: no pixel differs from what a model on this machine would see."""
    buffer = io.BytesIO()
    _scaled(image, max_side).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _scaled(image: Image.Image, max_side: int) -> Image.Image:
    from PIL import Image

    rgb = to_rgb(image)
    if max(rgb.size) <= max_side:
        return rgb
    scale = max_side / max(rgb.size)
    size = max(round(rgb.width * scale), 1), max(round(rgb.height * scale), 1)
    return rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
