"""A JointEncoder whose model belongs to a host, which brings it in when it is needed and may send it away."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from PIL import Image

    from .encoder import JointEncoder

Turn = Callable[[], contextlib.AbstractContextManager[object]]

# Between two looks at whether the user wants to stop: a second or so on a CPU, next to nothing on a GPU.
_TEXTS_TOGETHER, _PICTURES_TOGETHER = 256, 8


class HostedEncoder:
    """encoder: makes the one that does the work, at first use, when the model is there.

    turn: entered around every pass; the model is where it computes within. check: called before every pass,
    raises to interrupt. Features are on the CPU: what they are compared with may be larger than what the host
    leaves free on its GPU.
    """

    def __init__(
        self, name: str, encoder: Callable[[], JointEncoder], turn: Turn, check: Callable[[], None]
    ) -> None:
        self.name = name
        self._make = encoder
        self._turn = turn
        self._check = check

    @cached_property
    def _encoder(self) -> JointEncoder:
        return self._make()

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self._passes(images, _PICTURES_TOGETHER, lambda encoder, these: encoder.encode_images(these))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self.encode_continuations("", texts)

    def encode_continuations(self, prefix: str, suffixes: Sequence[str]) -> torch.Tensor:
        return self._passes(
            suffixes, _TEXTS_TOGETHER, lambda encoder, these: encoder.encode_continuations(prefix, these)
        )

    def fills_context(self, text: str) -> bool:
        if "_encoder" in vars(self):  # counting takes no weights
            return self._encoder.fills_context(text)
        with self._turn():
            return self._encoder.fills_context(text)

    def fingerprint(self) -> str:
        with self._turn():
            return self._encoder.fingerprint()

    def _passes(
        self, items: Sequence, together: int, encode: Callable[[JointEncoder, Sequence], torch.Tensor]
    ) -> torch.Tensor:
        found = []
        for start in range(0, max(len(items), 1), together):
            self._check()
            with self._turn():
                found.append(encode(self._encoder, items[start : start + together]).cpu())
        return torch.cat(found)
