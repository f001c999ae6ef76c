"""Small pictures as data: addresses: no file of the user's has to be served."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PromptglassError

if TYPE_CHECKING:
    from PIL import Image


def data_uri(image: Image.Image, side: int) -> str:
    """A JPEG of at most side × side pixels."""
    small = image.convert("RGB")
    small.thumbnail((side, side))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


def thumbnail(path: str, side: int = 96) -> str | None:
    """None for a file that is no picture any more."""
    try:
        return _thumbnail(path, Path(path).stat().st_mtime_ns, side)
    except (OSError, PromptglassError):
        return None


@lru_cache(maxsize=256)
def _thumbnail(path: str, modified_ns: int, side: int) -> str:
    from ..images import open_picture

    return data_uri(open_picture(path).image, side)
