"""Single tensors of a safetensors file, without the rest of it: on a disk, or over a wire.

What a file says about itself is checked before it is believed. Raises ValueError, half a line that says why.
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

# From `start` exactly `count` bytes, or ValueError.
Read = Callable[[int, int], bytes]

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}


class TensorFile:
    """The header is read at once, a tensor when it is asked for."""

    def __init__(self, read: Read) -> None:
        self._read = read
        length = int.from_bytes(read(0, 8), "little")
        if not 2 <= length < MAX_HEADER_BYTES:
            raise ValueError("it is damaged, or no safetensors file")
        self._first_byte = 8 + length
        self._header = _parsed(read(8, length))

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._described(name)[1]

    def size_bytes(self, name: str) -> int:
        _, _, start, end = self._described(name)
        return end - start

    def tensor(self, name: str) -> torch.Tensor:
        dtype, shape, start, end = self._described(name)
        content = self._read(self._first_byte + start, end - start)
        return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)

    def _described(self, name: str) -> tuple[torch.dtype, tuple[int, ...], int, int]:
        try:
            described = self._header[name]
            dtype, shape = _DTYPES[described["dtype"]], tuple(described["shape"])
            start, end = described["data_offsets"]
            # Not isinstance: JSON's true would be an int.
            if not all(type(number) is int and number >= 0 for number in (*shape, start, end)):
                raise ValueError("not a place")
            if end - start != math.prod(shape) * torch.finfo(dtype).bits // 8:
                raise ValueError("not its size")
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"its header does not say where {name} is, or it is in another format") from None
        return dtype, shape, start, end


def reader(path: Path) -> Read:
    """Bytes of a file on the disk. It raises OSError too."""

    def read(start: int, count: int) -> bytes:
        with path.open("rb") as file:
            file.seek(start)
            content = file.read(count)
        if len(content) != count:
            raise ValueError("it ends early: damaged, or not whole yet")
        return content

    return read


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        header = json.loads(content)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise ValueError("it is damaged, or no safetensors file")
    header.pop("__metadata__", None)
    return header
