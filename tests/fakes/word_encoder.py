"""An encoder whose answers are plain to see: texts are alike as far as they share words.

painted("a red cat")   # a picture that looks like this text to every WordEncoder
paint("a red cat")     # the same as IMAGE [1, h, w, 3]
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

WIDTH = 256
_painted: dict[bytes, str] = {}


def painted(text: str, size: tuple[int, int] = (6, 5), is_grey: bool = False) -> Image.Image:
    """Of one colour."""
    colour = zlib.crc32(text.encode()).to_bytes(4, "big")[:3]
    colour = bytes([colour[0]] * 3) if is_grey else colour
    picture = Image.new("RGB", size, tuple(colour))
    show(picture, text)
    return picture


def paint(text: str, size: tuple[int, int] = (6, 5), channels: int = 3) -> torch.Tensor:
    """IMAGE [1, h, w, channels]; of one channel it is grey, the fourth is transparency."""
    picture = painted(text, size, is_grey=channels < 3)
    image = torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255)[None]
    if channels == 4:
        return torch.cat([image, torch.zeros_like(image[..., :1])], -1)
    return image[..., :channels]


def show(picture: Image.Image, text: str) -> None:
    """From now on the picture looks like the text."""
    _painted[picture.tobytes()] = text


class WordEncoder:
    """A JointEncoder."""

    name = "words"

    def __init__(self, is_blind: bool = False) -> None:
        self.is_blind = is_blind  # pictures then look like anything
        self.read: list[str] = []  # every text it was given
        self.continued = 0  # how many texts it was given as continuations
        self.seen: list[tuple[int, int]] = []  # the sizes of the pictures

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.read += texts
        return _features(texts)

    def encode_continuations(self, prefix: str, suffixes: Sequence[str]) -> torch.Tensor:
        self.continued += len(suffixes)
        return _features([prefix + suffix for suffix in suffixes])

    def encode_images(self, images: Sequence[Any]) -> torch.Tensor:
        self.seen += [image.size for image in images]
        if self.is_blind:
            return _features([str(zlib.crc32(image.tobytes())) for image in images])
        return _features([_painted[image.tobytes()] for image in images])

    def fills_context(self, text: str) -> bool:
        return len(text.split()) >= 300

    def fingerprint(self) -> str:
        return "0" * 64


def _features(texts: Sequence[str]) -> torch.Tensor:
    """[n, WIDTH], normalised; one text at a time, so that equal texts are equal to the last bit."""
    rows = [torch.stack([_direction(word) for word in _words(text)]).sum(0) for text in texts]
    return torch.nn.functional.normalize(torch.stack(rows), dim=-1) if rows else torch.empty(0, 0)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower()) or [""]


@functools.cache
def _direction(word: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(word.encode()))
    return torch.randn(WIDTH, generator=generator)
