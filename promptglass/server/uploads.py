"""A picture as it comes in JSON: base64, alone or in a data: URI. Addresses and paths are not read."""

from __future__ import annotations

import base64
import binascii
import gc
import io
import re
import threading
import weakref

from ..errors import Busy, ImageError, InputError
from ..images import Picture, read_picture

MOST_BYTES = 20 * 1024 * 1024  # of a picture
# Of a whole question: the picture as base64, and room for words.
MOST_BYTES_OF_QUESTION = MOST_BYTES * 4 // 3 + 1024 * 1024
# Of all pictures that are decoded or worked on, as pixels: a file of 20 MB may hold a hundred times that.
MOST_BYTES_OF_PIXELS = 3 * 2**30

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
    return _PIXELS.decoded(content)


class _Pixels:
    """What decoded pictures take together, for as long as each is in use."""

    def __init__(self) -> None:
        self._bytes = 0
        self._lock = threading.RLock()  # one may be given back amid another, on one thread

    def decoded(self, content: bytes) -> Picture:
        """Raises Busy where there is no room beside the others, ImageError."""
        if not content:
            raise ImageError(_NAME, "it is empty (0 bytes). Send it again.")
        taken: list[int] = []

        def admit(size_bytes: int) -> None:
            with self._lock:
                if not self._has_room(size_bytes):
                    gc.collect()  # those that nobody uses any more, but for each other
                if not self._has_room(size_bytes):
                    raise Busy("too many large pictures are being worked on: ask again in a few seconds")
                self._bytes += size_bytes
                taken.append(size_bytes)

        try:
            picture = read_picture(io.BytesIO(content), _NAME, admit=admit)
        except BaseException:
            self._give_back(sum(taken))
            raise
        weakref.finalize(picture, self._give_back, sum(taken))
        return picture

    def _has_room(self, size_bytes: int) -> bool:
        return not self._bytes or self._bytes + size_bytes <= MOST_BYTES_OF_PIXELS

    def _give_back(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes -= size_bytes


_PIXELS = _Pixels()


def _too_large() -> TooLarge:
    return TooLarge(f"{_NAME} is larger than {MOST_BYTES // 1024**2} MB. Make it smaller.")
