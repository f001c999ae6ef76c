"""A picture from a stranger's bytes: few formats, few pixels, few at a time."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ImageError
from ..images import Picture, read_picture

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")  # by their first bytes, whatever they are called

MOST_BYTES_OF_PIXELS = 2**30  # while they are decoded: 134 million pixels of a photograph
_MOST_PIXELS_KEPT = 4_000_000  # CLIP sees 224 x 224, a language model 1024 x 1024
_TURN = threading.BoundedSemaphore(2)  # at decoding; what waits is as small as it came


def picture_of_bytes(content: bytes, name: str) -> Picture:
    """name: what errors call it. Raises ImageError."""
    if not content:
        raise ImageError(name, "it is empty (0 bytes). Send it again.")

    def admit(size_bytes: int) -> None:
        if size_bytes > MOST_BYTES_OF_PIXELS:
            raise ImageError(name, "it has more pixels than are decoded here. Make it smaller.")

    with _TURN:
        picture = read_picture(io.BytesIO(content), name, admit=admit, formats=_readable())
        return replace(picture, image=_smaller(picture.image))


def _readable() -> tuple[str, ...]:
    """Those of FORMATS that this Pillow can read."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _smaller(image: Image.Image) -> Image.Image:
    from PIL import Image

    pixels = image.width * image.height
    if pixels <= _MOST_PIXELS_KEPT:
        return image
    factor = (_MOST_PIXELS_KEPT / pixels) ** 0.5
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)
