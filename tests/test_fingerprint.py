"""What changes the hash of the pixels: the pixels."""

from __future__ import annotations

import io

import pytest
from conftest import noise
from PIL import Image, PngImagePlugin

from promptglass.fingerprint import file_sha256, pixels_sha256


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def with_metadata(image: Image.Image, kind: str, text: str, **options: object) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = text
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_itxt("parameters", text)
        return saved(image, kind, exif=exif, pnginfo=info, **options)
    if kind == "WEBP":
        return saved(image, kind, exif=exif, xmp=text.encode(), icc_profile=b"profile", **options)
    return saved(
        image, kind, exif=exif, comment=text.encode(), icc_profile=b"p" * 200, dpi=(72, 72), **options
    )


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "CMYK"])
def test_metadata_changes_the_file_and_not_its_pixels(kind: str, mode: str) -> None:
    try:
        plain = saved(noise(1).convert(mode), kind)
    except OSError:
        pytest.skip(f"{kind} holds no {mode}")
    tagged = with_metadata(noise(1).convert(mode), kind, "a cat 🐈 " * 50)
    other = with_metadata(noise(2).convert(mode), kind, "a cat 🐈 " * 50)
    files, pixels = (
        [take(io.BytesIO(c)) for c in (plain, tagged, other)] for take in (file_sha256, pixels_sha256)
    )
    assert len({*files}) == 3
    assert pixels[0] == pixels[1] != pixels[2] and pixels[0] is not None


def test_frames_and_transparency_are_seen() -> None:
    def moving(last: int, kind: str) -> str | None:
        frames = [noise(n) for n in (1, 2, last)]
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        return pixels_sha256(io.BytesIO(content))

    for kind in ("PNG", "WEBP"):
        assert moving(3, kind) != moving(4, kind)
    grey = noise(1).convert("L")
    clear = pixels_sha256(io.BytesIO(saved(grey, "PNG", transparency=3)))
    assert clear != pixels_sha256(io.BytesIO(saved(grey, "PNG")))


def test_progressive_and_filled_jpegs() -> None:
    content = saved(noise(1), "JPEG", progressive=True)
    filled = content[:2] + b"\xff\xff\xff" + content[2:]
    assert pixels_sha256(io.BytesIO(filled)) == pixels_sha256(io.BytesIO(content)) is not None


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF"])
def test_other_formats_have_none(kind: str) -> None:
    assert pixels_sha256(io.BytesIO(saved(noise(1), kind))) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_file_cut_anywhere_ends(kind: str) -> None:
    content = with_metadata(noise(1), kind, "x")
    for end in range(0, len(content), 7):
        pixels_sha256(io.BytesIO(content[:end]))
        pixels_sha256(io.BytesIO(content[:end] + bytes(20)))
