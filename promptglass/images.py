"""Pictures in: from a path or an http(s) address to an upright RGB image.

What cannot be read raises ImageError, one plain line with the way out; nothing else escapes.
Pillow's switches (LOAD_TRUNCATED_IMAGES, MAX_IMAGE_PIXELS) and the warnings filters belong to the
host: they are read at most, never set. The header decides whether a picture is small enough to decode.
"""

from __future__ import annotations

import functools
import io
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .download import download, without_secrets
from .errors import ImageError, PromptglassError, cause_of

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from .metadata import Embedded

# Where Pillow itself raises DecompressionBombError: twice its MAX_IMAGE_PIXELS of 1 GiB / 4 / 3
# (PIL/Image.py). Ours does not move when a host lifts Pillow's.
MAX_PIXELS = 178_956_970

# What decoding takes at its peak, by whether there is nothing but 8-bit colours: Pillow keeps 4 bytes of RGB,
# and transparency or deep greys are computed in several copies.
_BYTES_PER_PIXEL = {True: 8, False: 20}

# Models scale the shorter side to their 224 to 448 pixels: 1,000,000 x 2, six kilobytes of PNG, would grow to
# 10^10 pixels. Small pictures may be as thin as they like.
MAX_ASPECT = 200
MAX_SIDE_OF_ANY_ASPECT = 1024

# A scheme has two letters or more: "C:\x.png" is a path.
_ADDRESS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://|(?P<bare>file|data):", re.IGNORECASE)

# What files of formats that need more than an old Pillow are called.
HEIC = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))
AVIF = frozenset((".avif", ".avifs"))

# "ftyp" boxes open HEIF, AVIF and MP4 files alike; the brand tells them apart (ISO/IEC 23008-12, annex B).
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}


@dataclass(frozen=True)
class Picture:
    name: str  # the path as given, or the address without credentials and query
    image: Image.Image  # RGB, upright, on the background
    embedded: Embedded | None
    format: str  # Pillow's word: "PNG", "JPEG"
    size: tuple[int, int]  # width and height as stored, before the orientation is applied


def open_picture(
    source: str | os.PathLike[str], background: tuple[int, int, int] = (255, 255, 255)
) -> Picture:
    """The picture behind a path or an http(s) address."""
    name = os.fspath(source)
    address = _ADDRESS.match(name) if isinstance(source, str) else None
    if address is None:
        with open_file(name) as file:
            return read_picture(file, name, background)
    scheme = (address["scheme"] or address["bare"]).lower()
    if scheme not in ("http", "https"):
        # A data: address is its own content; its first characters name it well enough.
        shown = name if scheme == "data" else without_secrets(name)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        raise ImageError(shown, f"{scheme}: addresses are not read. Give a path, or http:// or https://.")
    return read_picture(io.BytesIO(download(name)), without_secrets(name), background)


def picture_from_bytes(
    content: bytes, name: str, background: tuple[int, int, int] = (255, 255, 255)
) -> Picture:
    """The picture in an upload; `name` is what errors call it."""
    if not content:
        raise ImageError(name, "it is empty (0 bytes). Send it again.")
    return read_picture(io.BytesIO(content), name, background)


def open_file(name: str) -> BinaryIO:
    """A picture's file, opened. Raises ImageError for what is no file with something in it."""
    try:
        path = Path(name)
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(name, "it is a folder. Give one picture, or run a batch over the folder.")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise ImageError(name, "it is not a regular file. Give a picture file.")
        if status.st_size == 0:
            raise ImageError(name, "it is empty (0 bytes). Export or download it again.")
        return path.open("rb")
    except OSError as error:
        raise ImageError(name, cause_of(error)) from error
    except ValueError as error:  # an embedded NUL
        raise ImageError(name, "this cannot be a path. Check the path.") from error


def read_picture(
    stream: BinaryIO,
    name: str,
    background: tuple[int, int, int] = (255, 255, 255),
    admit: Callable[[int], None] = lambda size_bytes: None,
    formats: tuple[str, ...] | None = None,
) -> Picture:
    """The picture in a file that is open at its start.

    admit: told, before anything is decoded, how many bytes the pixels will take; it may wait, or
    raise a PromptglassError.
    formats: Pillow's words for those that are read ("PNG", "JPEG"); None: all that it knows.
    """
    from PIL import Image

    from .metadata import read_embedded

    head = stream.read(4096)
    stream.seek(0)
    if _brand(head) in _HEIC_BRANDS | _AVIF_BRANDS:
        _register_heif()
    try:
        with Image.open(stream, formats=formats) as image:
            size, picture_format = image.size, image.format or ""
            _check_header(name, size, picture_format)
            admit(_BYTES_PER_PIXEL[image.mode in ("RGB", "L", "P", "1")] * size[0] * size[1])
            rgb = _kept(image) or to_rgb(image, background)
            # After the pixels: PNG may keep its text behind them.
            embedded = read_embedded(image)
            rgb.info = {}  # an orientation left in here would turn the picture a second time
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(name, f"more than {MAX_PIXELS:,} pixels. {_SHRINK}") from error
    except Image.UnidentifiedImageError as error:
        raise ImageError(name, _why_not_a_picture(head)) from error
    except PromptglassError:
        raise
    except MemoryError as error:
        raise ImageError(name, f"not enough memory to decode it. {_SHRINK}") from error
    except Exception as error:  # decoders raise nearly anything: SyntaxError, struct.error, IndexError
        cause = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(name, f"damaged or truncated ({cause}). Export it again or delete it.") from error
    return Picture(name, rgb, embedded, picture_format, size)


def _kept(image: Image.Image) -> Image.Image | None:
    """A picture that needs nothing done, itself: a copy takes a fifth of the time of decoding it."""
    if image.format not in ("JPEG", "PNG") or image.mode != "RGB" or "transparency" in image.info:
        return None
    image.load()
    if _upright(image) is not image:
        return None
    return image


def to_rgb(image: Image.Image, background: tuple[int, int, int] = (255, 255, 255)) -> Image.Image:
    """A plain RGB copy of the current frame: upright, transparency on the background (white unless told).

    Greyscale deeper than 8 bits is scaled, not clipped: see `_eight_bit`.
    """
    from PIL import Image

    image.load()
    upright = _upright(image)
    if upright.mode in ("La", "RGBa"):  # premultiplied: Pillow goes to RGBA through the plain form only
        upright = upright.convert(upright.mode.replace("a", "A"))
    if upright.mode.startswith(("I", "F")):
        rgb = Image.fromarray(_eight_bit(upright)).convert("RGB")
    elif upright.mode == "LAB":
        rgb = _lab_to_rgb(upright)
    elif upright.mode in ("LA", "PA", "RGBA") or "transparency" in upright.info:
        rgba = upright.convert("RGBA")
        rgb = Image.new("RGB", rgba.size, background)
        rgb.paste(rgba, mask=rgba.getchannel("A"))
    else:
        rgb = upright.convert("RGB")
    rgb.info = {}  # an orientation left in here would turn the picture a second time
    return rgb


# Orientation 2 to 8 in EXIF 2.32, 4.6.4, as the Transpose that undoes each.
_UPRIGHT_BY = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it also rewrites the EXIF block, and raises where the block is odd.
    from PIL import Image

    if getattr(image, "format", None) == "TIFF":  # Pillow turned it while decoding
        return image
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:  # damaged EXIF must not cost the pixels
        return image
    method = _UPRIGHT_BY.get(orientation) if isinstance(orientation, int) else None
    return image.transpose(Image.Transpose[method]) if method else image


def _eight_bit(image: Image.Image) -> np.ndarray:
    """Deep greyscale as uint8 [height, width].

    The scale is the smallest usual one that holds every value: 0..1 (float only), 0..255, 0..65535;
    beyond these, and below zero, the picture's own range. 16-bit modes, and PNG, which knows no
    deeper grey, are 0..65535 however dark they are (Pillow before 11 opens them as mode I).
    """
    import numpy as np

    values = np.asarray(image, dtype=np.float32)
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=0.0)), float(finite.max(initial=0.0))
    values = np.clip(np.nan_to_num(values), low, high)
    if low < 0 or high > 65535:
        values, scale = values - low, (high - low) or 1.0
    elif image.mode.startswith("I;16") or getattr(image, "format", None) == "PNG":
        scale = 65535.0
    elif image.mode == "F" and high <= 1:
        scale = 1.0
    else:
        scale = 255.0 if high <= 255 else 65535.0
    return np.rint(values * (255.0 / scale)).astype(np.uint8)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    from PIL import ImageCms

    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    rgb = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert rgb is not None  # None is for inPlace=True
    return rgb


_SHRINK = "Make it smaller, or cut it into pieces."


def _check_header(name: str, size: tuple[int, int], picture_format: str) -> None:
    width, height = size
    if width * height > MAX_PIXELS:
        raise ImageError(name, f"{width} x {height} is more than {MAX_PIXELS:,} pixels. {_SHRINK}")
    if max(size) > max(MAX_SIDE_OF_ANY_ASPECT, MAX_ASPECT * min(size)):
        raise ImageError(name, f"{width} x {height} is too long and thin to look at. Cut it into pieces.")
    if picture_format == "EPS":  # Pillow would hand it to Ghostscript, which runs it
        raise ImageError(name, "PostScript is a program, not a picture. Export it as PNG.")


def _brand(head: bytes) -> bytes | None:
    return head[8:12] if head[4:8] == b"ftyp" else None


@functools.lru_cache(maxsize=1)
def _register_heif() -> None:
    """Teaches Pillow HEIC, and AVIF where it has none of its own, if pillow-heif is installed."""
    from PIL import Image

    try:
        import pillow_heif
    except Exception:  # absent, or built against another libheif: the caller says what to install
        return
    Image.init()
    if "HEIF" not in Image.OPEN:  # the host may have done it
        pillow_heif.register_heif_opener()
    if "AVIF" not in Image.OPEN and hasattr(pillow_heif, "register_avif_opener"):  # until pillow-heif 1.0
        pillow_heif.register_avif_opener()


@functools.lru_cache
def missing_decoder(extension: str) -> str | None:
    """What pictures of a format (".heic") need that is not installed; None where they can be read."""
    kind = "AVIF" if extension in AVIF else "HEIF" if extension in HEIC else None
    if kind is None:
        return None
    from PIL import Image

    _register_heif()
    if kind in Image.OPEN:
        return None
    return _HEIC_NEEDS if kind == "HEIF" else _AVIF_NEEDS


_HEIC_NEEDS = "HEIC needs a decoder: pip install pillow-heif"
_AVIF_NEEDS = "AVIF needs Pillow 11.3 or newer"


def _why_not_a_picture(head: bytes) -> str:
    """What the first bytes of a file that Pillow does not know say about it."""
    brand = _brand(head)
    if brand in _HEIC_BRANDS:
        return f"{_HEIC_NEEDS} (if it is there, the file is damaged)."
    if brand in _AVIF_BRANDS:
        return f"{_AVIF_NEEDS} (if it is there, the file is damaged)."
    if brand is not None or head.startswith(b"\x1aE\xdf\xa3"):
        return "it is a video. Give one frame of it as a picture."
    if head.startswith(b"%PDF"):
        return "it is a PDF. Export its pages as pictures."
    text = _as_text(head)
    if text is None:
        return "not a picture, a damaged one, or a format Pillow does not know. Export it as PNG or JPEG."
    if "<svg" in text:
        return "SVG is a drawing, not pixels. Export it as PNG."
    if re.match(r"\s*(<!doctype html|<html)", text, re.IGNORECASE):
        return "it is a web page, not a picture. Give the address of the picture itself."
    return "it is text, not a picture. Delete it, or give it its right name."


def _as_text(head: bytes) -> str | None:
    # A cut may split a character: forgive the last three bytes.
    for end in range(len(head), max(len(head) - 4, 0), -1):
        try:
            text = head[:end].decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
        return text if all(char.isprintable() or char.isspace() for char in text) else None
    return None
