"""The texts inside a picture file, by name: PNG chunks, comments, EXIF. Never decodes the pixels.

What cannot be read is left out; a broken packet never raises.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from PIL import Image

MAX_JSON_CHARS = 32_000_000  # UI graphs that carry pictures in their widgets reach megabytes
MAX_LATE_CHUNKS = 100_000

_EXIF_IFD = 0x8769
_EXIF_TEXTS = {
    0x010E: "ImageDescription", 0x010F: "Make", 0x0110: "Model", 0x0131: "Software",
    0x927C: "fooocus_scheme", 0x9286: "UserComment",
}  # fmt: skip
_GRAPH_LABEL = re.compile(r"\s*(prompt|workflow)\s*:\s*(?=\{)", re.IGNORECASE)


def text_sources(image: Image.Image) -> Iterator[dict[str, object]]:
    """Texts by name, cheapest source first; later ones are only read when asked for."""
    yield _info_texts(image.info)
    yield _exif_texts(image)
    yield _late_png_texts(image)


def _info_texts(info: Mapping[Any, object]) -> dict[str, object]:
    texts: dict[str, object] = {}
    for name, value in info.items():
        if name == "comment" and isinstance(value, bytes):  # GIF, JPEG
            value = value.decode("latin-1")
        if isinstance(name, str) and isinstance(value, str):
            texts[name] = _repaired(value)
    return texts


def _repaired(text: str) -> str:
    """UTF-8 that was read as Latin-1, read right."""
    if text.isascii():
        return text
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


def _exif_texts(image: Image.Image) -> dict[str, object]:
    texts: dict[str, object] = {}
    for name, value in _exif_fields(image).items():
        text = _user_comment(value) if isinstance(value, bytes) else value
        if not isinstance(text, str):
            continue
        text = _repaired(text.strip("\0 \t\r\n"))
        graph = _GRAPH_LABEL.match(text)
        if graph:
            texts[graph[1].lower()] = text[graph.end() :]
            continue
        if name == "UserComment":  # some savers put all their chunks here, as one object
            texts.update(json_object(text))
        texts[name] = text
    return texts


def _exif_fields(image: Image.Image) -> dict[str, object]:
    """Only what may hold text. Not through getexif() where possible: for a PNG it decodes the pixels."""
    try:
        packet = image.info.get("exif")
        if isinstance(packet, bytes):
            exif = Image.Exif()
            exif.load(packet)
        elif image.format == "TIFF":
            exif = image.getexif()
        else:
            return {}
        fields = {**exif, **exif.get_ifd(_EXIF_IFD)}
    except Exception:  # Pillow's parser meets broken packets with errors of every kind
        return {}
    return {name: fields[tag] for tag, name in _EXIF_TEXTS.items() if tag in fields}


def _user_comment(comment: bytes) -> str:
    """EXIF 2.3 names the character set in eight bytes; the byte order of UNICODE is anybody's guess."""
    kind, text = comment[:8], comment[8:]
    if kind.rstrip(b"\0") == b"UNICODE":
        readings = [text.decode(codec, "replace") for codec in ("utf-16-be", "utf-16-le", "utf-8")]
        return max(readings, key=_ascii_count).lstrip("\ufeff")
    if kind.rstrip(b"\0") != b"ASCII":
        text = comment.lstrip(b"\0")
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _ascii_count(text: str) -> int:
    """Read in the wrong byte order, a prompt has next to no ASCII left, and as UTF-8 half of it is NUL."""
    return len(re.findall(r"[\t\n\r -~]", text)) - text.count("\0")


def _late_png_texts(image: Image.Image) -> dict[str, object]:
    """Text chunks after the pixels, which Pillow reads only when it decodes them.

    They are copied behind a one-pixel header, for Pillow to parse with its own limits.
    """
    stream = getattr(image, "fp", None)
    if image.format != "PNG" or stream is None:
        return {}
    try:
        position = stream.tell()
        try:
            chunks = b"".join(_late_chunks(stream))
        finally:
            stream.seek(position)
        header = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
        checked = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        end = b"\0\0\0\0IEND\xaeB`\x82"
        with Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + checked + chunks + end)) as tiny:
            return {**_info_texts(tiny.info), **_exif_texts(tiny)}
    except Exception:  # a truncated or closed file, a chunk that is not what it says
        return {}


def _late_chunks(stream: BinaryIO) -> Iterator[bytes]:
    stream.seek(8)
    after_pixels = False
    for _ in range(MAX_LATE_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head)
        if after_pixels and kind in (b"tEXt", b"zTXt", b"iTXt", b"eXIf") and size <= MAX_JSON_CHARS:
            yield head + stream.read(size + 4)
        else:
            after_pixels = after_pixels or kind == b"IDAT"
            stream.seek(size + 4, io.SEEK_CUR)


def json_object(value: object) -> dict[str, object]:
    """The object in a JSON text (ComfyUI writes NaN into it), or an empty one."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, str) or len(value) > MAX_JSON_CHARS or not value.lstrip().startswith("{"):
        return {}
    try:
        parsed = json.loads(value.strip("\0 \t\r\n"), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
