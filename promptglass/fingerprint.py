"""Two hashes of a picture's file: of all of it, and of its coded pixels alone.

Tags written into a file change the first and not the second. Nothing is decoded: the second one is taken over
those chunks of a PNG or WebP, and those segments of a JPEG, that hold no metadata.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import BinaryIO

_BLOCK = 1 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
# Chunks that decide what is seen, besides the critical ones: transparency and the frames of an APNG.
_PNG_SEEN = {b"tRNS", b"acTL", b"fcTL", b"fdAT"}
_WEBP_SEEN = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}

Range = tuple[int, int]  # where in the file, and how many bytes


def file_sha256(file: BinaryIO) -> str:
    """Of a file that is open at its start."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def pixels_sha256(file: BinaryIO) -> str | None:
    """Of the coded pixels; None for formats other than PNG, JPEG and WebP."""
    file.seek(0)
    head = file.read(12)
    if head.startswith(_PNG):
        ranges = _png_ranges(file)
    elif head.startswith(b"\xff\xd8\xff"):
        ranges = _jpeg_ranges(file)
    elif head.startswith(b"RIFF") and head.endswith(b"WEBP"):
        ranges = _webp_ranges(file)
    else:
        return None
    digest = hashlib.sha256()
    for start, length in ranges:
        file.seek(start)
        while length > 0 and (block := file.read(min(length, _BLOCK))):
            digest.update(block)
            length -= len(block)
    return digest.hexdigest()


def _png_ranges(file: BinaryIO) -> Iterator[Range]:
    """Name and content of chunks. https://www.w3.org/TR/png-3/#5Chunk-layout"""
    place = len(_PNG)
    while len(head := _bytes_at(file, place, 8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name[:1].isupper() or name in _PNG_SEEN:  # a capital: critical
            yield place + 4, size + 4
        if name == b"IEND":
            return
        place += size + 12


def _webp_ranges(file: BinaryIO) -> Iterator[Range]:
    """https://developers.google.com/speed/webp/docs/riff_container. VP8X tells of metadata: passed over."""
    place = 12
    while len(head := _bytes_at(file, place, 8)) == 8:
        size = int.from_bytes(head[4:], "little")
        if head[:4] in _WEBP_SEEN:
            yield place, size + 8
        place += 8 + size + size % 2


def _jpeg_ranges(file: BinaryIO) -> Iterator[Range]:
    """Segments but for APPn and comments, and all from the first scan on. ITU-T T.81, annex B."""
    place = 2
    while len(head := _bytes_at(file, place, 4)) == 4 and head[0] == 0xFF:
        marker, size = head[1], int.from_bytes(head[2:], "big")
        if marker == 0xFF:  # a fill byte
            place += 1
        elif marker == 0xDA:
            file.seek(0, os.SEEK_END)
            yield place, file.tell() - place
            return
        else:
            # APP14 is Adobe's word on how colours are coded.
            if marker == 0xEE or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
                yield place, size + 2
            place += size + 2


def _bytes_at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
