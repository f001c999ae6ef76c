"""Pictures as endpoints take them: JPEG, upright, on white, no larger than it helps.

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
    from PIL import Image

    rgb = to_rgb(image)
    if max(rgb.size) > max_side:
        scale = max_side / max(rgb.size)
        size = max(round(rgb.width * scale), 1), max(round(rgb.height * scale), 1)
        rgb = rgb.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
