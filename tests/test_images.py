"""Pictures in: what opens, how it is flattened, and how what cannot be read is said."""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
import threading
import time
import warnings
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, features

from promptglass import download, images
from promptglass.errors import ImageError
from promptglass.images import open_picture, picture_from_bytes, to_rgb
from promptglass.public_web import MOST_REDIRECTS

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def png_bytes(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (8, 6)) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that states a size and holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def refusal(source: str | Path) -> str:
    """The one line that a user reads."""
    with pytest.raises(ImageError) as caught:
        open_picture(source)
    text = str(caught.value)
    assert text.startswith("cannot read ")
    assert "\n" not in text
    assert text.endswith((".", ")"))
    return text


# What opens.


def test_picture_tells_name_format_and_stored_size(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (8, 6), RED), tmp_path / "red.png")
    picture = open_picture(path)
    assert (picture.name, picture.format, picture.size) == (str(path), "PNG", (8, 6))
    assert picture.image.mode == "RGB"
    assert picture.image.getpixel((3, 3)) == RED
    assert open_picture(str(path)).image.tobytes() == picture.image.tobytes()


def test_embedded_prompt_comes_with_the_picture(tmp_path: Path) -> None:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("parameters", "a red door\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 8x6")
    path = save(Image.new("RGB", (8, 6), RED), tmp_path / "door.png", pnginfo=text)
    assert "a red door" in repr(open_picture(path).embedded)
    assert open_picture(save(Image.new("RGB", (8, 6)), tmp_path / "bare.png")).embedded is None


WRITABLE = [
    (mode, picture_format)
    for picture_format, modes in {
        "AVIF": "RGB RGBA L",
        "BMP": "1 L P RGB RGBA",
        "DDS": "L LA RGB RGBA",
        "DIB": "1 L P RGB",
        "GIF": "1 L P RGB RGBA LA",
        "HEIF": "RGB RGBA L",
        "ICNS": "RGBA",
        "ICO": "RGBA RGB L 1",
        "IM": "1 L LA P RGB RGBA CMYK YCbCr F I I;16",
        "JPEG": "1 L RGB CMYK YCbCr",
        "JPEG2000": "L LA RGB RGBA",
        "MPO": "L RGB CMYK",
        "MSP": "1",
        "PCX": "1 L P RGB",
        "PNG": "1 L LA P RGB RGBA I I;16",
        "PPM": "1 L I RGB",
        "SGI": "L RGB RGBA",
        "SPIDER": "F",
        "TGA": "1 L LA P RGB RGBA",
        "TIFF": "1 L LA P PA RGB RGBA RGBX CMYK YCbCr LAB F I I;16",
        "WEBP": "L RGB RGBA",
        "XBM": "1",
    }.items()
    for mode in modes.split()
]


def grey_ramp(mode: str) -> Image.Image:
    """Black left to white right, 64 x 64, in any mode."""
    ramp = np.tile(np.linspace(0, 255, 64).round(), (64, 1))
    if mode == "I;16":
        return Image.fromarray((ramp * 257).astype(np.uint16))
    if mode == "I":
        return Image.fromarray((ramp * 257).astype(np.int32))
    if mode == "F":
        return Image.fromarray((ramp / 255).astype(np.float32))
    grey = Image.fromarray(ramp.astype(np.uint8))
    if mode == "LAB":
        return Image.merge("LAB", (grey, Image.new("L", grey.size, 128), Image.new("L", grey.size, 128)))
    if mode == "PA":
        return grey.convert("P").convert("PA")
    return grey.convert("RGB").convert(mode) if mode not in ("L", "LA", "1") else grey.convert(mode)


@pytest.mark.parametrize(("mode", "picture_format"), WRITABLE)
def test_every_mode_and_format_pillow_writes_keeps_its_tones(
    mode: str, picture_format: str, tmp_path: Path
) -> None:
    if picture_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.init()
    if picture_format not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {picture_format}")
    extension = {"JPEG2000": ".jp2", "SPIDER": ".spi"}.get(picture_format, f".{picture_format.lower()}")
    path = tmp_path / f"ramp{extension}"
    try:
        grey_ramp(mode).save(path, picture_format)
        Image.open(path).load()  # 9.5 cannot read the YCbCr TIFF that it writes
    except (OSError, KeyError, ValueError) as error:
        pytest.skip(f"this Pillow does not write and read {mode} as {picture_format}: {error}")
    rgb = open_picture(path).image
    assert rgb.mode == "RGB"
    # Dithered 1-bit and lossy formats keep the tones of the thirds, if not of each pixel.
    width, height = rgb.size
    thirds = (
        np.asarray(rgb, dtype=float)[:, : width // 3 * 3].reshape(height, 3, width // 3, 3).mean((0, 2, 3))
    )
    if picture_format != "XBM":  # black on white or white on black: the format does not say
        assert thirds == pytest.approx([42, 127, 213], abs=16)


# How it is flattened.


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_transparent_becomes_the_background(mode: str) -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image = clear.convert("LA" if mode in ("LA", "La") else "RGBA")
    if mode == "PA":
        image = Image.new("PA", (4, 4), (0, 0))
    elif mode in ("RGBa", "La"):
        image = image.convert(mode)
    assert image.mode == mode
    assert to_rgb(image).getpixel((0, 0)) == WHITE
    assert to_rgb(image, background=BLUE).getpixel((0, 0)) == BLUE


def test_half_transparent_red_on_white_is_pink() -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (255, 0, 0, 128))).getpixel((0, 0)) == (255, 127, 127)


def test_palette_grey_and_rgb_with_a_transparent_colour(tmp_path: Path) -> None:
    for mode, clear in (("P", 0), ("L", 0), ("RGB", (0, 0, 0))):
        image = Image.new(mode, (4, 4), clear)
        path = save(image, tmp_path / f"{mode}.png", transparency=clear)
        assert open_picture(path).image.getpixel((0, 0)) == WHITE, mode


def test_opaque_rgb_is_copied_not_shared() -> None:
    source = Image.new("RGB", (2, 2), RED)
    copy = to_rgb(source)
    copy.putpixel((0, 0), BLUE)
    assert source.getpixel((0, 0)) == RED


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["jpg", "tiff", "png", "webp"])
def test_exif_orientation_is_applied_once(orientation: int, extension: str, tmp_path: Path) -> None:
    # Upright: a red left edge on white, marked blue at its top. Stored: what the camera would write.
    upright = Image.new("RGB", (48, 32), WHITE)
    upright.paste(RED, (0, 0, 16, 32))
    upright.paste(BLUE, (0, 0, 16, 16))
    turn = Image.Transpose
    undo = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE]
    undo += [turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270]
    method = undo[orientation - 1]
    stored = upright.transpose(method) if method is not None else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(stored, tmp_path / f"turned.{extension}", exif=exif.tobytes())
    rgb = open_picture(path).image
    assert rgb.size == (48, 32)
    for x, y, colour in ((8, 8, BLUE), (8, 24, RED), (40, 16, WHITE)):
        assert rgb.getpixel((x, y)) == pytest.approx(colour, abs=12)
    assert to_rgb(rgb).tobytes() == rgb.tobytes()


def test_damaged_exif_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = save(
        Image.new("RGB", (8, 8), RED), tmp_path / "odd.jpg", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff"
    )
    assert open_picture(path).image.getpixel((4, 4)) == pytest.approx(RED, abs=4)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 257, 65535]], np.uint16), [0, 1, 255]),
        (np.array([[0, 100, 255]], np.uint16), [0, 0, 1]),  # 16-bit and dark stays dark
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 32896, 65535]], np.int32), [0, 128, 255]),
        (np.array([[0, 1 << 30, 1 << 31 - 1]], np.int32), [0, 255, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 51.0, 255.0]], np.float32), [0, 51, 255]),
        (np.array([[np.nan, 0.5, np.inf, 1.0]], np.float32), [0, 128, 255, 255]),
    ],
)
def test_deep_grey_is_scaled_not_clipped(values: np.ndarray, expected: list[int]) -> None:
    rgb = np.asarray(to_rgb(Image.fromarray(values)))
    assert rgb[0, :, 0].tolist() == expected


def test_big_endian_sixteen_bit() -> None:
    image = Image.frombytes("I;16B", (2, 1), b"\x00\x00\xff\xff")
    assert np.asarray(to_rgb(image))[0, :, 0].tolist() == [0, 255]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    for name in ("a.gif", "a.png", "a.webp", "a.tiff"):
        path = save(frames[0], tmp_path / name, save_all=True, append_images=frames[1:])
        assert open_picture(path).image.getpixel((4, 4)) == pytest.approx(RED, abs=6), name


def test_adobe_cmyk_jpeg_is_not_inverted(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (8, 8), RED).convert("CMYK"), tmp_path / "ink.jpg")
    assert b"Adobe" in path.read_bytes()
    assert open_picture(path).image.getpixel((4, 4)) == pytest.approx(RED, abs=6)


@pytest.mark.parametrize("name", ["🐈‍⬛ cat.png", "new\nline.png", "quote'\" %s {x}.png", "x" * 240 + ".png"])
def test_weird_names_open_and_fail_in_one_line(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(png_bytes())
    assert open_picture(path).name == str(path)
    path.write_bytes(b"no picture")
    assert "it is text" in refusal(path)


# What does not open.


def test_missing_file_folder_pipe_and_link_loop(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "nothing.png")
    assert "no such file" in refusal(r"C:\nothing\x.png")
    assert "folder" in refusal(tmp_path)
    assert "cannot be a path" in refusal("nul\0.png")
    assert "too long" in refusal(tmp_path / ("x" * 5000))
    loop = tmp_path / "loop.png"
    loop.symlink_to(loop)
    assert "leads back to itself" in refusal(loop)
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refusal(tmp_path / "pipe.png")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(png_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def deny(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", deny)
    assert "no permission" in refusal(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"a poem, not a picture\n", "it is text"),
        ("ein Gedicht über Bäume".encode() * 500, "it is text"),
        (b"<!DOCTYPE html><title>Not found</title>", "web page"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7\n", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2", "video"),
        (b"\x93\x00\xff\xfe" * 300, "does not know"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (png_bytes()[:-30], "damaged or truncated"),
        (png_header(20_000, 20_000), "more than 178,956,970 pixels"),
        (png_header(1_000_000, 2), "1000000 x 2 is too long and thin"),
        (png_header(5, 1025), "too long and thin"),
    ],
)
def test_broken_files_say_why(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    assert reason in refusal(path)


@pytest.mark.parametrize("extension", ["jpg", "png", "webp", "gif", "tiff", "bmp", "jp2"])
def test_truncated_files_say_so(extension: str, tmp_path: Path) -> None:
    noise = Image.effect_noise((64, 64), 90).convert("RGB")
    path = save(noise, tmp_path / f"cut.{extension}")
    whole = path.read_bytes()
    for part in (0.2, 0.5, 0.9):
        path.write_bytes(whole[: int(len(whole) * part)])
        assert "cannot read" in refusal(path)


def test_long_panoramas_and_small_thin_pictures_open() -> None:
    for size in ((4000, 20), (1024, 1)):
        assert picture_from_bytes(png_bytes(size=size), "strip.png").size == size


def test_too_little_memory_to_decode_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", exhausted)
    path = tmp_path / "large.png"
    path.write_bytes(png_bytes())
    assert "not enough memory" in refusal(path)


def test_pixel_limit_is_ours_when_the_host_lifts_pillows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(20_000, 20_000))
    assert "20000 x 20000 is more than" in refusal(path)


def test_nothing_of_the_process_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(png_bytes()[:-30])
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters))
    refusal(path)
    whole = tmp_path / "whole.png"
    whole.write_bytes(png_bytes())
    open_picture(whole)
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, list(warnings.filters)) == before


@pytest.fixture
def no_heif_yet(monkeypatch: pytest.MonkeyPatch):
    """Pillow as it is in a new process, whatever earlier tests taught it."""
    Image.init()
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    monkeypatch.setattr(Image, "OPEN", {name: way for name, way in Image.OPEN.items() if name != "HEIF"})
    images._register_heif.cache_clear()
    yield
    images._register_heif.cache_clear()


@pytest.mark.usefixtures("no_heif_yet")
def test_heic_opens_where_a_decoder_is_installed(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    path = tmp_path / "phone.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), RED)).save(path)
    with pytest.raises(Image.UnidentifiedImageError):
        Image.open(path)
    picture = open_picture(path)
    assert picture.format == "HEIF"
    assert picture.image.getpixel((32, 32)) == pytest.approx(RED, abs=12)


@pytest.mark.usefixtures("no_heif_yet")
def test_heic_without_decoder_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64))
    assert "pip install pillow-heif" in refusal(path)


def test_avif_without_decoder_says_what_to_install(tmp_path: Path) -> None:
    path = tmp_path / "small.avif"
    path.write_bytes(b"\x00\x00\x00\x18ftypavif\x00\x00\x00\x00mif1avif" + bytes(64))
    expected = "damaged" if "avif" in features.modules else "AVIF needs Pillow 11.3"
    assert expected in refusal(path)


def test_upload_of_nothing_and_of_a_picture() -> None:
    assert picture_from_bytes(png_bytes(BLUE), "upload").image.getpixel((0, 0)) == BLUE
    with pytest.raises(ImageError, match="0 bytes"):
        picture_from_bytes(b"", "upload")


# Addresses.


class PictureHandler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.path)  # type: ignore[attr-defined]
        server.encodings.append(self.headers["Accept-Encoding"])  # type: ignore[attr-defined]
        route = self.path.partition("?")[0]
        if route == "/flaky.png" and server.asked.count(self.path) < 3:  # type: ignore[attr-defined]
            return self.answer(503, b"busy")
        if route == "/moved.png":
            self.send_response(302)
            self.send_header("Location", "/red.png")
            self.end_headers()
            return None
        if route in ("/endless-redirect.png", "/round.png", "/closed.png", "/away.png"):
            elsewhere = f"http://localhost:{self.server.server_port}/open.png"  # type: ignore[attr-defined]
            targets = {"/round.png": "/round.png", "/away.png": elsewhere}
            self.send_response(302)
            self.send_header("Location", targets.get(route, "/open.png"))
            self.end_headers()
            try:
                for _ in range(10_000 if route == "/endless-redirect.png" else 0):
                    self.wfile.write(bytes(64 * 1024))
            except OSError:
                pass
            return None
        if route == "/open.png":
            self.server.passwords.append(self.headers["Authorization"])  # type: ignore[attr-defined]
            return self.answer(200, png_bytes())
        if route in ("/packed.png", "/bomb.png", "/brotli.png"):
            body = png_bytes() if route == "/packed.png" else bytes(200 * 2**20)
            self.send_response(200)
            self.send_header("Content-Encoding", "br" if route == "/brotli.png" else "gzip")
            self.end_headers()
            self.wfile.write(gzip.compress(body, 1))
            return None
        if route == "/tofile.png":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return None
        if route == "/endless.png":
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(64 * 1024))
            except OSError:
                return None
        if route == "/drip.png":
            self.send_response(200)
            self.end_headers()
            return self.drip()
        if route == "/dripping-headers.png":
            return self.drip()
        if route == "/lying.png":
            return self.answer(200, b"", length=10**12)
        answers = {
            "/red.png": (200, png_bytes()),
            "/flaky.png": (200, png_bytes()),
            "/down.png": (500, b"oh no"),
            "/page.png": (200, b"<!doctype html><h1>Log in</h1>"),
            "/empty.png": (200, b""),
            "/cut.png": (200, png_bytes()[:-30]),
        }
        return self.answer(*answers.get(route, (404, b"nothing here")))

    def drip(self) -> None:
        try:
            for _ in range(50):
                self.wfile.write(b"x")
                time.sleep(0.2)
        except OSError:
            pass

    def answer(self, status: int, body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web():
    server = ThreadingHTTPServer(("127.0.0.1", 0), PictureHandler)
    server.asked, server.encodings, server.passwords = [], [], []  # type: ignore[attr-defined]
    server.base = f"http://127.0.0.1:{server.server_port}"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_address_opens_and_its_secrets_stay_out_of_the_name(web) -> None:
    picture = open_picture(web.base.replace("//", "//me:secret@") + "/red.png?token=hidden#part")
    assert picture.image.getpixel((0, 0)) == RED
    assert picture.name == f"{web.base}/red.png"
    assert open_picture(web.base + "/moved.png").image.getpixel((0, 0)) == RED


def test_loopback_ignores_proxies(web, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert open_picture(web.base + "/red.png").image.getpixel((0, 0)) == RED


def test_busy_server_is_asked_again_and_a_missing_page_is_not(web) -> None:
    assert open_picture(web.base + "/flaky.png").image.getpixel((0, 0)) == RED
    assert web.asked == ["/flaky.png"] * 3
    web.asked.clear()
    assert "answered 404" in refusal(web.base + "/gone.png")
    assert web.asked == ["/gone.png"]
    web.asked.clear()
    assert "answered 500" in refusal(web.base + "/down.png")
    assert len(web.asked) == download.DOWNLOAD_TRIES


@pytest.mark.parametrize(
    ("route", "reason"),
    [
        ("/page.png", "web page"),
        ("/empty.png", "0 bytes"),
        ("/cut.png", "damaged or truncated"),
        ("/lying.png", "more than 64 MB"),
        ("/tofile.png", "cannot be used"),
    ],
)
def test_wrong_content_says_why(web, route: str, reason: str) -> None:
    text = refusal(web.base.replace("//", "//me:secret@") + route + "?token=hidden")
    assert reason in text
    assert "secret" not in text
    assert "hidden" not in text


def test_bytes_are_asked_for_as_they_are(web) -> None:
    open_picture(web.base + "/red.png")
    assert web.encodings == ["identity"]


@pytest.mark.parametrize("route", ["/drip.png", "/dripping-headers.png"])
def test_dripping_server_is_left_at_the_deadline(web, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "DOWNLOAD_TIMEOUT_S", 1)
    started = time.monotonic()
    assert "not finished after 1 s" in refusal(web.base + route)
    assert time.monotonic() - started < 3


def test_tries_share_one_deadline(web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "DOWNLOAD_TIMEOUT_S", 0.4)
    monkeypatch.setattr(download, "DOWNLOAD_TRIES", 1000)
    refusal(web.base + "/down.png")
    time.sleep(2)  # after 0, 0.25 and 0.75 s, the fourth would be asked after 1.75 s
    assert len(web.asked) <= 3


def test_endless_answer_stops_at_the_limit(web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_DOWNLOAD", 1024 * 1024)
    assert "more than" in refusal(web.base + "/endless.png")


def test_packed_answers_are_unpacked_within_the_limit(web) -> None:
    assert open_picture(web.base + "/packed.png").image.getpixel((0, 0)) == RED
    assert "more than 64 MB" in refusal(web.base + "/bomb.png")
    assert "cannot be used" in refusal(web.base + "/brotli.png")


def test_redirects_are_followed_so_far_and_their_bodies_are_not_read(web) -> None:
    assert open_picture(web.base + "/endless-redirect.png").image.getpixel((0, 0)) == RED
    web.asked.clear()
    assert "TooManyRedirects" in refusal(web.base + "/round.png")
    assert len(web.asked) == MOST_REDIRECTS + 1


def test_a_password_goes_on_to_the_same_server_only(web) -> None:
    for route in ("/closed.png", "/away.png"):
        open_picture(web.base.replace("//", "//me:secret@") + route)
    assert web.passwords == ["Basic bWU6c2VjcmV0", None]


def test_silent_and_dead_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "READ_TIMEOUT_S", 0.2)
    silent = ThreadingHTTPServer(("127.0.0.1", 0), PictureHandler)  # listens, never answers
    try:
        assert "went silent" in refusal(f"http://127.0.0.1:{silent.server_port}/x.png")
    finally:
        silent.server_close()
    assert "no connection" in refusal(f"http://u:secret@127.0.0.1:{silent.server_port}/x.png?key=1")


@pytest.mark.parametrize(
    "address", ["file:///etc/passwd", "FILE:/etc/passwd", "ftp://host/x.png", "data:image/png;base64,iVBO"]
)
def test_other_schemes_are_refused(address: str) -> None:
    assert "addresses are not read" in refusal(address)


def test_refused_address_keeps_its_secrets() -> None:
    text = refusal("ftp://user:hunter2@host/x.png?token=hidden#part")
    assert "ftp://host/x.png:" in text
    assert not any(secret in text for secret in ("hunter2", "hidden", "part"))


@pytest.mark.parametrize(
    "address", ["http://", "http://[::1/x.png", "http://127.0.0.1:99999/x.png", "http://a b/"]
)
def test_impossible_addresses_are_refused(address: str) -> None:
    refusal(address)


def test_import_is_cheap() -> None:
    import subprocess

    heavy = "{'PIL', 'numpy', 'requests', 'tenacity', 'torch', 'pillow_heif'}"
    code = f"import sys, promptglass.images; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
