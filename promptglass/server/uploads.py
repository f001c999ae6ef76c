"""A picture as it comes in JSON: base64, alone or in a data: URI. Addresses and paths are not read."""

from __future__ import annotations

import base64
import binascii
import re

from ..errors import InputError
from ..images import Picture, picture_from_bytes

MOST_BYTES = 20 * 1024 * 1024  # of a picture
# Of a whole question: the picture as base64, and room for words.
MOST_BYTES_OF_QUESTION = MOST_BYTES * 4 // 3 + 1024 * 1024

_NAME = "image"  # what answers and errors call it
_DATA_URI = re.compile(r"data:[^,]{0,200};base64,", re.IGNORECASE)
_BLANKS = str.maketrans("", "", " \t\r\n")  # programs break base64 into lines


class TooLarge(InputError):
    """What was sent is larger than what is taken."""


def picture_of(image: str) -> Picture:
    """The picture itself. Raises InputError for what is no base64, TooLarge, ImageError."""
    prefix = _DATA_URI.match(image)
    encoded = image[prefix.end() if prefix else 0 :].translate(_BLANKS)
    if len(encoded) > MOST_BYTES * 4 // 3 + 4:
        raise _too_large()
    try:
        content = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(
            f"{_NAME} is not base64. Send the file's bytes as base64, or as data:image/png;base64,…"
        ) from error
    if len(content) > MOST_BYTES:
        raise _too_large()
    return picture_from_bytes(content, _NAME)


def _too_large() -> TooLarge:
    return TooLarge(f"{_NAME} is larger than {MOST_BYTES // 1024**2} MB. Make it smaller.")
